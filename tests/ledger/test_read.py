"""Reading finds every ledger as it is and leaves it so, byte for byte and name for name."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.merkle import Frontier, leaf_hash, stored_hash_index
from govrun.ledger.publish import publish
from govrun.ledger.read import MAX_BATCH_BYTES, open_ledger
from govrun.ledger.read_sqlite import SqliteReader, _Changed, _private_copy
from tests.ledger.ledger_world import LOG, ORIGIN, Child, Home, denied, payloads, tree_size, verified_size
from tests.ledger.test_faults import mount

ENTRIES = 12


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    with made.writer() as writer:
        for n in range(ENTRIES - 1):
            writer.append([denied(n + 1)])
    return made


@pytest.fixture(autouse=True)
def no_copies_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    place = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert [] == os.listdir(place)


def look(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Names, sizes, times of change and contents."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


def reads_and_changes_nothing(home: Home, expected: int = ENTRIES) -> None:
    before = look(home.directory)
    for _ in range(2):
        assert expected == home.size()
    assert before == look(home.directory)


def test_a_closed_ledger(home: Home) -> None:
    assert {"ledger.sqlite", "ledger.lock"} == set(look(home.directory))
    reads_and_changes_nothing(home)


def test_a_ledger_that_was_only_copied(home: Home, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(home.path, tmp_path / "copy" / "ledger.sqlite")
    assert ENTRIES == verified_size(tmp_path / "copy" / "ledger.sqlite")
    assert ["ledger.sqlite"] == os.listdir(tmp_path / "copy")


def test_a_ledger_that_a_writer_has_open(home: Home) -> None:
    child = Child(home, "open", "3").ready()
    assert "ledger.sqlite-wal" in look(home.directory)
    reads_and_changes_nothing(home, ENTRIES + 3)
    child.finish()
    reads_and_changes_nothing(home, ENTRIES + 3)


def test_a_ledger_that_a_writer_has_only_opened(home: Home) -> None:
    child = Child(home, "open", "0").ready()
    reads_and_changes_nothing(home)
    child.finish()


def test_a_ledger_whose_writer_was_killed(home: Home) -> None:
    Child(home, "open", "3").ready().kill()
    assert {"ledger.sqlite-wal", "ledger.sqlite-shm"} <= set(look(home.directory))
    reads_and_changes_nothing(home, ENTRIES + 3)
    with home.writer() as writer:
        writer.append([denied()])
    assert ENTRIES + 4 == home.size()


def test_a_ledger_whose_writer_holds_the_lock(home: Home) -> None:
    child = Child(home, "hold").ready()
    reads_and_changes_nothing(home)
    child.finish()


def test_a_copy_with_a_stray_write_ahead_log(home: Home) -> None:
    Child(home, "open", "3").ready().kill()
    home.path.with_name("ledger.sqlite-shm").unlink()
    (home.directory / "ledger.lock").unlink()
    reads_and_changes_nothing(home, ENTRIES + 3)


@pytest.mark.parametrize("data", [b"", b"short", bytes(40_000)])
def test_a_shared_memory_file_that_is_no_use(home: Home, data: bytes) -> None:
    Child(home, "open", "3").ready().kill()
    home.path.with_name("ledger.sqlite-shm").write_bytes(data)
    reads_and_changes_nothing(home, ENTRIES + 3)


def test_a_shared_memory_file_that_cannot_be_opened(home: Home) -> None:
    Child(home, "open", "3").ready().kill()
    shm = home.path.with_name("ledger.sqlite-shm")
    shm.unlink()
    shm.symlink_to(home.path)
    reads_and_changes_nothing(home, ENTRIES + 3)
    shm.unlink()
    shm.mkdir()
    reads_and_changes_nothing(home, ENTRIES + 3)


def test_a_ledger_whose_lock_file_is_gone(home: Home) -> None:
    Child(home, "open", "3").ready().kill()
    (home.directory / "ledger.lock").unlink()
    reads_and_changes_nothing(home, ENTRIES + 3)


def test_a_writer_that_closes_while_the_ledger_is_being_opened(home: Home) -> None:
    child = Child(home, "hold", "2").ready()
    assert 0 < home.path.with_name("ledger.sqlite-wal").stat().st_size
    threading.Timer(0.05, child.go_on).start()
    assert ENTRIES + 2 == home.size()
    child.finish()
    assert {"ledger.sqlite", "ledger.lock"} == set(look(home.directory))


def test_a_copy_is_of_one_moment_or_not_made(home: Home) -> None:
    wal = home.path.with_name("ledger.sqlite-wal")
    for prepare in (lambda: None, lambda: wal.write_bytes(b"")):
        prepare()
        with pytest.raises(_Changed):
            _private_copy(home.path)
    wal.unlink()
    wal.mkdir()
    refused(ExitCode.COULD_NOT_CHECK, "ledger.unreadable", lambda: open_ledger(home.path))


def test_an_empty_write_ahead_log_says_nothing(home: Home) -> None:
    home.path.with_name("ledger.sqlite-wal").write_bytes(b"")
    reads_and_changes_nothing(home)


def test_a_write_ahead_log_that_is_cut_off_gives_what_was_whole(home: Home) -> None:
    Child(home, "open", "3").ready().kill()
    wal = home.path.with_name("ledger.sqlite-wal")
    home.path.with_name("ledger.sqlite-shm").unlink()
    wal.write_bytes(wal.read_bytes()[:-100])
    reads_and_changes_nothing(home, ENTRIES + 2)


@pytest.mark.parametrize("situation", ["closed", "killed", "stray"])
def test_a_ledger_in_a_read_only_directory(home: Home, situation: str) -> None:
    extra = 0
    if situation != "closed":
        Child(home, "open", "3").ready().kill()
        extra = 3
    if situation == "stray":
        home.path.with_name("ledger.sqlite-shm").unlink()
    mount(["--bind", str(home.directory), str(home.directory)])
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(home.directory)], check=True)
        reads_and_changes_nothing(home, ENTRIES + extra)
    finally:
        subprocess.run(["umount", "-l", str(home.directory)], check=True)


def test_what_is_appended_while_reading_is_not_read(home: Home) -> None:
    reader = open_ledger(home.path)
    seen: list[bytes] = []
    with home.writer() as writer:
        for batch in reader.leaves(0, 99, batch=2):
            seen += batch
            writer.append([denied(500)])
    seen_later = [leaf for batch in reader.leaves(0, 99) for leaf in batch]
    assert seen == seen_later
    frontier = Frontier()
    frontier.extend(map(leaf_hash, seen))
    note = reader.checkpoint()
    assert note is not None
    assert frontier.root() == verify_checkpoint(note, ORIGIN, [LOG.verifier]).checkpoint.root
    assert [] == list(reader.hashes([stored_hash_index(0, ENTRIES)]))
    assert ENTRIES == len(reader.columns(0, 99) or ())
    assert ENTRIES == max(size for size, _ in reader.checkpoints(0, 99))
    reader.close()
    assert ENTRIES + 6 == home.size()


def test_a_ledger_that_is_closed_and_opened_between_batches(home: Home) -> None:
    reader = open_ledger(home.path)
    batches = reader.leaves(0, ENTRIES, batch=3)
    sizes = [len(next(batches))]
    with home.writer() as writer:
        writer.append([denied(1)])
        sizes.append(len(next(batches)))
    sizes.append(len(next(batches)))
    child = Child(home, "open", "2").ready()
    sizes.append(len(next(batches)))
    child.kill()
    assert [3, 3, 3, 3] == sizes
    assert tree_size(reader.checkpoint() or b"") == ENTRIES
    reader.close()


def test_batches_are_bounded_in_number_and_bytes(home: Home) -> None:
    reader = open_ledger(home.path)
    assert [5, 5, 2] == [len(batch) for batch in reader.leaves(0, 99, batch=5)]
    assert [4] == [len(batch) for batch in reader.leaves(4, 8)]
    assert [] == list(reader.leaves(ENTRIES, 99))
    reader.close()
    # The store takes any blob; a hostile file may hold large ones.
    with sqlite3.connect(home.path) as connection:
        connection.execute("UPDATE entry SET leaf = zeroblob(900000)")
    connection.close()
    for batch in open_ledger(home.path).leaves(0, 99):
        assert sum(map(len, batch)) <= MAX_BATCH_BYTES + 900_000


def test_a_directory_names_the_ledger_in_it(home: Home, tmp_path: Path) -> None:
    assert ENTRIES == verified_size(home.directory)
    publish(open_ledger(home.directory), tmp_path / "public", LOG.verifier)
    assert ENTRIES == verified_size(tmp_path / "public")


def refused(code: ExitCode, rule: str, action: Callable[[], object]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


@pytest.mark.parametrize("place", ["ftp://example.com/log", "postgres://host/x"])
def test_a_kind_of_place_that_cannot_be_read_yet_is_said(place: str) -> None:
    error = refused(ExitCode.COULD_NOT_CHECK, "ledger.kind", lambda: open_ledger(place))
    assert place.partition("://")[0] + "://" == error.found


def test_nothing_there_is_said(tmp_path: Path) -> None:
    refused(ExitCode.COULD_NOT_CHECK, "ledger.missing", lambda: open_ledger(tmp_path / "none"))
    refused(ExitCode.COULD_NOT_CHECK, "ledger.missing", lambda: open_ledger(tmp_path))
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("data", "rule"),
    [(b"", "ledger.foreign"), (b"text " * 1000, "ledger.foreign"), (b"SQLite format 3\0", "ledger.foreign")],
)
def test_a_file_that_is_no_ledger_is_said(tmp_path: Path, data: bytes, rule: str) -> None:
    (tmp_path / "file").write_bytes(data)
    refused(ExitCode.COULD_NOT_CHECK, rule, lambda: open_ledger(tmp_path / "file"))
    assert ["file"] == os.listdir(tmp_path)


def test_a_ledger_of_a_newer_format_is_said(home: Home) -> None:
    with sqlite3.connect(home.path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    refused(ExitCode.COULD_NOT_CHECK, "ledger.newer", lambda: open_ledger(home.path))


def test_a_ledger_that_cannot_be_opened_is_said(home: Home) -> None:
    home.path.unlink()
    home.path.symlink_to(home.path)
    refused(ExitCode.COULD_NOT_CHECK, "ledger.unreadable", lambda: open_ledger(home.path))


def test_an_entry_that_is_missing_is_located(home: Home) -> None:
    with sqlite3.connect(home.path) as connection:
        connection.execute("DELETE FROM entry WHERE idx = 7")
        connection.execute("DELETE FROM entry_index WHERE idx = 7")
    connection.close()
    reader = open_ledger(home.path)
    batches = reader.leaves(0, ENTRIES)
    assert 7 == len(next(batches))
    error = refused(ExitCode.LEDGER_INCONSISTENT, "ledger.damaged", lambda: next(batches))
    assert "entry 7 cannot be read" == error.what
    columns = reader.columns(6, 9) or ()
    assert [False, True, False] == [one is None for one in columns]


def test_a_ledger_without_a_checkpoint_is_empty(home: Home) -> None:
    with sqlite3.connect(home.path) as connection:
        connection.execute("DELETE FROM checkpoint")
    connection.close()
    reader = open_ledger(home.path)
    assert (None, 0) == (reader.checkpoint(), reader.size)
    assert [] == list(reader.leaves(0, 9))


def test_a_damaged_page_is_said_and_located(home: Home) -> None:
    with home.writer() as writer:
        writer.append([denied(n + 1) for n in range(60)])
    size = home.size()
    data = bytearray(home.path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    outcomes: set[tuple[str, ExitCode | None]] = set()
    for at in range(page, len(data), page):
        damaged = bytearray(data)
        damaged[at : at + page] = b"\xff" * page
        home.path.write_bytes(damaged)
        try:
            assert verified_size(home.path) < size
        except (GovrunError, AssertionError) as error:
            outcomes.add((getattr(error, "rule", "assertion"), getattr(error, "code", None)))
    assert {
        ("ledger.damaged", ExitCode.LEDGER_INCONSISTENT),
        ("ledger.corrupt", ExitCode.LEDGER_INCONSISTENT),
    } <= outcomes
    assert {None, ExitCode.LEDGER_INCONSISTENT, ExitCode.COULD_NOT_CHECK} >= {code for _, code in outcomes}
    home.path.write_bytes(data)
    assert size == home.size()


def test_a_file_that_changes_while_it_is_read_without_locks_is_read_again(home: Home) -> None:
    reader = SqliteReader(home.path)
    asked: list[int] = []

    def query(connection: sqlite3.Connection) -> int:
        asked.append(1)
        if len(asked) == 1:
            os.utime(home.path)
        return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])

    assert ENTRIES == reader._read(query)
    assert 2 == len(asked)


def test_a_file_that_never_holds_still_cannot_be_checked(home: Home) -> None:
    reader = SqliteReader(home.path)

    def query(connection: sqlite3.Connection) -> None:
        os.utime(home.path)

    error = refused(ExitCode.COULD_NOT_CHECK, "ledger.unreadable", lambda: reader._read(query))
    assert "a file that keeps changing" == error.found


def test_a_published_ledger_is_read_in_any_part(home: Home, tmp_path: Path) -> None:
    with home.writer() as writer:
        writer.append([denied(n + 1) for n in range(600 - ENTRIES)])
    publish(open_ledger(home.path), tmp_path / "public", LOG.verifier)
    before = look(tmp_path / "public")
    assert 600 == verified_size(tmp_path / "public")
    stored, published = open_ledger(home.path), open_ledger(tmp_path / "public")
    for start, stop in ((0, 1), (255, 257), (250, 530), (599, 600), (600, 700)):
        expected = [leaf for batch in stored.leaves(start, stop) for leaf in batch]
        assert expected == [leaf for batch in published.leaves(start, stop, batch=7) for leaf in batch]
    assert published.columns(0, 5) is None
    assert ((600, published.checkpoint()),) == published.checkpoints(599, 600)
    assert () == published.checkpoints(600, 700)
    published.close()
    assert before == look(tmp_path / "public")


def test_a_published_ledger_that_has_grown_since_its_checkpoint_was_read(home: Home, tmp_path: Path) -> None:
    public = tmp_path / "public"
    publish(open_ledger(home.path), public, LOG.verifier)
    older = open_ledger(public)
    expected = [leaf for batch in older.leaves(0, 99) for leaf in batch]
    with home.writer() as writer:
        writer.append([denied(n + 1) for n in range(300)])
    publish(open_ledger(home.path), public, LOG.verifier)
    # The partial tiles it was opened with are gone; the full ones begin with them.
    assert expected == [leaf for batch in older.leaves(0, 99) for leaf in batch]
    assert leaf_hash(expected[3]) == older.hashes([stored_hash_index(0, 3)])[0]


@pytest.mark.parametrize("name", ["tile/0/000.p/12", "tile/entries/000.p/12", "checkpoint"])
@pytest.mark.parametrize("harm", ["missing", "cut", "longer", "huge", "directory"])
def test_harm_to_a_published_file_is_said(home: Home, tmp_path: Path, name: str, harm: str) -> None:
    public = tmp_path / "public"
    publish(open_ledger(home.path), public, LOG.verifier)
    file = public / name
    data = file.read_bytes()
    file.unlink()
    if harm == "cut":
        file.write_bytes(data[:-1])
    elif harm == "longer":
        file.write_bytes(data + b"x")
    elif harm == "huge":
        with open(file, "wb") as sparse:
            sparse.truncate(1 << 30)
    elif harm == "directory":
        file.mkdir()
    with pytest.raises((GovrunError, AssertionError)) as caught:
        verified_size(public)
    if isinstance(caught.value, GovrunError):
        assert caught.value.code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.COULD_NOT_CHECK)


def test_predicates_read_from_both_forms_are_the_same(home: Home, tmp_path: Path) -> None:
    publish(open_ledger(home.path), tmp_path / "public", LOG.verifier)
    assert payloads(home.path) == payloads(tmp_path / "public")
