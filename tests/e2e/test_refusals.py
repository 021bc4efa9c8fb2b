"""A caller that provokes refusals without end: the first few are entries, the others are counted, and none is lost."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import pytest

from govrun import refusals
from govrun.api import open_ground
from govrun.errors import GovrunError
from govrun.frozen import evolve
from govrun.invoke import run
from govrun.request import Request
from govrun.settings import load_settings
from govrun.world import format_instant, real_world
from tests.e2e.place import Place, finish, until

START_MS = 1_795_348_800_000


class Clock:
    """The operator's clock, as the test sets it."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refuse(place: Place, clock: Callable[[], int], **wanted: Any) -> GovrunError:
    """Ask for what is refused, with rule `request.okExit` unless the test asks for something else."""
    wanted = {"argv": place.mark, "ok_exit": (999,), **wanted}
    with pytest.raises(GovrunError) as refused:
        place.call(world=evolve(real_world(place.environ), now_ms=clock), **wanted)
    assert 0 == place.runs
    return refused.value


def succeed(place: Place, clock: Callable[[], int]) -> None:
    assert 0 == place.call(world=evolve(real_world(place.environ), now_ms=clock), argv=("/bin/true",)).exit


def denied(place: Place) -> list[dict[str, Any]]:
    return [entry.predicate for entry in place.entries() if entry.kind == "denied"]


def kept(place: Place) -> Path:
    return place.home / "refusals.json"


def waiting(place: Place) -> list[dict[str, Any]]:
    """What was counted and is no entry yet."""
    return [one["waiting"] for one in json.loads(kept(place).read_bytes())["kinds"] if one["waiting"]]


def counted(place: Place, clock: Clock, number: int, **wanted: Any) -> None:
    """Refusals until so many of them were counted; the clock moves on by a second each time."""
    for _ in range(refusals.RECORDED_EACH + number):
        clock.ms += 1000
        refuse(place, clock, **wanted)


def in_the_past() -> Clock:
    """A clock whose windows are long over by the real one, which the programs go by that a test starts."""
    clock = Clock()
    clock.ms = time.time_ns() // 1_000_000 - 1_000_000
    return clock


# What is counted, and what it becomes.


def test_the_first_few_are_entries_and_the_next_are_counted(place: Place, clock: Clock) -> None:
    for number in range(1, refusals.RECORDED_EACH + 1):
        assert f"nothing was executed; refusal recorded as entry {number}" == refuse(place, clock).effect
    after = format_instant(START_MS + refusals.WINDOW_MS)
    for others in ("0 others", "1 other", "2 others"):
        refused = refuse(place, clock)
        expected = f"nothing was executed; refusal counted with {others}, to be recorded as one entry after {after}"
        assert (10, "request.okExit", expected) == (refused.code, refused.rule, refused.effect)
    assert ["genesis", *["denied"] * refusals.RECORDED_EACH] == place.kinds()
    assert [3] == [one["count"] for one in waiting(place)]
    assert 0o600 == stat.S_IMODE(kept(place).stat().st_mode)
    assert [] == place.leftovers()


def test_what_was_counted_becomes_one_entry_before_the_next_refusal_of_any_kind(place: Place, clock: Clock) -> None:
    counted(place, clock, 5)
    clock.ms = START_MS + 70_000
    refuse(place, clock, ok_exit=(0,), backend="nobody")
    *_, merged, after = denied(place)
    assert (5, 10, "request.okExit", "request") == tuple(merged[n] for n in ("count", "exitCode", "rule", "stage"))
    instants = [format_instant(START_MS + second * 1000) for second in (9, 13)]
    assert instants == [merged["firstOn"], merged["deniedOn"]]
    assert (1, 12) == (after["count"], after["exitCode"])
    assert [] == waiting(place)


def test_what_was_counted_becomes_one_entry_at_the_start_of_the_next_run(place: Place, clock: Clock) -> None:
    counted(place, clock, 5)
    succeed(place, clock)
    assert ["denied", "intent", "outcome"] == place.kinds()[-3:]
    assert [5] == [one["count"] for one in waiting(place)]
    clock.ms += refusals.WINDOW_MS
    succeed(place, clock)
    assert ["denied", "intent", "outcome"] == place.kinds()[-3:]
    assert 5 == place.last("denied")["count"]
    assert not kept(place).exists()
    succeed(place, clock)
    assert refusals.RECORDED_EACH + 1 == place.kinds().count("denied")
    assert refusals.RECORDED_EACH + 5 == place.verify().counts.refusals


def test_a_few_refusals_leave_nothing_behind(place: Place, clock: Clock) -> None:
    refuse(place, clock)
    clock.ms += refusals.WINDOW_MS
    succeed(place, clock)
    assert (1, False) == (place.kinds().count("denied"), kept(place).exists())


def test_a_clock_that_goes_back_ends_the_window(place: Place, clock: Clock) -> None:
    counted(place, clock, 2)
    clock.ms = START_MS - 1
    assert "refusal recorded as entry 10" in str(refuse(place, clock).effect)
    assert [2, 1] == [one["count"] for one in denied(place)][-2:]


def test_kinds_are_counted_apart(place: Place, clock: Clock) -> None:
    for agent in ("a", "b"):
        counted(place, clock, 1, agent=agent)
    assert [("a", 1), ("b", 1)] == [(one["agent"], one["count"]) for one in waiting(place)]


def test_one_entry_says_what_its_refusals_have_in_common_and_nothing_else(place: Place, clock: Clock) -> None:
    counted(place, clock, 1, task="lint")
    alone = waiting(place)[0]
    refuse(place, clock, task="lint", ok_exit=(998,))
    [one] = waiting(place)
    assert (("(999,)", None), "lint") == ((alone["found"], one["found"]), one["task"])
    assert (alone["expected"], alone["policy"]) == (one["expected"], one["policy"])
    place.policy("[backends.process]\n")
    refuse(place, clock, task="lint")
    assert (None, 3) == (waiting(place)[0]["policy"], waiting(place)[0]["count"])
    clock.ms += refusals.WINDOW_MS
    refuse(place, clock)
    assert (3, None) == (denied(place)[-2]["count"], denied(place)[-2]["request"])


def test_a_merged_entry_has_no_salt_and_so_no_commitment(place: Place, clock: Clock) -> None:
    counted(place, clock, 2, request_id="one")
    clock.ms += refusals.WINDOW_MS
    succeed(place, clock)
    salts = (place.home / "salts").read_bytes()
    at = refusals.RECORDED_EACH + 1
    assert bytes(32) == salts[at * 32 : at * 32 + 32] != salts[at * 32 - 32 : at * 32]
    assert None is denied(place)[-1]["request"] is not denied(place)[-2]["request"]


def test_with_plain_digests_equal_requests_are_shown_and_others_are_not(place: Place, clock: Clock) -> None:
    place.config('digests = "plain"\n')
    counted(place, clock, 3, request_id="one")
    [one] = waiting(place)
    assert denied(place)[0]["request"] == one["request"] is not None
    refuse(place, clock, request_id="two")
    assert (None, 4) == (waiting(place)[0]["request"], waiting(place)[0]["count"])


def test_a_request_that_could_not_be_read_is_counted_too(place: Place) -> None:
    for _ in range(refusals.RECORDED_EACH):
        place.go("run", "--request", "-", stdin=b"{")
    done = place.go("run", "--request", "-", stdin=b"{")
    assert (10, True) == (done.code, "nothing was executed; refusal counted with 0 others" in done.err), done.err
    assert ["genesis", *["denied"] * refusals.RECORDED_EACH] == place.kinds()


# Floods.


def test_a_thousand_refusals_are_a_handful_of_entries_and_none_is_missing(place: Place, clock: Clock) -> None:
    for _ in range(1000):
        refuse(place, clock)
    assert refusals.RECORDED_EACH == len(denied(place))
    clock.ms += refusals.WINDOW_MS
    succeed(place, clock)
    assert [1] * refusals.RECORDED_EACH + [992] == [one["count"] for one in denied(place)]
    report = place.verify()
    assert (1000, "intact", 0) == (report.counts.refusals, report.integrity, report.exit_code)
    assert place.ledger.stat().st_size < 100_000


def test_another_name_each_time_fills_neither_the_ledger_nor_the_file(place: Place, clock: Clock) -> None:
    names = [f"a{number}" for number in range(300)]
    largest = 0
    for name in names:
        refuse(place, clock, agent=name, ok_exit=(999,) if name < "a2" else (0,), backend=name)
        largest = max(largest, kept(place).stat().st_size)
    assert refusals.RECORDED_IN_ALL == len(denied(place))
    assert largest < 100_000
    clock.ms += refusals.WINDOW_MS
    succeed(place, clock)
    various = [one for one in denied(place) if one["rule"].startswith("various.")]
    assert {("various.request", 10), ("various.backend", 12)} == {(one["rule"], one["exitCode"]) for one in various}
    assert all((None, None) == (one["agent"], one["backend"]) for one in various)
    assert len(denied(place)) <= refusals.RECORDED_IN_ALL + refusals.MAX_KINDS + 2
    assert 300 == place.verify().counts.refusals


# Several processes, and processes that are killed.


def test_what_several_processes_settle_at_once_is_one_entry(place: Place) -> None:
    counted(place, in_the_past(), 4)
    runs = [place.start("run", "--backend", "process", "--", "/bin/true") for _ in range(3)]
    runs += [place.start("run", "--backend", "nobody") for _ in range(3)]
    assert [0, 0, 0, 12, 12, 12] == [finish(child).code for child in runs]
    assert [4] == [one["count"] for one in denied(place) if one["count"] > 1]
    assert refusals.RECORDED_EACH + 4 + 3 == place.verify().counts.refusals


def test_what_several_processes_count_at_once_is_all_there(place: Place) -> None:
    children = [place.start("run", "--backend", "nobody") for _ in range(12)]
    assert [12] * 12 == [finish(child).code for child in children]
    assert 12 == len(denied(place)) + sum(one["count"] for one in waiting(place))


def test_a_kill_between_the_entry_and_the_end_of_its_count_appends_nothing_twice(place: Place, clock: Clock) -> None:
    counted(place, clock, 4)
    before = kept(place).read_bytes()
    clock.ms += refusals.WINDOW_MS
    for agent in ("a", "b"):
        refuse(place, clock, agent=agent)
        assert [4] == [one["count"] for one in denied(place) if one["count"] > 1]
        # What a process leaves that is killed after its append: the entry is there, and the file still waits for it.
        kept(place).write_bytes(before)
    succeed(place, clock)
    assert refusals.RECORDED_EACH + 4 + 2 == place.verify().counts.refusals


FLOOD = """
import os, sys
from govrun.api import open_ground, run
from govrun.errors import GovrunError
from govrun.frozen import evolve
from govrun.world import real_world
told = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
start = int(sys.argv[2])
# Three seconds between two refusals: a window ends every twenty of them.
world = evolve(real_world(), now_ms=lambda: start + os.fstat(told).st_size // 2 * 3000)
while True:
    os.write(told, b"a")
    try:
        run(backend="process", argv=("/bin/true",), ok_exit=(999,), world=world)
    except GovrunError as refusal:
        assert "refusal recorded" in refusal.effect or "refusal counted" in refusal.effect, refusal
        os.write(told, b"d")
"""


def test_killed_at_any_instant_no_refusal_that_was_told_is_lost_or_counted_twice(place: Place) -> None:
    told = place.root / "told"
    chance = random.Random(19)  # noqa: S311 - when to kill
    for _ in range(10):
        size = told.stat().st_size if told.exists() else 0
        child = Popen(
            [sys.executable, "-c", FLOOD, str(told), str(START_MS)], env=place.environ, cwd=place.work, stderr=DEVNULL
        )
        until(lambda: told.exists() and told.stat().st_size >= size + 30, "refusals are told")  # noqa: B023
        time.sleep(chance.uniform(0, 0.05))
        child.kill()
        assert -9 == child.wait()
    words = told.read_bytes()
    clock = Clock()
    clock.ms += 10**9
    succeed(place, clock)
    assert words.count(b"d") <= place.verify().counts.refusals <= words.count(b"a")
    assert not kept(place).exists()
    assert 3 < len([one for one in denied(place) if one["count"] > 1])


# When it cannot be counted.


def test_a_refusal_that_cannot_be_counted_is_an_entry_and_says_so(place: Place, clock: Clock) -> None:
    counted(place, clock, 1)
    (place.home / "refusals.new").mkdir()
    effect = "nothing was executed; refusal recorded as entry 9; it could not be counted (refusals.files)"
    assert effect == refuse(place, clock).effect
    assert [1] == [one["count"] for one in waiting(place)]


def test_on_a_full_disk_a_refusal_is_a_refusal_and_the_count_stays_as_it_was(place: Place, clock: Clock) -> None:
    counted(place, clock, 1)
    before = kept(place).read_bytes()
    world = evolve(real_world(place.environ), now_ms=clock)
    wanted = Request(backend="process", argv=place.mark, ok_exit=(999,), cwd=str(place.work))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_ground(world, load_settings(place.home, world.environ, {})) as ground:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1, hard))
        try:
            with pytest.raises(GovrunError) as refused:
                run(ground, wanted)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        words = "nothing was executed; the refusal could be neither counted (refusals.files) nor recorded ("
        assert (10, True) == (refused.value.code, str(refused.value.effect).startswith(words)), refused.value.effect
        assert (0, before, False) == (place.runs, kept(place).read_bytes(), (place.home / "refusals.new").exists())
    assert "refusal counted with 1 other" in str(refuse(place, clock).effect)
    assert [2] == [one["count"] for one in waiting(place)]


def test_a_refusal_that_can_be_neither_counted_nor_recorded_is_a_refusal_all_the_same(
    place: Place, clock: Clock
) -> None:
    old = place.ledger.read_bytes()
    succeed(place, clock)
    place.ledger.write_bytes(old)
    (place.home / "refusals.new").mkdir()
    refused = refuse(place, clock)
    words = "the refusal could be neither counted (refusals.files) nor recorded (ledger.rolledBack)"
    assert (10, f"nothing was executed; {words}") == (refused.code, refused.effect)
    assert 1 == place.size


def test_a_count_that_others_keep_locked_is_waited_for_until_the_deadline_only(place: Place, clock: Clock) -> None:
    counted(place, clock, 1)
    clock.ms += refusals.WINDOW_MS
    place.config("ledgerTimeoutMs = 50\n")
    with (place.home / "refusals.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        succeed(place, clock)
        assert "it could not be counted (refusals.locked)" in str(refuse(place, clock).effect)
    assert [1] * 9 == [one["count"] for one in denied(place)]
    succeed(place, clock)
    assert refusals.RECORDED_EACH + 1 + 1 == place.verify().counts.refusals


def test_a_ledger_that_cannot_take_what_was_counted_starts_no_run(place: Place, clock: Clock) -> None:
    old = place.ledger.read_bytes()
    counted(place, clock, 2)
    newest = place.ledger.read_bytes()
    clock.ms += refusals.WINDOW_MS
    place.ledger.write_bytes(old)
    with pytest.raises(GovrunError) as refused:
        place.call(world=evolve(real_world(place.environ), now_ms=clock), argv=place.mark)
    assert (16, "nothing was executed and nothing was recorded") == (refused.value.code, refused.value.effect)
    assert (0, [2]) == (place.runs, [one["count"] for one in waiting(place)])
    place.ledger.write_bytes(newest)
    succeed(place, clock)
    assert 2 == place.last("denied")["count"]


# Files that govrun did not write.


def broken(way: str, text: bytes) -> bytes:
    """The file with one thing broken."""
    value = json.loads(text)
    one = value["kinds"][0]
    match way:
        case "empty":
            return b""
        case "no JSON":
            return text[:-1]
        case "another spelling":
            return text + b"\n"
        case "too large":
            return text + b" " * refusals.MAX_BYTES
        case "another ledger":
            value["origin"] = "example.com/another"
        case "a member more":
            one["more"] = 1
        case "a kind twice":
            value["kinds"].append(one)
        case "a negative number":
            one["recorded"] = -1
        case "no number":
            one["beganMs"] = True
        case "no kind":
            one["kind"] = None
        case "no predicate":
            one["waiting"] = {"count": 10**6}
        case "a count of nothing":
            one["waiting"]["count"] = 0
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


BREAKS = [
    *("empty", "no JSON", "another spelling", "too large", "another ledger", "a member more", "a kind twice"),
    *("a negative number", "no number", "no kind", "no predicate", "a count of nothing"),
]


@pytest.mark.parametrize("way", BREAKS)
def test_a_file_with_one_thing_broken_is_set_aside_and_told(place: Place, clock: Clock, way: str) -> None:
    counted(place, clock, 2)
    data = broken(way, kept(place).read_bytes())
    kept(place).write_bytes(data)
    refuse(place, clock)
    assert ["gap", "denied"] == place.kinds()[-2:]
    gap = place.last("gap")
    assert ("pendingUnreadable", None) == (gap["reason"], gap["intent"])
    assert data == (place.home / "refusals.unreadable").read_bytes()
    assert [1] * 9 == [one["count"] for one in denied(place)]


STRANGE: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a file that others may write": lambda path: (path.touch(), path.chmod(0o666)),
}


@pytest.mark.parametrize("way", STRANGE)
def test_what_is_no_file_of_ours_is_set_aside_before_a_run(place: Place, clock: Clock, way: str) -> None:
    STRANGE[way](kept(place))
    succeed(place, clock)
    assert ["genesis", "gap", "intent", "outcome"] == place.kinds()
    assert not os.path.lexists(kept(place))
    assert os.path.lexists(place.home / "refusals.unreadable")
