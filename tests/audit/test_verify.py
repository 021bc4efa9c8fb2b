"""A valid ledger verifies; one thing broken in it is found, located, and told with the right exit code."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from govrun.audit.report import Finding, Report
from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, verify_ledger
from govrun.errors import ExitCode
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint
from govrun.ledger.entry import IndexColumns
from govrun.ledger.merkle import Frontier
from govrun.ledger.read import Reader, open_ledger
from govrun.receipt import Position, format_statement
from govrun.signing.dsse import format_envelope, parse_envelope, sign_envelope
from govrun.signing.note import Note, NoteSignature, format_note, parse_note
from tests.audit import ledgers
from tests.audit.ledgers import LOG, ORIGIN, RECEIPT, ROOT, SECOND, STRANGER, TRUSTED, InMemory, Ledger

Store = Callable[[Ledger], Path]


@pytest.fixture(params=["sqlite", "published"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Writes a ledger in one of the two forms."""
    if request.param == "published":
        return lambda ledger: ledgers.write_published(ledger, tmp_path)
    return lambda ledger: ledgers.write_sqlite(ledger, tmp_path / "ledger")


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Store:
    return lambda ledger: ledgers.write_sqlite(ledger, tmp_path / "ledger")


def files_under(path: Path) -> dict[str, str]:
    """Every file beside or below a ledger, by name, with its digest."""
    top = path if path.is_dir() else path.parent
    return {
        str(p.relative_to(top)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(top.rglob("*"))
        if p.is_file()
    }


def verified(
    path: Path, trusted: TrustedKeys | None = TRUSTED, question: Question | None = None, workers: int = 1
) -> Report:
    """Verify, and see to it that nothing was modified or left behind."""
    before = files_under(path)
    reader = open_ledger(path)
    report = verify_ledger(reader, trusted, question or Question(workers=workers))
    reader.close()
    assert before == files_under(path)
    return report


def change(path: Path, sql: str, *values: object) -> None:
    """Change one thing in a SQLite ledger, as somebody without keys can."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql, values)
    connection.close()


def rules(report: Report) -> set[tuple[str, int | None]]:
    return {(finding.rule, finding.index) for finding in report.findings if finding.level == "error"}


def first(report: Report) -> Finding:
    assert report.broken_at is not None
    return report.broken_at


# The valid world


def test_a_valid_ledger_is_intact_and_keyed(store: Store) -> None:
    report = verified(store(ledgers.six()))
    assert (report.exit_code, report.integrity, report.assurance) == (ExitCode.SUCCESS, "intact", "keyed")
    assert report.findings == ()
    assert report.counts.kinds == (("denied", 1), ("genesis", 1), ("intent", 2), ("outcome", 2))
    assert all(check.status == "passed" and check.judged > 0 for check in report.checks)


def test_only_genesis_is_intact(store: Store) -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    assert verified(store(ledger)).exit_code is ExitCode.SUCCESS


def test_what_is_not_shown_says_that_truncation_was_not_checked(store: Store) -> None:
    report = verified(store(ledgers.six()))
    assert any(line.startswith("truncation: not checked") for line in report.not_shown)


def test_a_ledger_that_extends_a_pinned_checkpoint_is_pinned(store: Store) -> None:
    ledger = ledgers.six()
    path = store(ledger)
    for size, note in ledger.notes.items():
        report = verified(path, question=Question(pinned=note))
        assert (report.exit_code, report.assurance, report.pinned_size) == (ExitCode.SUCCESS, "pinned", size)


# Keys


def test_without_a_trusted_key_the_rest_is_checked_and_the_verdict_is_could_not_check(store: Store) -> None:
    report = verified(store(ledgers.six()), trusted=None)
    assert (report.exit_code, report.integrity, report.assurance) == (
        ExitCode.COULD_NOT_CHECK,
        "intact",
        "unauthenticated",
    )
    assert rules(report) == {("assurance.unauthenticated", None)}


def test_without_a_trusted_key_damage_is_still_found(sqlite_store: Store) -> None:
    path = sqlite_store(ledgers.six())
    change(path, "UPDATE entry SET leaf = x'00' WHERE idx = 2")
    report = verified(path, trusted=None)
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert first(report).index == 2


def test_a_trusted_log_key_alone_vouches_for_the_receipt_key_that_genesis_names(store: Store) -> None:
    report = verified(store(ledgers.six()), trusted=TrustedKeys(log=(LOG.verifier,)))
    assert (report.exit_code, report.assurance) == (ExitCode.SUCCESS, "keyed")
    assert (
        "receipt key: the one that the genesis names, which stands under the trusted log key" in report.assurance_lines
    )


def test_a_trusted_receipt_key_alone_vouches_for_the_log_key_that_genesis_names(store: Store) -> None:
    report = verified(store(ledgers.six()), trusted=TrustedKeys(receipt=(RECEIPT.verifier,)))
    assert (report.exit_code, report.assurance) == (ExitCode.SUCCESS, "keyed")
    assert "log key: the one that the genesis names, which the trusted receipt key signed" in report.assurance_lines


def test_keys_in_one_place_are_said_to_be(store: Store) -> None:
    report = verified(store(ledgers.six()), question=Question(writers_hold_log_key=True))
    assert any(line.startswith("writers-hold-log-key") for line in report.assurance_lines)


@pytest.mark.parametrize(
    ("trusted", "rule"),
    [
        (TrustedKeys(log=(STRANGER.verifier,), receipt=(RECEIPT.verifier,)), "note.unknown"),
        (TrustedKeys(log=(LOG.verifier,), receipt=(SECOND.verifier,)), "signature.untrusted"),
        (TrustedKeys(log=(LOG.verifier,), root=(SECOND.verifier,)), "genesis.keys"),
        (TrustedKeys(log=(LOG.verifier,), receipt=(RECEIPT.verifier,), origin="example.com/other"), "ledger.origin"),
    ],
)
def test_a_wrong_trusted_key_is_refused(store: Store, trusted: TrustedKeys, rule: str) -> None:
    report = verified(store(ledgers.six()), trusted=trusted)
    assert (report.exit_code, report.assurance) == (ExitCode.SIGNATURE_UNTRUSTED, "unauthenticated")
    assert rule in {finding.rule for finding in report.findings}


def test_a_ledger_with_keys_of_its_own_making_is_not_keyed(store: Store) -> None:
    # The attacker keeps origin and names, and makes every key anew.
    ledger = Ledger(log=STRANGER)
    keys = {"root": ledgers.public(SECOND), "log": ledgers.public(STRANGER), "receipt": ledgers.public(SECOND)}
    ledger.add(ledgers.genesis(keys=keys), SECOND)
    report = verify_ledger(InMemory(ledger), TRUSTED)
    assert report.exit_code is ExitCode.SIGNATURE_UNTRUSTED
    assert report.assurance == "unauthenticated"
    assert rules(report) == {
        ("note.unknown", None),
        ("note.unknown", 0),
        ("signature.untrusted", 0),
        ("genesis.keys", 0),
    }


def test_a_genesis_key_that_cannot_verify_anything_is_no_key() -> None:
    ledger = Ledger()
    weak = {"algorithm": "ed25519", "publicKey": "01" + "00" * 31}
    ledger.add(ledgers.genesis(keys={"root": weak, "log": weak, "receipt": weak}))
    report = verify_ledger(InMemory(ledger), None)
    assert report.exit_code is ExitCode.SIGNATURE_UNTRUSTED


# Damage, everywhere


def _flips(data: bytes, step: int) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), step):
        yield at, data[:at] + bytes([data[at] ^ 1 << (at % 8)]) + data[at + 1 :]


def _flip_every_leaf_byte(step: int) -> None:
    reader = InMemory(ledgers.six())
    whole = list(reader.all_leaves)
    for index, leaf in enumerate(whole):
        for at, flipped in _flips(leaf, step):
            reader.all_leaves[index] = flipped
            report = verify_ledger(reader, TRUSTED)
            assert report.exit_code is ExitCode.LEDGER_INCONSISTENT, (index, at)
            assert first(report).index == index, (index, at)
            assert ("tree.leaf", index) in rules(report), (index, at)
        reader.all_leaves[index] = leaf
    assert verify_ledger(reader, TRUSTED).exit_code is ExitCode.SUCCESS


def test_a_flipped_bit_in_a_leaf_is_found_and_located() -> None:
    _flip_every_leaf_byte(step=53)


@pytest.mark.slow
def test_a_flipped_bit_in_any_byte_of_any_leaf_is_found_and_located() -> None:
    _flip_every_leaf_byte(step=1)


def test_a_flipped_bit_in_any_byte_of_any_tree_hash_is_found_and_located() -> None:
    reader = InMemory(ledgers.six())
    # Position in the list, and the last leaf below the hash that stands there.
    last_leaf = [0, 1, 1, 2, 3, 3, 3, 4, 5, 5]
    for position, node in enumerate(list(reader.nodes)):
        for at, flipped in _flips(node, 1):
            reader.nodes[position] = flipped
            report = verify_ledger(reader, TRUSTED)
            assert report.exit_code is ExitCode.LEDGER_INCONSISTENT, (position, at)
            rule = "tree.leaf" if position in (0, 1, 3, 4, 7, 8) else "tree.node"
            assert rules(report) == {(rule, last_leaf[position])}, (position, at)
        reader.nodes[position] = node


def test_a_flipped_bit_in_any_byte_of_a_stored_checkpoint_is_found_and_located() -> None:
    reader = InMemory(ledgers.six())
    for size, note in sorted(reader.notes.items()):
        for at, flipped in _flips(note, 1):
            reader.notes[size] = flipped
            report = verify_ledger(reader, TRUSTED)
            assert report.exit_code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED), (size, at)
            located = {finding.index for finding in report.findings if finding.check == "checkpoints"}
            assert located == {size - 1}, (size, at)
            assert any(f.check == "checkpoint" for f in report.findings) == (size == reader.size)
        reader.notes[size] = note


@pytest.mark.parametrize("table", ["entry", "node", "checkpoint"])
def test_a_flipped_bit_in_a_sqlite_row_is_found(sqlite_store: Store, table: str) -> None:
    path = sqlite_store(ledgers.six())
    key, column = {"entry": ("idx", "leaf"), "node": ("position", "hash"), "checkpoint": ("size", "note")}[table]
    connection = sqlite3.connect(path, isolation_level=None)
    rows = connection.execute(f"SELECT {key}, {column} FROM {table}").fetchall()  # noqa: S608 - names of the test's own
    for row, value in rows:
        for _, flipped in _flips(value, 311 if table == "entry" else 29):
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (flipped, row))  # noqa: S608 - names of the test's own
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            report = verify_ledger(open_ledger(path), TRUSTED)
            assert report.exit_code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)
            assert report.integrity == "broken"
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, row))  # noqa: S608 - names of the test's own
    connection.close()
    assert verified(path).exit_code is ExitCode.SUCCESS


@pytest.mark.parametrize(
    ("table", "column", "where"),
    [("entry", "leaf", "idx = 3"), ("node", "hash", "position = 4"), ("checkpoint", "note", "size = 4")],
)
@pytest.mark.parametrize("value", [7, 10**15, "text", None])
def test_a_value_of_another_type_is_found(
    sqlite_store: Store, table: str, column: str, where: str, value: object
) -> None:
    # A STRICT table refuses this; the bytes of a file do not. So the table loses its constraints for a moment.
    path = sqlite_store(ledgers.six())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    loose = sql.replace("BLOB NOT NULL", "").replace(" STRICT", "")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (loose, table))
    connection.close()
    change(path, f"UPDATE {table} SET {column} = ? WHERE {where}", value)  # noqa: S608 - names of the test's own
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
    connection.close()
    report = verified(path)
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert rules(report) & {("ledger.damaged", 3), ("ledger.corrupt", 0)}


@pytest.mark.parametrize("column", [c for c in IndexColumns.__annotations__ if c != "index"])
def test_a_changed_column_of_the_search_index_is_found_and_located(sqlite_store: Store, column: str) -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    ledger.invoke(1, 1, request_id="job-1")
    path = sqlite_store(ledger)
    for index in range(3):
        connection = sqlite3.connect(path, isolation_level=None)
        before = connection.execute(f"SELECT {column} FROM entry_index WHERE idx = ?", (index,)).fetchone()[0]  # noqa: S608 - names of the test's own
        connection.execute(f"UPDATE entry_index SET {column} = 7 WHERE idx = ?", (index,))  # noqa: S608 - names of the test's own
        connection.close()
        report = verified(path)
        assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
        assert rules(report) == {("index.columns", index)}
        assert first(report).found == f"another {column}"
        change(path, f"UPDATE entry_index SET {column} = ? WHERE idx = ?", before, index)  # noqa: S608 - names of the test's own


def test_a_missing_row_of_the_search_index_is_found_and_located(sqlite_store: Store) -> None:
    path = sqlite_store(ledgers.six())
    change(path, "DELETE FROM entry_index WHERE idx = 4")
    report = verified(path)
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert (first(report).rule, first(report).index, first(report).found) == ("index.columns", 4, "no row")


def test_a_missing_tree_hash_is_found_and_located(sqlite_store: Store) -> None:
    path = sqlite_store(ledgers.six())
    change(path, "DELETE FROM node WHERE position = 5")
    report = verified(path)
    assert (first(report).rule, first(report).index, first(report).found) == ("tree.node", 3, "none stored")


def test_a_flipped_bit_in_any_published_file_is_found(tmp_path: Path) -> None:
    path = ledgers.write_published(ledgers.six(), tmp_path)
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name not in ("README.md", "log.vkey")):
        whole = file.read_bytes()
        for at, flipped in _flips(whole, 1 if len(whole) < 500 else 41):
            file.write_bytes(flipped)
            codes = (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)
            assert _verdict(path) in codes, (file.name, at)
        file.write_bytes(whole)
    assert _verdict(path) is ExitCode.SUCCESS


def _verdict(path: Path) -> ExitCode:
    """The exit code of a verification, whether the reader or the report says it."""
    from govrun.errors import GovrunError

    try:
        return verify_ledger(open_ledger(path), TRUSTED).exit_code
    except GovrunError as error:
        return error.code


@pytest.mark.slow
def test_a_flipped_bit_in_the_database_file_is_found_or_changes_nothing_that_counts(sqlite_store: Store) -> None:
    from govrun.errors import GovrunError

    ledger = ledgers.six()
    path = sqlite_store(ledger)
    whole = path.read_bytes()
    found = 0
    for at, flipped in _flips(whole, 41):
        path.write_bytes(flipped)
        try:
            reader = open_ledger(path)
            report = verify_ledger(reader, TRUSTED)
            if report.exit_code is not ExitCode.SUCCESS:
                found += 1
                continue
            assert [leaf for part in reader.leaves(0, 6) for leaf in part] == ledger.leaves, at
            assert reader.checkpoint() == ledger.notes[6], at
        except GovrunError:
            found += 1
    assert found > len(whole) // 41 // 3


def test_a_missing_published_tile_is_found(tmp_path: Path) -> None:
    path = ledgers.write_published(ledgers.six(), tmp_path)
    (path / "tile/0/000.p/6").unlink()
    assert ("published.missing", 0) in rules(verified(path))


def test_a_missing_published_bundle_breaks_the_ledger_and_leaves_no_root(tmp_path: Path) -> None:
    path = ledgers.write_published(ledgers.six(), tmp_path)
    (path / "tile/entries/000.p/6").unlink()
    report = verified(path)
    assert (report.integrity, report.root) == ("broken", None)
    assert ("published.missing", 0) in rules(report)


# Entries moved about


def _restored(ledger: Ledger, leaves: Sequence[bytes]) -> Ledger:
    """The leaves in a tree of their own, under the ledger's old checkpoints: what can be done without keys."""
    forged = Ledger()
    for leaf in leaves:
        forged.add_leaf(leaf, checkpoint=False)
    forged.notes = {size: note for size, note in ledger.notes.items() if size <= len(leaves)}
    return forged


def _resigned(leaves: Sequence[bytes]) -> Ledger:
    """The leaves in a tree of their own with new checkpoints: what a writer with the log key can do."""
    forged = Ledger()
    for leaf in leaves:
        forged.add_leaf(leaf)
    return forged


@pytest.mark.parametrize("forge", [_restored, lambda _, leaves: _resigned(leaves)], ids=["no keys", "log key"])
@pytest.mark.parametrize(
    ("order", "index"),
    [
        ((0, 1, 2, 4, 5), 3),
        ((0, 1, 2, 3, 3, 4, 5), 4),
        ((0, 1, 3, 2, 4, 5), 2),
        ((0, 2, 1, 3, 4, 5), 1),
        ((1, 2, 3, 4, 5), 0),
    ],
    ids=["deleted", "duplicated", "swapped", "outcome before intent", "genesis deleted"],
)
def test_entries_that_were_moved_are_found_and_located(
    sqlite_store: Store, forge: Callable[[Ledger, list[bytes]], Ledger], order: tuple[int, ...], index: int
) -> None:
    whole = ledgers.six()
    report = verified(sqlite_store(forge(whole, [whole.leaves[n] for n in order])))
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert ("position.index", index) in rules(report)
    assert first(report).index == index


def test_an_entry_that_was_put_in_is_found_and_located(sqlite_store: Store) -> None:
    whole = ledgers.six()
    stranger = format_envelope(
        sign_envelope(format_statement(ledgers.denied(), Position(ORIGIN, 3, whole.hash_at(2))), [SECOND])
    )
    report = verified(sqlite_store(_resigned([*whole.leaves[:3], stranger, *whole.leaves[3:]])))
    assert {("signature.untrusted", 3), ("position.index", 4), ("position.previous", 4)} <= rules(report)
    assert first(report).index == 3


def test_history_rewritten_with_both_keys_passes_unpinned_and_fails_pinned(store: Store) -> None:
    whole = ledgers.six()
    forged = Ledger()
    forged.add(ledgers.genesis())
    forged.invoke(9, 1)
    forged.add(ledgers.denied(3))
    forged.invoke(2, 4)
    path = store(forged)
    assert verified(path).exit_code is ExitCode.SUCCESS
    report = verified(path, question=Question(pinned=whole.notes[4]))
    assert (report.exit_code, report.integrity) == (ExitCode.HISTORY_DIVERGED, "broken")
    assert rules(report) == {("pin.root", 3)}


def test_history_rewritten_with_a_receipt_key_alone_is_found(sqlite_store: Store) -> None:
    whole = ledgers.six()
    forged = Ledger()
    forged.add(ledgers.genesis())
    forged.invoke(9, 1)
    forged.add(ledgers.denied(3))
    forged.invoke(2, 4)
    forged.notes = whole.notes
    report = verified(sqlite_store(forged))
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert ("checkpoint.root", 1) in rules(report)
    assert first(report).index == 1


# Cut off, extended, diverged


def _cut(ledger: Ledger, size: int) -> Ledger:
    shorter = Ledger()
    for leaf in ledger.leaves[:size]:
        shorter.add_leaf(leaf, checkpoint=False)
    shorter.notes = {s: note for s, note in ledger.notes.items() if s <= size}
    return shorter


def test_a_ledger_cut_at_a_signed_checkpoint_passes_unpinned_and_fails_pinned(store: Store) -> None:
    whole = ledgers.six()
    path = store(_cut(whole, 4))
    unpinned = verified(path)
    assert unpinned.exit_code is ExitCode.SUCCESS
    assert any("truncation: not checked" in line for line in unpinned.not_shown)
    report = verified(path, question=Question(pinned=whole.notes[6]))
    assert (report.exit_code, report.integrity) == (ExitCode.HISTORY_DIVERGED, "broken")
    assert rules(report) == {("pin.longer", 4)}


def test_a_ledger_cut_below_its_checkpoint_is_found(sqlite_store: Store) -> None:
    path = sqlite_store(ledgers.six())
    change(path, "DELETE FROM entry WHERE idx = 5")
    report = verified(path)
    assert (report.exit_code, report.integrity, report.root) == (ExitCode.LEDGER_INCONSISTENT, "broken", None)
    assert ("ledger.damaged", 5) in rules(report)


def test_a_reader_that_gives_too_few_or_too_many_entries_is_found() -> None:
    short = InMemory(ledgers.six())
    short.all_leaves.pop()
    assert ("checkpoint.size", 5) in rules(verify_ledger(short, TRUSTED))
    long = InMemory(ledgers.six())
    long.size = 5
    long.notes[5] = long.notes[4]
    report = verify_ledger(long, TRUSTED)
    assert {("checkpoint.size", 4)} <= rules(report)


def test_pinning_a_checkpoint_that_no_trusted_key_signed_is_refused(store: Store) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, b"\x00" * 32), STRANGER)
    report = verified(store(ledgers.six()), question=Question(pinned=note))
    assert report.exit_code is ExitCode.SIGNATURE_UNTRUSTED
    assert {finding.check for finding in report.findings} == {"pin"}


def test_pinning_something_else_than_a_checkpoint_is_refused(store: Store) -> None:
    report = verified(store(ledgers.six()), question=Question(pinned=b"not a note"))
    assert rules(report) == {("pin.note.form", None)}


def test_pinning_a_checkpoint_over_nothing_shows_nothing(store: Store) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 0, Frontier().root()), LOG)
    report = verified(store(ledgers.six()), question=Question(pinned=note))
    assert (report.exit_code, report.assurance) == (ExitCode.COULD_NOT_CHECK, "keyed")
    assert rules(report) == {("pin.empty", None)}


def test_pinning_without_a_trusted_key_shows_nothing(store: Store) -> None:
    ledger = ledgers.six()
    report = verified(store(ledger), trusted=None, question=Question(pinned=ledger.notes[6]))
    assert report.exit_code is ExitCode.COULD_NOT_CHECK
    assert ("pin.unverified", None) in rules(report)


@pytest.mark.parametrize(
    ("trusted", "pinned", "require", "code"),
    [
        (TRUSTED, False, ("pinned",), ExitCode.EVIDENCE_INCOMPLETE),
        (TRUSTED, False, ("keyed",), ExitCode.SUCCESS),
        (TRUSTED, True, ("keyed", "pinned"), ExitCode.SUCCESS),
        (None, False, ("keyed",), ExitCode.EVIDENCE_INCOMPLETE),
        (TRUSTED, True, ("complete",), ExitCode.SUCCESS),
    ],
)
def test_evidence_that_is_required_and_not_there_is_a_no(
    store: Store, trusted: TrustedKeys | None, pinned: bool, require: tuple[str, ...], code: ExitCode
) -> None:
    ledger = ledgers.six()
    question = Question(pinned=ledger.notes[3] if pinned else None, require=require)  # type: ignore[arg-type]
    assert verified(store(ledger), trusted=trusted, question=question).exit_code is code


# Empty and unusable


def test_an_empty_ledger_is_refused() -> None:
    report = verify_ledger(InMemory(Ledger()), TRUSTED)
    assert (report.exit_code, report.integrity, report.assurance) == (
        ExitCode.COULD_NOT_CHECK,
        "unusable",
        "unauthenticated",
    )
    assert rules(report) == {("ledger.empty", None)}


def test_an_emptied_ledger_diverges_from_a_pinned_checkpoint() -> None:
    report = verify_ledger(InMemory(Ledger()), TRUSTED, Question(pinned=ledgers.six().notes[6]))
    assert report.exit_code is ExitCode.HISTORY_DIVERGED


def test_a_ledger_without_its_checkpoints_is_empty(sqlite_store: Store) -> None:
    path = sqlite_store(ledgers.six())
    change(path, "DELETE FROM checkpoint")
    assert verified(path).exit_code is ExitCode.COULD_NOT_CHECK


def test_entries_without_any_checkpoint_are_refused() -> None:
    reader = InMemory(ledgers.six())
    reader.notes.clear()
    report = verify_ledger(reader, TRUSTED)
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert ("checkpoint.missing", None) in rules(report)


def test_a_ledger_that_cannot_be_read_gives_no_verdict() -> None:
    from govrun.errors import GovrunError

    class Unreadable(InMemory):
        def leaves(self, start: int, stop: int, batch: int = 2) -> Iterator[tuple[bytes, ...]]:
            raise GovrunError(ExitCode.LEDGER_UNAVAILABLE, "ledger.io", "the disk refused")

    report = verify_ledger(Unreadable(ledgers.six()), TRUSTED)
    assert (report.exit_code, report.integrity, report.assurance) == (
        ExitCode.COULD_NOT_CHECK,
        "unusable",
        "unauthenticated",
    )
    assert rules(report) == {("ledger.io", 0)}


# Signatures and envelopes


def _with_leaf(leaf: bytes, index: int = 3) -> Ledger:
    """Six entries, one of which is another, under checkpoints that the log signed over it."""
    whole = ledgers.six()
    return _resigned([*whole.leaves[:index], leaf, *whole.leaves[index + 1 :]])


def _forms() -> dict[str, tuple[bytes, str, ExitCode]]:
    """Envelopes that are wrong in one way: the leaf, the rule, and the exit code that the rule demands."""
    whole = ledgers.six()
    leaf = whole.leaves[3]
    envelope = parse_envelope(leaf)
    untrusted, inconsistent = ExitCode.SIGNATURE_UNTRUSTED, ExitCode.LEDGER_INCONSISTENT
    both = format_envelope(sign_envelope(envelope.payload, [RECEIPT, SECOND]))
    one = leaf[leaf.index(b'{"keyid"') : -2]
    twice = leaf[:-2] + b"," + one + b"]}"
    stripped = leaf[: leaf.index(b'"signatures":[') + len(b'"signatures":[')] + b"]}"
    payload = envelope.payload

    def signed(data: bytes) -> bytes:
        return format_envelope(sign_envelope(data, [RECEIPT]))

    return {
        "stripped": (stripped, "envelope.bytes", inconsistent),
        "unknown key": (format_envelope(sign_envelope(payload, [SECOND])), "signature.untrusted", untrusted),
        "one more": (both, "signature.count", untrusted),
        "one key twice": (twice, "signature.count", untrusted),
        "another algorithm": (
            leaf.replace(b'"sig":"', b'"sig":"AAAA'),
            "envelope.sig",
            inconsistent,
        ),
        "white space": (leaf.replace(b",", b", ", 1), "envelope.bytes", inconsistent),
        "unknown member": (leaf[:-1] + b',"extra":1}', "envelope.bytes", inconsistent),
        "another payload type": (leaf.replace(b"in-toto", b"in-tota"), "envelope.type", inconsistent),
        "not canonical": (signed(payload.replace(b":", b": ", 1)), "canonical.bytes", inconsistent),
        "not JSON": (signed(b"{"), "canonical.json", inconsistent),
        "another kind": (
            signed(payload.replace(b"urn:govrun:denied:v1", b"urn:govrun:denied:v2")),
            "receipt.kind",
            inconsistent,
        ),
        "schema": (signed(payload.replace(b'"exitCode":11', b'"exitCode":99')), "schema.receipt-v1", inconsistent),
        "subject": (signed(payload.replace(b'"count":1', b'"count":2')), "receipt.subject", inconsistent),
    }


@pytest.mark.parametrize("name", list(_forms()))
def test_an_envelope_or_payload_of_the_wrong_form_is_found_and_located(sqlite_store: Store, name: str) -> None:
    leaf, rule, code = _forms()[name]
    report = verified(sqlite_store(_with_leaf(leaf)))
    finding = next(finding for finding in report.findings if finding.rule == rule)
    assert (finding.index, finding.code) == (3, code)
    assert first(report).index == 3
    # The next receipt names the hash of the entry that stood there.
    assert ("position.previous", 4) in rules(report)
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT


def test_the_last_entry_under_an_unknown_key_is_a_matter_of_signatures_alone(store: Store) -> None:
    ledger = ledgers.six()
    index = ledger.add(ledgers.denied(6), SECOND)
    report = verified(store(ledger))
    assert (report.exit_code, report.integrity) == (ExitCode.SIGNATURE_UNTRUSTED, "broken")
    assert rules(report) == {("signature.untrusted", index)}


@pytest.mark.parametrize(
    ("position", "rule"),
    [
        (lambda p: Position("example.com/other", p.index, p.previous), "position.origin"),
        (lambda p: Position(p.origin, p.index + 1, p.previous), "position.index"),
        (lambda p: Position(p.origin, p.index, "0" * 64), "position.previous"),
    ],
)
def test_a_receipt_signed_for_another_place_is_found_and_located(
    store: Store, position: Callable[[Position], Position], rule: str
) -> None:
    ledger = ledgers.six()
    index = ledger.add(ledgers.denied(6), position=position(ledger.next_position()))
    report = verified(store(ledger))
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert (rule, index) in rules(report)


def test_a_checkpoint_with_a_second_wrong_line_of_the_log_is_refused(store: Store) -> None:
    ledger = ledgers.six()
    note = parse_note(ledger.notes[6])
    wrong = NoteSignature(ORIGIN, LOG.verifier.key_id, b"\x00" * 64)
    reader = InMemory(ledger)
    reader.notes[6] = format_note(Note(note.text, (*note.signatures, wrong)))
    assert verify_ledger(reader, TRUSTED).exit_code is ExitCode.SIGNATURE_UNTRUSTED


def test_a_checkpoint_stored_under_another_size_is_found() -> None:
    reader = InMemory(ledgers.six())
    reader.notes[3] = reader.notes[4]
    assert rules(verify_ledger(reader, TRUSTED)) == {("checkpoint.size", 2)}


def test_a_reader_is_what_the_tests_say_it_is() -> None:
    reader: Reader = InMemory(ledgers.six())
    assert verify_ledger(reader, TRUSTED).exit_code is ExitCode.SUCCESS


def test_root_is_the_root_that_the_checkpoint_names(store: Store) -> None:
    ledger = ledgers.six()
    assert verified(store(ledger)).root == ledger.frontier.root().hex()


def test_progress_is_told_in_entries(store: Store) -> None:
    told: list[tuple[int, int]] = []
    verified(store(ledgers.six()), question=Question(progress=lambda done, of: told.append((done, of))))
    assert told[-1] == (6, 6)


def test_the_root_key_of_a_trust_file_is_taken_over() -> None:
    from govrun.audit.trust import trusted_by
    from govrun.home import Trust

    trust = Trust(ORIGIN, None, ROOT.verifier, LOG.verifier, (RECEIPT.verifier,))
    assert trusted_by(trust) == TRUSTED
