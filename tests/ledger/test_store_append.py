"""Appending: placed, chained, checkpointed, and refused without a trace when anything is wrong."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Writer, create_ledger
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.entry import entry_of
from govrun.ledger.lock import try_lock
from govrun.ledger.read import open_ledger
from govrun.ledger.sqlite import FOLD_AT_MOST, FOLD_EVERY, connect_sqlite, create_store, move_store, open_store
from govrun.receipt import Draft, Position
from govrun.signing.dsse import verify_envelope
from govrun.signing.keys import Signer, Verifier, signer_from_seed
from tests.ledger.ledger_world import (
    LOG,
    NOW,
    ORIGIN,
    RECEIPT,
    ROOT,
    SHA,
    Child,
    Home,
    denied,
    gap,
    genesis,
    intent,
    invocation,
    key,
    outcome,
    outcome_of,
    payloads,
    tree_size,
    verified_size,
    world,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def refused(code: ExitCode, rule: str, action: Callable[[], object]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def refused_append(home: Home, code: ExitCode, rule: str, action: Callable[[Writer], object]) -> GovrunError:
    """Assert a refusal, and that the ledger is as it was."""
    before = home.size()
    with home.writer(wait_ms=200) as writer:
        error = refused(code, rule, lambda: action(writer))
        assert before == writer.store.size()
        assert before + 1 == writer.append([denied()])[0].index + 1
    assert before + 1 == home.size()
    return error


def test_a_new_ledger_holds_its_genesis_under_a_checkpoint(tmp_path: Path) -> None:
    home = Home(tmp_path)
    appended = home.create()
    assert 0 == appended.index
    assert 1 == verify_checkpoint(appended.checkpoint, ORIGIN, [LOG.verifier]).checkpoint.size
    assert 1 == home.size()
    assert ["genesis"] == [one["kind"] for one in payloads(home.path)]


def test_a_ledger_and_its_directory_are_the_owners_alone(home: Home) -> None:
    with home.writer() as writer:
        writer.append([denied()], salts=[b"s" * 32])
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in home.directory.iterdir()}
    names = {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.lock", "salts"}
    assert dict.fromkeys(names, 0o600) == modes
    assert 0o700 == stat.S_IMODE(home.directory.stat().st_mode)


def test_a_closed_ledger_is_one_file_and_its_lock(home: Home) -> None:
    with home.writer() as writer:
        writer.append([denied()])
    assert ["ledger.lock", "ledger.sqlite"] == sorted(os.listdir(home.directory))


def test_a_ledger_is_never_made_over_another(home: Home) -> None:
    before = home.path.read_bytes()
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.exists", home.create)
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.exists", lambda: create_store(home.path, ORIGIN, world()))
    assert before == home.path.read_bytes()
    assert ["ledger.lock", "ledger.sqlite"] == sorted(os.listdir(home.directory))


def test_a_ledger_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    unfit = Draft("genesis", {**genesis().predicate, "format": 2})
    refused(
        ExitCode.RECEIPT_INVALID,
        "schema.receipt-v1",
        lambda: create_ledger(home.path, unfit, RECEIPT, LOG, home.guard(), world()),
    )
    assert ["ledger.lock"] == os.listdir(home.directory)
    assert home.guard().seen() is None
    home.create()
    assert 1 == home.size()


def test_entries_follow_each_other_and_survive_reopening(home: Home) -> None:
    for n in range(1, 6):
        with home.writer() as writer:
            assert n == writer.append([denied(n)])[0].index
    assert 6 == home.size()
    assert [1, 2, 3, 4, 5] == [one["count"] for one in payloads(home.path)[1:]]


def test_several_drafts_share_one_checkpoint(home: Home) -> None:
    with home.writer() as writer:
        appended = writer.append([denied(n) for n in range(1, 8)])
        assert list(range(1, 8)) == [one.index for one in appended]
        assert {8} == {tree_size(one.checkpoint) for one in appended}
    assert [1, 8] == [size for size, _ in open_ledger(home.path).checkpoints(0, 8)]
    assert 8 == home.size()


def test_a_draft_can_be_made_at_its_place(home: Home) -> None:
    seen: list[Position] = []

    def at(position: Position) -> Draft:
        seen.append(position)
        return denied(position.index)

    with home.writer() as writer:
        (first,) = writer.append([at])
        writer.append([at])
    assert [(ORIGIN, 1), (ORIGIN, 2)] == [(p.origin, p.index) for p in seen]
    assert first.leaf_hash == seen[1].previous


def test_a_draft_that_declines_appends_nothing(home: Home) -> None:
    with home.writer() as writer:
        assert () == writer.append([lambda _: None])
        assert () == writer.append([])
        (only,) = writer.append([lambda _: None, denied()])
    assert 1 == only.index
    assert 2 == home.size()


def test_a_draft_that_raises_leaves_the_ledger_as_it_was(home: Home) -> None:
    def fail(_: Position) -> Draft:
        raise ZeroDivisionError

    with home.writer() as writer:
        with pytest.raises(ZeroDivisionError):
            writer.append([denied(), fail])
        assert 1 == writer.append([denied()])[0].index
    assert 2 == home.size()


def test_what_a_writer_keeps_of_its_last_append_is_no_older_than_the_ledger(home: Home) -> None:
    def fails(_: Position) -> Draft:
        raise ZeroDivisionError

    with home.writer() as one, home.writer() as other:
        for n in range(1, 12, 2):
            one.append([denied(n)])
            with pytest.raises(ZeroDivisionError):
                one.append([denied(99), fails])
            if n % 4 == 1:
                other.append([denied(n + 1)])
    assert 10 == home.size()
    assert 10 == verified_size(home.path)


def test_a_receipt_that_does_not_fit_its_schema_is_refused(home: Home) -> None:
    unfit = Draft("denied", {**denied().predicate, "count": 0})
    refused_append(home, ExitCode.RECEIPT_INVALID, "schema.receipt-v1", lambda w: w.append([denied(), unfit]))


def test_an_unfit_salt_is_refused(home: Home) -> None:
    for salt in (b"short", bytes(32)):
        refused_append(
            home, ExitCode.RECEIPT_INVALID, "salt.form", lambda w, salt=salt: w.append([denied()], salts=[salt])
        )


def test_a_key_entry_is_signed_by_the_new_key_and_then_root(home: Home) -> None:
    new = signer_from_seed(ORIGIN + "/new", b"n" * 32)
    added = Draft("keyAdded", {"role": "receipt", "key": key(new), "addedOn": NOW})
    with home.writer() as writer:
        writer.append([added], signers=[new, ROOT])
        leaf = writer.store.leaf(1)
    assert leaf is not None
    verified = verify_envelope(leaf, [new.verifier, ROOT.verifier], required=2)
    assert (new.verifier, ROOT.verifier) == verified.verifiers


@attrs.frozen
class Broken:
    """A signer whose key is away, or that signs something else."""

    verifier: Verifier
    answer: bytes | Exception

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [OSError("agent gone"), b"x" * 63, GovrunError(ExitCode.SIGNING_FAILED, "agent.locked", "the agent is locked")],
)
def test_a_receipt_that_cannot_be_signed_is_not_appended(home: Home, answer: bytes | Exception) -> None:
    signer: Signer = Broken(RECEIPT.verifier, answer)
    with home.store() as store:
        writer = Writer(store, signer, LOG, home.guard())
        if isinstance(answer, bytes):
            refused(ExitCode.RECEIPT_INVALID, "envelope.sig", lambda: writer.append([denied()]))
        else:
            rule = answer.rule if isinstance(answer, GovrunError) else "signing.failed"
            error = refused(ExitCode.SIGNING_FAILED, rule, lambda: writer.append([denied()]))
            assert "nothing was appended" == error.effect
    assert 1 == home.size()


@pytest.mark.parametrize("answer", [OSError("agent gone"), b"x" * 64])
def test_a_head_that_cannot_be_signed_appends_nothing(home: Home, answer: bytes | Exception) -> None:
    with home.store() as store:
        writer = Writer(store, RECEIPT, Broken(LOG.verifier, answer), home.guard())
        refused(ExitCode.CHECKPOINT_FAILED, "checkpoint.signing", lambda: writer.append([denied()]))
    assert 1 == home.size()


def test_a_writer_needs_the_log_key_of_its_ledger(home: Home) -> None:
    other = signer_from_seed("example.com/other", b"l" * 32)
    with home.store() as store:
        refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.origin", lambda: Writer(store, RECEIPT, other, home.guard()))


def test_a_head_that_another_key_signed_is_refused(home: Home) -> None:
    other = signer_from_seed(ORIGIN, b"x" * 32)
    with home.store() as store:
        writer = Writer(store, RECEIPT, other, home.guard())
        refused(ExitCode.APPEND_FAILED, "note.unknown", lambda: writer.append([denied()]))
    assert 1 == home.size()


def test_a_request_id_is_claimed_once_and_a_denial_does_not_use_it_up(home: Home) -> None:
    refusal = Draft("denied", {**denied().predicate, "request": intent(invocation(1), "r-1").predicate["request"]})
    with home.writer() as writer:
        writer.append([refusal])
        assert writer.store.intent_of_request("r-1") is None
        (claimed,) = writer.append([intent(invocation(1), "r-1")])
        assert claimed.index == writer.store.intent_of_request("r-1")
        error = refused(
            ExitCode.REQUEST_INVALID, "request.claimed", lambda: writer.append([intent(invocation(2), "r-1")])
        )
        assert f"entry {claimed.index}" == error.found
        refused(
            ExitCode.REQUEST_INVALID,
            "request.claimed",
            lambda: writer.append([intent(invocation(3), "r-2"), intent(invocation(4), "r-2")]),
        )
        writer.append([intent(invocation(2)), intent(invocation(5))])
    assert 5 == home.size()


def test_an_intent_is_open_until_its_outcome(home: Home) -> None:
    with home.writer() as writer:
        (announced,) = writer.append([intent(invocation(1))])
        assert ((announced.index, invocation(1)),) == writer.store.open_intents()
        (answered,) = writer.append([outcome_of(invocation(1), announced)])
        assert () == writer.store.open_intents()
        assert answered.index == writer.store.answer_to(announced.index, "outcome")
        assert writer.store.answer_to(announced.index, "gap") is None


def test_an_intent_has_one_outcome_and_one_gap(home: Home) -> None:
    with home.writer() as writer:
        (announced,) = writer.append([intent(invocation(1))])
        about = {"index": announced.index, "leafHash": announced.leaf_hash}
        writer.append([gap("orphaned", about)])
        # Late evidence is better than none.
        writer.append([outcome_of(invocation(1), announced)])
        for draft in (outcome_of(invocation(1), announced), gap("orphaned", about)):
            refused(ExitCode.APPEND_FAILED, "append.answered", lambda draft=draft: writer.append([draft]))
    assert 4 == home.size()


def test_the_store_itself_refuses_a_second_outcome(home: Home) -> None:
    with home.writer() as writer:
        (announced,) = writer.append([intent(invocation(1))])
        writer.append([outcome_of(invocation(1), announced)])
    with sqlite3.connect(home.path) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            "INSERT INTO entry_index SELECT 99, kind, invocation_id, request_id, backend, task, agent, status, reason,"
            " intent, stated_on FROM entry_index WHERE kind = 'outcome'"
        )


@pytest.mark.parametrize("change", ["index", "later", "hash", "kind"])
def test_an_outcome_must_be_about_an_intent_of_this_ledger(home: Home, change: str) -> None:
    def append(writer: Writer) -> object:
        index, digest = 1, writer.leaf_hash_of(1)
        assert digest is not None
        if change == "index":
            index, digest = 0, str(writer.leaf_hash_of(0))
        elif change == "later":
            index = 3
        elif change == "hash":
            digest = SHA
        elif change == "kind":
            index, digest = 2, str(writer.leaf_hash_of(2))
        return writer.append([outcome(invocation(1), index, digest)])

    with home.writer() as writer:
        writer.append([intent(invocation(1)), denied()])
    error = refused_append(home, ExitCode.RECEIPT_INVALID, "receipt.intent", append)
    assert "index and leaf hash of an intent" == error.expected


def test_an_outcome_must_bear_its_intents_invocation_id(home: Home) -> None:
    with home.writer() as writer:
        (announced,) = writer.append([intent(invocation(1))])
    refused_append(
        home, ExitCode.RECEIPT_INVALID, "receipt.invocation", lambda w: w.append([outcome_of(invocation(2), announced)])
    )


def test_folding_the_write_ahead_log_keeps_it_small_and_loses_nothing(home: Home) -> None:
    wal = home.path.with_name("ledger.sqlite-wal")
    with home.writer() as writer:
        sizes = []
        for _ in range(3 * FOLD_EVERY):
            writer.append([denied(1)])
            sizes.append(wal.stat().st_size)
        # The log begins anew after each fold, so it does not grow with the ledger.
        assert sizes[-1] <= sizes[FOLD_EVERY] * 1.2
        sizes.clear()
        for _ in range(4):
            writer.append([denied(n + 1) for n in range(FOLD_AT_MOST)])
            sizes.append(wal.stat().st_size)
        assert sizes[-1] <= sizes[1] * 1.2
    assert 3 * FOLD_EVERY + 4 * FOLD_AT_MOST + 1 == home.size()


# Each way a file is not a ledger of ours, and the rule it is refused under.
def _sql(*statements: str) -> Callable[[Home], None]:
    def change(home: Home) -> None:
        connection = sqlite3.connect(home.path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return change


def _replace_by_link(home: Home) -> None:
    target = home.path.with_name("elsewhere.sqlite")
    home.path.rename(target)
    home.path.symlink_to(target)


def _replace_by_directory(home: Home) -> None:
    home.path.unlink()
    home.path.mkdir()


def _flip_in_first_page(home: Home) -> None:
    data = bytearray(home.path.read_bytes())
    data[100:140] = bytes(40)
    home.path.write_bytes(data)


UNFIT: dict[str, tuple[str, Callable[[Home], Any]]] = {
    "missing": ("ledger.missing", lambda home: home.path.unlink()),
    "text": ("ledger.foreign", lambda home: home.path.write_bytes(b"not a database at all\n" * 200)),
    "empty": ("ledger.foreign", lambda home: home.path.write_bytes(b"")),
    "another program's": ("ledger.foreign", _sql("PRAGMA application_id = 7")),
    "newer": ("ledger.newer", _sql("PRAGMA user_version = 2")),
    "older": ("ledger.form", _sql("PRAGMA user_version = 0")),
    "a trigger": (
        "ledger.form",
        _sql("CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM checkpoint; END"),
    ),
    "a missing table": ("ledger.form", _sql("DROP TABLE open_intent")),
    "another journal": ("ledger.durable", _sql("PRAGMA journal_mode = DELETE")),
    "a link": ("ledger.regular", _replace_by_link),
    "a directory": ("ledger.regular", _replace_by_directory),
    "writable by others": ("ledger.permissions", lambda home: home.path.chmod(0o620)),
    "in an open directory": ("ledger.permissions", lambda home: home.directory.chmod(0o770)),
    "a damaged first page": ("ledger.corrupt", _flip_in_first_page),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_file_that_is_no_ledger_of_ours_is_refused_by_name(home: Home, case: str) -> None:
    rule, change = UNFIT[case]
    change(home)
    error = refused(ExitCode.LEDGER_UNAVAILABLE, rule, home.store)
    assert error.expected
    assert error.fix


def test_a_ledger_of_another_user_is_refused(home: Home) -> None:
    if os.geteuid():
        pytest.skip("SKIPPED ALOUD: only root can give a file away")
    for path in (home.path, home.directory):
        os.chown(path, 12345, -1)
        refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.owner", home.store)
        os.chown(path, 0, -1)
    home.store().close()


def test_a_directory_that_is_missing_is_said(tmp_path: Path) -> None:
    refused(
        ExitCode.LEDGER_UNAVAILABLE, "ledger.missing", lambda: open_store(tmp_path / "no" / "ledger.sqlite", world())
    )


def test_a_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "ledger.sqlite"
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.unwritable", lambda: create_store(path, ORIGIN, world()))


def test_a_lock_that_is_a_directory_is_said(home: Home) -> None:
    (home.directory / "ledger.lock").unlink()
    (home.directory / "ledger.lock").mkdir()
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.unwritable", home.store)


class Unsynced(sqlite3.Connection):
    """What a store would be that forgot to sync: the mutant that must not live."""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", "synchronous = NORMAL"), parameters)


class Folding(sqlite3.Connection):
    """A store that lets SQLite fold the write-ahead log whenever it likes."""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return super().execute(sql.replace("wal_autocheckpoint = 0", "wal_autocheckpoint = 1000"), parameters)


@pytest.mark.parametrize(("mutant", "found"), [(Unsynced, "synchronous = 1"), (Folding, "wal_autocheckpoint = 1000")])
def test_a_store_that_would_not_sync_is_caught_at_open(
    home: Home, mutant: type[sqlite3.Connection], found: str
) -> None:
    def connect(path: Path, wait_s: float) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=wait_s, isolation_level=None, factory=mutant)

    error = refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.durable", lambda: home.store(connect=connect))
    assert found == error.found
    assert 1 == home.size()


class Flipping(sqlite3.Connection):
    """A store that writes other bytes than it was given, into the table that `table` names."""

    table = ""

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        if sql.startswith(f"INSERT INTO {self.table} "):
            rows = [(index, data[:-1] + bytes([data[-1] ^ 1])) for index, data in rows]
        return super().executemany(sql, rows)


@pytest.mark.parametrize("table", ["entry", "node"])
def test_bytes_that_read_differently_than_they_were_written_are_never_signed_over(home: Home, table: str) -> None:
    mutant = type("Mutant", (Flipping,), {"table": table})

    def connect(path: Path, wait_s: float) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=wait_s, isolation_level=None, factory=mutant)

    with home.writer(connect=connect) as writer:
        refused(ExitCode.APPEND_FAILED, "append.readBack", lambda: writer.append([denied()]))
        assert 1 == writer.store.size()
    assert 1 == home.size()


@pytest.mark.parametrize("size", [0, 65_536])
def test_an_entry_has_a_size_that_a_tile_takes(size: int) -> None:
    refused(ExitCode.RECEIPT_INVALID, "entry.size", lambda: entry_of(0, bytes(size)))


def test_a_finished_ledger_takes_its_name_only_if_that_is_free(home: Home) -> None:
    making = home.path.with_name("making")
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.exists", lambda: move_store(making, home.path, world()))
    away = home.path.with_name("away")
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.missing", lambda: move_store(making, away, world()))
    holder = Child(home, "hold").ready()
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.locked", lambda: move_store(making, away, world(), 50))
    holder.finish()
    assert not away.exists()


def test_a_lock_that_fails_otherwise_is_not_taken_for_a_held_one() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        try_lock(1_000_000)


def test_a_connection_that_cannot_be_made_is_refused(home: Home) -> None:
    def connect(path: Path, wait_s: float) -> sqlite3.Connection:
        return connect_sqlite(path.with_name("another"), wait_s)

    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.unwritable", lambda: home.store(connect=connect))


def test_a_closed_store_appends_nothing(home: Home) -> None:
    with home.writer() as writer:
        pass
    writer.store.close()
    refused(ExitCode.APPEND_FAILED, "ledger.closed", lambda: writer.append([denied()]))
    refused(ExitCode.LEDGER_UNAVAILABLE, "ledger.closed", writer.store.size)


def test_a_store_does_not_follow_its_process_into_a_child(home: Home) -> None:
    with home.writer() as writer:
        child = os.fork()
        if not child:
            try:
                writer.append([denied()])
            except GovrunError as error:
                os._exit(0 if error.rule == "ledger.closed" else 1)
            os._exit(2)
        assert 0 == os.waitpid(child, 0)[1]
        writer.append([denied()])
    assert 2 == home.size()


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-wal", "ledger.lock"])
def test_files_that_were_moved_away_under_an_open_store_are_missed(home: Home, name: str) -> None:
    with home.writer() as writer:
        (home.directory / name).rename(home.directory / "away")
        refused(ExitCode.APPEND_FAILED, "ledger.replaced", lambda: writer.append([denied()]))
        (home.directory / "away").rename(home.directory / name)
        writer.append([denied()])
    assert 2 == home.size()


# What somebody without keys can do to the tables, and the rule that keeps an append from covering it up.
TAMPERED = {
    "last leaf": ("UPDATE entry SET leaf = X'00' WHERE idx = 5", "ledger.leaf"),
    "tail cut": ("DELETE FROM entry WHERE idx = 5", "ledger.head"),
    "entry added": ("INSERT INTO entry VALUES (6, X'00')", "ledger.head"),
    "hash added": ("INSERT INTO node VALUES (10, X'00')", "ledger.head"),
    "hash": ("UPDATE node SET hash = randomblob(32) WHERE position = 6", "ledger.root"),
    "hash missing": ("DELETE FROM node WHERE position = 6", "tree.stored"),
    "hash cut": ("UPDATE node SET hash = X'00' WHERE position = 6", "tree.stored"),
    "head gone": ("DELETE FROM checkpoint WHERE size = 6", "ledger.head"),
    "heads gone": ("DELETE FROM checkpoint", "ledger.head"),
    "head changed": ("UPDATE checkpoint SET note = randomblob(200) WHERE size = 6", "note.form"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_ledger_whose_parts_disagree_is_not_appended_to(home: Home, case: str) -> None:
    with home.writer() as writer:
        writer.append([denied(1), denied(2)])
        writer.append([denied(3), denied(4), denied(5)])
    sql, rule = TAMPERED[case]
    _sql(sql)(home)
    with home.writer() as writer:
        before = writer.store.size()
        error = refused(ExitCode.APPEND_FAILED, rule, lambda: writer.append([denied()]))
        assert "nothing was appended" == error.effect
        assert before == writer.store.size()


@pytest.mark.parametrize("case", ["tail cut", "entry added", "hash added", "head gone", "heads gone", "head changed"])
def test_what_is_done_to_an_open_ledger_is_not_appended_to_either(home: Home, case: str) -> None:
    sql, rule = TAMPERED[case]
    with home.writer() as writer:
        writer.append([denied(1), denied(2)])
        writer.append([denied(3), denied(4), denied(5)])
        _sql(sql)(home)
        refused(ExitCode.APPEND_FAILED, rule, lambda: writer.append([denied()]))
