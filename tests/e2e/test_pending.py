"""Outcomes that cannot be appended after the launch: kept, said so, and appended once at the next start."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from govrun.errors import GovrunError
from tests.e2e.place import Done, Place, a_place, finish, until

WAITS = "echo executed >>executed; while ! test -e go-on; do sleep 0.01; done; echo done"


def start(place: Place, *words: str) -> subprocess.Popen[bytes]:
    child = place.start("run", "--backend", "process", *words, "--", "/bin/sh", "-c", WAITS)
    until(lambda: place.runs == 1, "the child runs")
    return child


def assert_kept(place: Place, done: Done, rule: str, code: int = 32) -> None:
    """Exit 32 or its like, the output withheld, and the outcome in `pending/`, for its owner only."""
    assert (code, b"") == (done.code, done.out), done.err
    assert f"[{rule}]" in done.err
    assert "the command ran; its outcome is kept in pending/ and will be appended at the next start" in done.err
    [kept] = (place.home / "pending").iterdir()
    assert 0o600 == kept.stat().st_mode & 0o777


def assert_appended_once(place: Place) -> None:
    """Two more runs: the first appends what is pending, the second finds nothing."""
    for _ in range(2):
        assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["genesis", "intent", "outcome", *("intent", "outcome") * 2] == place.kinds()
    assert ("succeeded", 1) == (place.entries()[2].predicate["status"], place.entries()[2].predicate["intent"]["index"])
    assert (1, []) == (place.runs, place.leftovers())


def test_an_outcome_that_meets_a_locked_ledger_is_kept_and_appended_later(place: Place) -> None:
    place.config("ledgerTimeoutMs = 100\n")
    child = start(place)
    descriptor = os.open(place.home / "ledger.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    (place.work / "go-on").touch()
    done = finish(child)
    assert_kept(place, done, "ledger.locked")
    with pytest.raises(GovrunError) as refused:
        place.call(argv=place.mark)
    assert (15, "ledger.locked") == (refused.value.code, refused.value.rule)
    os.close(descriptor)
    assert_appended_once(place)


def test_an_outcome_whose_ledger_was_replaced_is_kept_and_appended_when_it_is_back(place: Place) -> None:
    child = start(place)
    aside = place.home / "aside"
    aside.mkdir()
    for file in place.home.glob("ledger.sqlite*"):
        shutil.copy2(file, place.home / f"copy.{file.name}")
        file.rename(aside / file.name)
        (place.home / f"copy.{file.name}").rename(file)
    (place.work / "go-on").touch()
    assert_kept(place, finish(child), "ledger.replaced")
    for file in aside.iterdir():
        file.rename(place.home / file.name)
    aside.rmdir()
    assert_appended_once(place)


def test_an_outcome_that_cannot_even_be_kept_is_said_to_be_lost_and_its_intent_gets_a_gap(place: Place) -> None:
    child = start(place)
    (place.home / "pending").write_text("in the way")
    place.ledger.rename(place.home / "aside")
    (place.work / "go-on").touch()
    done = finish(child)
    assert (32, b"") == (done.code, done.out)
    assert "its outcome is lost, since pending/ cannot be written either (pending.lost)" in done.err
    (place.home / "aside").rename(place.ledger)
    (place.home / "pending").unlink()
    assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["genesis", "intent", "gap", "intent", "outcome"] == place.kinds()


def test_a_ledger_that_cannot_be_recovered_refuses_before_anything_runs(place: Place) -> None:
    child = start(place)
    child.kill()
    finish(child)
    old = place.ledger.read_bytes(), (place.home / "ledger.sqlite-wal").read_bytes()
    assert 0 == place.call(argv=("/bin/true",)).exit
    newest = place.ledger.read_bytes()
    place.ledger.write_bytes(old[0])
    (place.home / "ledger.sqlite-wal").write_bytes(old[1])
    with pytest.raises(GovrunError) as refused:
        place.call(argv=place.mark)
    # The gap for the killed run would be appended to an old copy.
    assert (16, "ledger.rolledBack") == (refused.value.code, refused.value.rule)
    assert "nothing was executed and nothing was recorded" == refused.value.effect
    assert 1 == place.runs
    (place.home / "ledger.sqlite-wal").unlink(missing_ok=True)
    place.ledger.write_bytes(newest)


def test_a_refusal_that_cannot_be_recorded_says_so(place: Place) -> None:
    old = place.ledger.read_bytes()
    place.call(argv=("/bin/true",))
    place.ledger.write_bytes(old)
    with pytest.raises(GovrunError) as refused:
        place.call(argv=place.mark, ok_exit=(999,))
    assert (10, "request.okExit") == (refused.value.code, refused.value.rule)
    assert "nothing was executed; the refusal could not be recorded (ledger.rolledBack)" == refused.value.effect
    assert (0, 1) == (place.runs, place.size)


def test_a_repeat_waits_for_a_run_and_finds_its_kept_outcome(place: Place) -> None:
    place.config("ledgerTimeoutMs = 100\n")
    first = start(place, "--request-id", "r1")
    place.config("ledgerTimeoutMs = 20000\n")
    descriptor = os.open(place.home / "ledger.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    second = place.start("run", "--backend", "process", "--request-id", "r1", "--json", "--", "/bin/sh", "-c", WAITS)
    (place.work / "go-on").touch()
    assert 32 == finish(first).code
    os.close(descriptor)
    done = finish(second)
    assert (0, True, 1) == (done.code, done.json["repeated"], place.runs)
    assert ["genesis", "intent", "outcome"] == place.kinds()


def test_a_pending_file_that_is_no_outcome_becomes_a_gap_and_is_kept_aside(place: Place) -> None:
    (place.home / "pending").mkdir(mode=0o700)
    (place.home / "pending" / f"{'0' * 32}.json").write_bytes(b"{}")
    assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["genesis", "gap", "intent", "outcome"] == place.kinds()
    assert "pendingUnreadable" == place.last("gap")["reason"]
    assert [f"pending/{'0' * 32}.unreadable"] == place.leftovers()


@pytest.mark.parametrize(
    ("way", "code", "rule"),
    [
        ("receipt", 30, "receipt.size"),
        ("signing", 31, "signing.failed"),
        ("checkpoint", 33, "checkpoint.signing"),
    ],
)
def test_an_outcome_that_cannot_be_made_or_signed_is_kept_and_appended_by_a_start_that_can(
    place: Place, way: str, code: int, rule: str
) -> None:
    place.with_plugins()
    place.policy('[backends.process]\nfreeArgv = true\n[backends.hostile]\ndistribution = "govrun-hostile"\n')
    done = place.go("run", "--backend", "hostile", "--prompt", "x", env={"HOSTILE": f"breaks-{way}"})
    assert_kept(place, done, rule, code)
    assert "secret words" not in done.err
    assert ["genesis", "policyAdopted", "intent"] == place.kinds()
    assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["genesis", "policyAdopted", "intent", "outcome", "intent", "outcome"] == place.kinds()
    assert ("succeeded", 2) == (place.entries()[3].predicate["status"], place.entries()[3].predicate["intent"]["index"])
    assert (1, []) == (place.runs, place.leftovers())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    """A world on a file system of two megabytes."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"SKIPPED ALOUD: a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        with a_place(tmp_path) as place:
            place.init("process")
            yield place
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(place: Place) -> Path:
    """Leave not one byte of room."""
    filler = place.work / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return filler


def test_a_full_disk_keeps_the_outcome_in_the_room_that_was_reserved(small: Place) -> None:
    child = start(small)
    filler = fill(small)
    os.link(small.work / "executed", small.work / "go-on")
    done = finish(child)
    assert_kept(small, done, "ledger.full")
    filler.unlink()
    assert_appended_once(small)


def test_a_full_disk_refuses_before_anything_runs(small: Place) -> None:
    filler = fill(small)
    with pytest.raises(GovrunError) as refused:
        small.call(argv=small.mark)
    assert 15 == refused.value.code
    assert "nothing was executed" in str(refused.value.effect)
    filler.unlink()
    assert (0, 1, []) == (small.runs, small.size, small.leftovers())
