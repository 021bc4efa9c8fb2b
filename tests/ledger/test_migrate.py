"""A migrated ledger is the same ledger: byte for byte, verified before it has its name, and only one of both grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from govrun.audit.verify import verify_ledger
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Writer
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.export import export
from govrun.ledger.merkle import stored_hash_count
from govrun.ledger.migrate import copied_to_file
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.ledger.sqlite import open_store
from tests.audit import ledgers
from tests.audit.ledgers import TRUSTED, Ledger
from tests.ledger.ledger_world import LOG, RECEIPT, Home, denied, intent, invocation, outcome_of, verified_size, world
from tests.ledger.web import serve


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    with made.writer() as writer:
        for n in range(3):
            (announced,) = writer.append([intent(invocation(n), f"request-{n}")])
            writer.append([outcome_of(invocation(n), announced)])
        writer.append([denied(n + 1) for n in range(300)])
        writer.append([intent(invocation(9))])
    return made


def migrated(source: str | Path, target: Path, **options: object) -> None:
    reader = open_ledger(source)
    try:
        head = verify_checkpoint(reader.checkpoint() or b"", LOG.verifier.name, [LOG.verifier]).checkpoint
        with copied_to_file(reader, head, target, world(), **options) as made:  # type: ignore[arg-type]
            assert (target.parent, True) == (made.parent, made.name.startswith(target.name + "."))
            assert head.size == verified_size(made)
    finally:
        reader.close()


def content(location: Path) -> tuple[object, ...]:
    """All that a ledger holds, but checkpoints older than the newest."""
    reader = open_ledger(location)
    try:
        size = reader.size
        leaves = [leaf for batch in reader.leaves(0, size) for leaf in batch]
        return leaves, list(reader.hashes(range(stored_hash_count(size)))), reader.checkpoint()
    finally:
        reader.close()


def notes(location: Path) -> list[tuple[int, bytes]]:
    reader = open_ledger(location)
    try:
        return list(reader.checkpoints(0, reader.size))
    finally:
        reader.close()


def test_a_file_is_copied_whole_with_all_its_checkpoints(home: Home, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "new" / "ledger.sqlite"
    migrated(home.path, target, progress=lambda done, all_: told.append((done, all_)))
    assert content(home.path) == content(target)
    assert notes(home.path) == notes(target)
    assert 9 == len(notes(target))
    assert {"ledger.sqlite", "ledger.lock"} == set(os.listdir(target.parent))
    assert 0o600 == target.stat().st_mode & 0o777
    assert (308, 308) == told[-1]
    reader = open_ledger(home.path)
    copy = open_ledger(target)
    assert reader.columns(0, 308) == copy.columns(0, 308)
    reader.close()
    copy.close()


def test_every_form_can_be_migrated(home: Home, tmp_path: Path) -> None:
    reader = open_ledger(home.path)
    publish(reader, tmp_path / "public", LOG.verifier)
    export(reader, tmp_path / "it.zip", LOG.verifier, lambda _: None, world())
    reader.close()
    with serve(tmp_path / "public") as served:
        for number, form in enumerate((tmp_path / "public", tmp_path / "it.zip", served.url)):
            target = tmp_path / str(number) / "ledger.sqlite"
            migrated(form, target)
            assert content(home.path) == content(target)
            assert [(308, dict(notes(home.path))[308])] == notes(target)


def test_what_is_open_and_claimed_is_so_in_the_copy(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "new" / "ledger.sqlite"
    migrated(home.path, target)
    with home.store() as old, open_store(target, world()) as new, old.hold(), new.hold():
        assert ((307, invocation(9)),) == old.open_intents() == new.open_intents()
        for n in range(3):
            assert 1 + 2 * n == old.intent_of_request(f"request-{n}") == new.intent_of_request(f"request-{n}")
            assert 2 + 2 * n == old.answer_to(1 + 2 * n, "outcome") == new.answer_to(1 + 2 * n, "outcome")


def grow(path: Path, home: Home) -> None:
    with open_store(path, world()) as store:
        Writer(store, RECEIPT, LOG, home.guard()).append([denied()])


@pytest.mark.parametrize("first", ["old", "new"])
def test_the_first_of_both_that_grows_makes_the_other_refused(home: Home, tmp_path: Path, first: str) -> None:
    places = {"old": home.path, "new": tmp_path / "new" / "ledger.sqlite"}
    migrated(places["old"], places["new"])
    grow(places[first], home)
    grow(places[first], home)
    other = places["new" if first == "old" else "old"]
    with pytest.raises(GovrunError) as caught:
        grow(other, home)
    assert (ExitCode.LEDGER_ROLLED_BACK, "ledger.rolledBack") == (caught.value.code, caught.value.rule)
    assert (308, 310) == (verified_size(other), verified_size(places[first]))


def test_a_file_is_never_replaced(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "new" / "ledger.sqlite"
    target.parent.mkdir(mode=0o700)
    target.write_bytes(b"precious")
    with pytest.raises(GovrunError) as caught:
        migrated(home.path, target)
    assert (ExitCode.LEDGER_UNAVAILABLE, "ledger.exists") == (caught.value.code, caught.value.rule)
    assert b"precious" == target.read_bytes()
    target.unlink()

    def meanwhile(_: int, __: int) -> None:
        target.write_bytes(b"precious")

    with pytest.raises(GovrunError) as caught:
        migrated(home.path, target, progress=meanwhile)
    assert "ledger.exists" == caught.value.rule
    assert b"precious" == target.read_bytes()
    assert {"ledger.sqlite", "ledger.lock"} == set(os.listdir(target.parent))


def another_leaf(ledger: Ledger) -> None:
    ledger.leaves[3], ledger.leaves[4] = ledger.leaves[4], ledger.leaves[3]


def another_hash(ledger: Ledger) -> None:
    ledger.nodes[5] = b"x" * 32


def another_root(ledger: Ledger) -> None:
    ledger.leaves[5] = ledgers.six().leaves[5]
    other = Ledger()
    for leaf in (*ledger.leaves[:5], ledger.leaves[4]):
        other.add_leaf(leaf)
    ledger.leaves, ledger.nodes = other.leaves, other.nodes


def a_cut(ledger: Ledger) -> None:
    del ledger.leaves[4:]


@pytest.mark.parametrize("change", [another_leaf, another_hash, another_root, a_cut])
def test_a_ledger_that_does_not_hold_is_not_migrated(tmp_path: Path, change: Callable[[Ledger], None]) -> None:
    ledger = ledgers.six()
    whole = ledgers.six()
    change(ledger)
    source = ledgers.write_sqlite(ledger, tmp_path / "store")
    head = verify_checkpoint(whole.notes[6], ledgers.ORIGIN, [ledgers.LOG.verifier]).checkpoint
    reader = open_ledger(source)
    target = tmp_path / "new" / "ledger.sqlite"
    with pytest.raises(GovrunError) as caught, copied_to_file(reader, head, target, world()):
        raise AssertionError("it was copied")
    reader.close()
    assert ExitCode.LEDGER_INCONSISTENT == caught.value.code
    assert ["ledger.lock"] == os.listdir(target.parent)


def test_a_copy_that_is_not_accepted_leaves_nothing(tmp_path: Path) -> None:
    source = ledgers.write_sqlite(ledgers.six(), tmp_path / "store")
    head = verify_checkpoint(ledgers.six().notes[6], ledgers.ORIGIN, [ledgers.LOG.verifier]).checkpoint
    reader = open_ledger(source)
    target = tmp_path / "new" / "ledger.sqlite"

    def reject() -> None:
        with copied_to_file(reader, head, target, world()) as made:
            copy = open_ledger(made)
            assert 0 == verify_ledger(copy, TRUSTED).exit_code
            copy.close()
            raise KeyError

    with pytest.raises(KeyError):
        reject()
    reader.close()
    assert ["ledger.lock"] == os.listdir(target.parent)
