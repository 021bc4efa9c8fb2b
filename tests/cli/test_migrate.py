"""`govrun ledger migrate`: runs go on at the new place, the old one is refused, and nothing half is ever there."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from govrun.ledger.append import Writer
from govrun.ledger.guard import Guard
from govrun.ledger.lease import LEASES_DIRECTORY, acquire
from govrun.ledger.sqlite import open_store
from govrun.signing.keys import format_vkey, parse_vkey, signer_from_seed
from govrun.world import real_world
from tests.audit import ledgers
from tests.e2e.place import Done, Place, finish, until

KEYS = ("--key", format_vkey(ledgers.LOG.verifier), "--key", format_vkey(ledgers.RECEIPT.verifier))


@pytest.fixture
def ran(place: Place) -> Place:
    place.call(argv=("/bin/echo", "hello"))
    return place


def new(place: Place) -> Path:
    return place.work / "new" / "ledger.sqlite"


def migrate(place: Place, *words: str) -> Done:
    return place.go("ledger", "migrate", str(place.home), str(new(place)), *words)


def test_runs_go_on_at_the_new_place_and_the_old_one_is_refused(ran: Place) -> None:
    done = migrate(ran)
    assert (0, b"") == (done.code, done.out), done.err
    told = done.err.splitlines()
    assert told[0] == f"migrated 3 entries to {new(ran)}, verified there; it is the same ledger at another place"
    assert f'  1. let runs use it: ledger = "{new(ran)}" in config.toml, or GOVRUN_LEDGER' == told[1]
    assert "  2. move beside it what belongs to it: salts, policies" == told[2]
    assert "  3. let nothing write the old one any more" in told[3]
    ran.config(f'ledger = "{new(ran)}"\n')
    (ran.home / "salts").rename(new(ran).parent / "salts")
    assert 0 == ran.run("--", "/bin/echo", "again").code
    assert 0 == (verified := ran.go("verify")).code, verified.err
    assert 5 == ran.go("verify", "--json").json["ledger"]["size"]
    # The policy that was in force is in the home, and found there.
    audited = ran.go("audit", "--format", "json")
    assert (0, 0) == (audited.code, audited.json["policy"]["inForce"]["unavailable"])
    for index in ("2", "4"):
        assert 0 == ran.go("ledger", "disclose", index, "stdout").code
    ran.config("")
    old = ran.run("--", "/bin/echo", "old")
    assert (16, True) == (old.code, "[ledger.rolledBack]" in old.err)


def test_the_answer_for_programs(ran: Place) -> None:
    done = migrate(ran, "--json")
    assert (0, "") == (done.code, done.err)
    expected = ran.go("verify", "--json").json["ledger"]
    assert {"from": str(ran.home), "to": str(new(ran)), **expected} == done.json


def test_what_is_not_trusted_or_older_than_what_was_seen_is_not_migrated(ran: Place) -> None:
    old = ran.ledger.read_bytes()
    ran.call(argv=("/bin/true",))
    now = ran.ledger.read_bytes()
    ran.ledger.write_bytes(old)
    assert 16 == migrate(ran).code
    ran.ledger.write_bytes(now)
    stranger = format_vkey(ledgers.STRANGER.verifier)
    assert 45 == migrate(ran, "--key", stranger).code
    [trust] = (ran.root / "config" / "govrun" / "trust").glob("*.toml")
    log = next(line for line in trust.read_text().splitlines() if line.startswith("log = ")).split('"')[1]
    other = format_vkey(signer_from_seed(f"{parse_vkey(log).name}/receipt", b"x" * 32).verifier)
    done = migrate(ran, "--key", log, "--key", other)
    assert (41, True) == (done.code, "[migrate.unverified]" in done.err), done.err
    trust.rename(ran.work / "kept.toml")
    assert (45, True) == ((done := migrate(ran)).code, "[assurance.unauthenticated]" in done.err)
    assert not new(ran).exists()
    assert 0 == migrate(ran, "--trust", "kept.toml").code
    (ran.work / "kept.toml").rename(trust)


def test_what_is_under_way_has_to_end_first(ran: Place) -> None:
    with acquire(ran.home / LEASES_DIRECTORY, "a" * 32):
        done = migrate(ran)
        assert (45, True) == (done.code, "[migrate.running]" in done.err)
    (ran.home / "pending").mkdir(exist_ok=True)
    (ran.home / "pending" / f"{'b' * 32}.json").write_bytes(b"{}")
    done = migrate(ran)
    assert (45, True) == (done.code, "[migrate.pending]" in done.err)
    (ran.home / "pending" / f"{'b' * 32}.json").unlink()
    assert not new(ran).exists()
    assert 0 == migrate(ran).code


def test_a_place_that_is_no_new_file_is_a_wrong_command_line_or_refused(ran: Place) -> None:
    for target, code in ((".", 2), ("https://example.com/x", 2), ("ftp://example.com", 2), (str(ran.ledger), 15)):
        assert code == ran.go("ledger", "migrate", str(ran.home), target).code, target


@pytest.mark.slow
def test_killed_or_overtaken_in_the_middle_nothing_is_there_under_the_name(bare: Place) -> None:
    bare.is_whole = False
    source = ledgers.write_sqlite(ledgers.many(3000), bare.work / "store")
    target = bare.work / "new" / "ledger.sqlite"
    words = ("ledger", "migrate", str(source), str(target), *KEYS)
    for size in (1, 200_000, 1_500_000):
        child = _copying(bare, words, target, size)
        child.send_signal(signal.SIGKILL)
        finish(child)
        assert not target.exists()
        _clear(target.parent)
    child = _copying(bare, words, target, 1)
    guard = Guard(bare.root / "heads", ledgers.LOG.verifier, real_world())
    with open_store(source, real_world()) as store:
        Writer(store, ledgers.RECEIPT, ledgers.LOG, guard).append([ledgers.denied()])
    overtaken = finish(child)
    assert (45, True) == (overtaken.code, "[migrate.grew]" in overtaken.err), overtaken.err
    assert ["ledger.lock"] == os.listdir(target.parent)
    done = bare.go(*words)
    assert 0 == done.code, done.err
    assert 0 == bare.go("verify", str(target), *KEYS).code


def _copying(place: Place, words: tuple[str, ...], target: Path, size: int) -> subprocess.Popen[bytes]:
    """A migration that has written so many bytes."""
    child = place.start(*words)
    until(lambda: child.poll() is not None or _copied(target.parent) >= size, "something was written")
    assert child.poll() is None
    return child


def _clear(directory: Path) -> None:
    for name in os.listdir(directory):
        (directory / name).unlink()


def _copied(directory: Path) -> int:
    """How many bytes lie in unfinished copies."""
    found = 0
    for name in os.listdir(directory) if directory.is_dir() else ():
        if name.startswith("ledger.sqlite."):
            found = max(found, (directory / name).stat().st_size if (directory / name).exists() else 0)
    return found
