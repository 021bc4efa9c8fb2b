"""A ledger that moves into a database or out of it is the same ledger, whole or not there."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Writer
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.migrate import copied_to_file, copy_to_database
from govrun.ledger.read import open_ledger
from govrun.signing.keys import format_vkey
from tests.audit import ledgers
from tests.e2e.conftest import bare, place
from tests.e2e.place import Place, finish, until
from tests.ledger.ledger_world import LOG, RECEIPT, Home, denied, intent, invocation, outcome_of, verified_size, world
from tests.ledger.test_migrate import content, notes
from tests.postgres.shared_world import Shared

__all__ = ["bare", "place"]

KEYS = ("--key", format_vkey(LOG.verifier), "--key", format_vkey(RECEIPT.verifier))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    with made.writer() as writer:
        (announced,) = writer.append([intent(invocation(1), "request-1")])
        writer.append([outcome_of(invocation(1), announced)])
        writer.append([denied(n + 1) for n in range(300)])
        writer.append([intent(invocation(2))])
    return made


def moved(source: Path | str, url: str, look_again: Callable[[], None] = lambda: None) -> None:
    reader = open_ledger(source)
    try:
        head = verify_checkpoint(reader.checkpoint() or b"", LOG.verifier.name, [LOG.verifier]).checkpoint
        copy_to_database(reader, head, url, world(), look_again)
    finally:
        reader.close()


def test_into_a_database_and_out_again_nothing_changes(home: Home, make: Callable[..., Shared], tmp_path: Path) -> None:
    shared = make()
    moved(home.path, shared.url("anna"))
    there = shared.url("rita")
    assert content(home.path) == content(there)  # type: ignore[arg-type] # a location
    assert notes(home.path) == notes(there)  # type: ignore[arg-type]
    assert 304 == verified_size(there)  # type: ignore[arg-type]
    with shared.machine().store() as store, store.hold():
        assert ((303, invocation(2)),) == store.open_intents()
        assert (1, 2) == (store.intent_of_request("request-1"), store.answer_to(1, "outcome"))
    # Runs go on there, and from there it can be taken out.
    with shared.machine().writer() as writer:
        assert 304 == writer.append([denied()])[0].index
    reader = open_ledger(there)
    head = verify_checkpoint(reader.checkpoint() or b"", LOG.verifier.name, [LOG.verifier]).checkpoint
    with copied_to_file(reader, head, tmp_path / "back" / "ledger.sqlite", world()):
        pass
    reader.close()
    assert content(there) == content(tmp_path / "back" / "ledger.sqlite")  # type: ignore[arg-type]


def test_the_first_of_both_that_grows_makes_the_other_refused(home: Home, make: Callable[..., Shared]) -> None:
    shared = make()
    moved(home.path, shared.url("anna"))
    with shared.machine().store() as store:
        Writer(store, RECEIPT, LOG, home.guard()).append([denied()])
    with pytest.raises(GovrunError) as caught, home.writer() as writer:
        writer.append([denied()])
    assert (ExitCode.LEDGER_ROLLED_BACK, 304) == (caught.value.code, home.size())


def test_a_database_with_a_ledger_takes_no_other(home: Home, shared: Shared) -> None:
    with pytest.raises(GovrunError) as caught:
        moved(home.path, shared.url("anna"))
    assert (ExitCode.LEDGER_UNAVAILABLE, "ledger.exists") == (caught.value.code, caught.value.rule)
    assert 1 == verified_size(shared.url("rita"))  # type: ignore[arg-type]


def test_what_is_refused_in_the_middle_leaves_the_database_as_it_was(
    home: Home, make: Callable[..., Shared], tmp_path: Path
) -> None:
    shared = make()

    def overtaken() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        moved(home.path, shared.url("anna"), overtaken)
    bad = ledgers.six()
    bad.nodes[5] = b"x" * 32
    reader = open_ledger(ledgers.write_sqlite(bad, tmp_path / "bad"))
    head = verify_checkpoint(bad.notes[6], ledgers.ORIGIN, [ledgers.LOG.verifier]).checkpoint
    with pytest.raises(GovrunError) as caught:
        copy_to_database(reader, head, shared.url("anna"), world(), lambda: None)
    reader.close()
    assert ExitCode.LEDGER_INCONSISTENT == caught.value.code
    with pytest.raises(GovrunError):
        moved(home.path, shared.url("rita"))
    with shared.machine().store() as store, store.hold():
        assert (0, 0, None) == (store.ends().size, store.ends().hashes, store.head())
    moved(home.path, shared.url("anna"))
    assert 304 == verified_size(shared.url("rita"))  # type: ignore[arg-type]


def test_salts_are_in_the_home_that_uses_the_database(place: Place, make: Callable[..., Shared]) -> None:
    place.call(argv=("/bin/echo", "hello"))
    url = make().url("anna")
    assert 0 == (done := place.go("ledger", "migrate", str(place.home), url)).code, done.err
    assert b"hello" not in done.out
    without = place.go("ledger", "disclose", "2", "stdout", "--ledger", url)
    assert (45, True) == (without.code, "[salts.place]" in without.err)
    disclosed = place.go("ledger", "disclose", "2", "stdout", "--ledger", url, "--home", str(place.home))
    assert (0, "hmacSha256") == (disclosed.code, disclosed.json["algorithm"]), disclosed.err
    (place.work / "opened").write_bytes(disclosed.out)
    (place.work / "content").write_bytes(b"hello\n")
    assert 0 == place.go("verify", url, "--disclosure", "opened", "--content", "content").code
    erased = place.go("ledger", "erase", "1", "--yes", "--ledger", url, "--home", str(place.home))
    assert 0 == erased.code, erased.err
    assert 45 == place.go("ledger", "disclose", "2", "stdout", "--ledger", url, "--home", str(place.home)).code


@pytest.mark.slow
def test_from_the_command_line_and_killed_in_the_middle(bare: Place, make: Callable[..., Shared]) -> None:
    bare.is_whole = False
    shared = make()
    url = shared.url("anna")
    source = ledgers.write_sqlite(ledgers.many(600), bare.work / "store")
    keys = ("--key", format_vkey(ledgers.LOG.verifier), "--key", format_vkey(ledgers.RECEIPT.verifier))
    words = ("ledger", "migrate", str(source), url, *keys)
    child = bare.start(*words)
    busy = b"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'govrun.(append|sign).[$]'"
    with shared.cluster.admin(shared.name) as link:
        until(lambda: child.poll() is not None or link.execute(busy).fetchone(), "the copy is under way")
    child.send_signal(signal.SIGKILL)
    assert -signal.SIGKILL == finish(child).code
    with shared.machine().store() as store, store.hold():
        assert 0 == store.size()
    done = bare.go(*words, "--json")
    assert (0, url, 601) == (done.code, done.json["to"], done.json["size"]), done.err
    assert 0 == bare.go("verify", url, *keys).code
    again = bare.go(*words)
    assert (15, True) == (again.code, "[ledger.exists]" in again.err)
