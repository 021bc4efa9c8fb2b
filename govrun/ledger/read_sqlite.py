"""Read a ledger's SQLite file as it is found: in use, closed, left by a crash, or on a read-only disk.

    beside the file        opened
    no -wal                immutable=1: no lock, no file; afterwards the file must not have changed
    -wal and -shm          mode=ro with a read-only -shm: sees what writers commit, writes nothing
    -wal alone, or that    a private copy of file and -wal: SQLite would have to make or repair a -shm, and
    -shm is no use         must not do that here

A connection lives for one batch. So a long verification keeps no write-ahead log from being folded, and a change from
one situation to another only means that the next batch is read the other way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.entry import IndexColumns
from govrun.ledger.lock import try_lock
from govrun.ledger.merkle import stored_hash_index
from govrun.ledger.read import BATCH, MAX_BATCH_BYTES
from govrun.ledger.sqlite import LOCK_FILE, select_hashes, wal_path
from govrun.ledger.sqlite_form import SELECT_COLUMNS, check_form, refusal

# How often a batch is read again because the file changed under it, or changed its situation.
_ATTEMPTS: Final = 20
_LOCK_ATTEMPTS: Final = 50
_PAUSE_S: Final = 0.004
_WAL_HEADER_BYTES: Final = 32
_MAX_VALUE_BYTES: Final = 1 << 20

_SELECT_CHECKPOINTS: Final = "SELECT size, note FROM checkpoint WHERE size > ? AND size <= ? ORDER BY size"

_BESIDE_WRITERS: Final = "mode=ro&readonly_shm=1"

# What a -shm that cannot be used as it is makes SQLite say.
_NO_SHM: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_BUSY}
)

T = TypeVar("T")


class _Changed(Exception):  # noqa: N818 - never leaves this module
    """The file was written while it was read without locks."""


class SqliteReader:
    """A ledger file under the head it had when it was opened (a `read.Reader`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copy: Path | None = None
        self.origin = self._read(check_form)
        note, self.size = self._read(_head)
        self._note = None if note is None else self._blob(note)

    def checkpoint(self) -> bytes | None:
        return self._note

    def checkpoints(self, start: int, stop: int) -> Sequence[tuple[int, bytes]]:
        rows = self._read(_rows, _SELECT_CHECKPOINTS, (start, min(stop, self.size)))
        return tuple((int(size), self._blob(note)) for size, note in rows)

    def leaves(self, start: int, stop: int, batch: int = BATCH) -> Iterator[tuple[bytes, ...]]:
        stop = min(stop, self.size)
        while start < stop:
            part = self._read(_leaves, start, min(stop, start + batch))
            yield part
            start += len(part)

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        # Nothing that was appended since may be mixed in.
        limit = stored_hash_index(0, self.size)
        known = [position for position in positions if position < limit]
        found = self._read(lambda connection: select_hashes(connection.execute, known))
        return [self._blob(one) for one in found]

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        stop = min(stop, self.size)
        found = {row[0]: IndexColumns._make(row) for row in self._read(_rows, SELECT_COLUMNS, (start, stop))}
        return tuple(found.get(index) for index in range(start, stop))

    def close(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy.parent, ignore_errors=True)
            self._copy = None

    def _blob(self, value: Any) -> bytes:
        # Whoever can write the file can put any type anywhere, and bytes(n) of a number would take n bytes of memory.
        if not isinstance(value, bytes):
            raise _mistyped(self._path, type(value).__name__)
        return value

    def _read(self, query: Callable[..., T], *values: Any) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return self._read_once(query, *values)
            except _Changed:
                time.sleep(_PAUSE_S * attempt)
            except sqlite3.Error as error:
                raise _unreadable(refusal(error), _code(error) == sqlite3.SQLITE_CORRUPT, self._path) from error
            except GovrunError as error:
                if error.code is not ExitCode.LEDGER_UNAVAILABLE:
                    raise
                raise _unreadable(error, False, self._path) from error
            except OSError as error:
                raise _cannot_check(self._path, os.strerror(error.errno or 0)) from error
            except (TypeError, ValueError) as error:
                # Text that is no UTF-8, or a value of another type than its column's.
                raise _mistyped(self._path, type(error).__name__) from error
        raise _cannot_check(self._path, "a file that keeps changing")

    def _read_once(self, query: Callable[..., T], *values: Any) -> T:
        if self._copy is not None:
            return _query(self._copy, "mode=ro", query, *values)
        before = _state(self._path)
        if not _size(wal_path(self._path)):
            found = _query(self._path, "immutable=1", query, *values)
            if _state(self._path) != before or _size(wal_path(self._path)):
                raise _Changed
            return found
        if _size(self._path.with_name(self._path.name + "-shm")) is not None:
            try:
                return _query(self._path, _BESIDE_WRITERS, query, *values)
            except sqlite3.Error as error:
                if _code(error) not in _NO_SHM:
                    raise
        self._copy = _private_copy(self._path)
        return self._read_once(query, *values)


def _query(path: Path, mode: str, query: Callable[..., T], *values: Any) -> T:
    with contextlib.closing(_connect(path, mode)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        return query(connection, *values)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    if mode != _BESIDE_WRITERS:
        return sqlite3.connect(uri, uri=True, timeout=1, isolation_level=None)
    with _held_still(path):
        # SQLite would make a -wal that is not there any more.
        if not _size(wal_path(path)):
            raise _Changed
        connection = sqlite3.connect(uri, uri=True, timeout=1, isolation_level=None)
        try:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
        # From here no writer takes the -wal away when it closes.
        return connection


def _code(error: sqlite3.Error) -> int:
    """The primary result code, 0 if SQLite gave none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _head(connection: sqlite3.Connection) -> tuple[Any, int]:
    row = connection.execute("SELECT note, size FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    return (None, 0) if row is None else (row[0], int(row[1]))


def _leaves(connection: sqlite3.Connection, start: int, stop: int) -> tuple[bytes, ...]:
    """One batch; stops early when it has become large, and before an entry that is missing or cannot be read."""
    leaves: list[bytes] = []
    size = 0
    try:
        for index, leaf in connection.execute("SELECT idx, leaf FROM entry WHERE idx >= ? AND idx < ?", (start, stop)):
            if index != start + len(leaves) or not isinstance(leaf, bytes):
                break
            leaves.append(leaf)
            size += len(leaf)
            if size >= MAX_BATCH_BYTES:
                break
    except sqlite3.DatabaseError as error:
        if not leaves and _code(error) == sqlite3.SQLITE_CORRUPT:
            raise _damaged(start, f"{error}") from error
        if not leaves:
            raise
    if not leaves:
        raise _damaged(start, "no such row, or no bytes in it")
    return tuple(leaves)


def _rows(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(sql, values).fetchall()


@contextlib.contextmanager
def _held_still(path: Path) -> Iterator[None]:
    """Keep writers from closing, which takes -wal and -shm away, while a connection is opened.

    Only a shared lock, on a file that is already there. A writer that does not let go is not waited for: then SQLite
    may at worst leave an empty -wal where one has just been.
    """
    try:
        descriptor = os.open(path.with_name(LOCK_FILE), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        for _ in range(_LOCK_ATTEMPTS):
            if try_lock(descriptor, fcntl.LOCK_SH):
                break
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _state(path: Path) -> tuple[int, ...]:
    status = os.stat(path)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _private_copy(path: Path) -> Path:
    """Copy file and -wal to a new private directory, as they were at one moment.

    The file first: whatever a writer folds into it meanwhile stands in the -wal too, as long as that was not begun
    anew, and then the salts in its header differ.
    """
    directory = Path(tempfile.mkdtemp(prefix="govrun-read-"))
    try:
        for _ in range(_ATTEMPTS):
            before = _wal_header(path)
            # No live writer of this process can be here: it would have a -shm. Closing would drop its locks.
            shutil.copyfile(path, directory / path.name)
            shutil.copyfile(wal_path(path), wal_path(directory / path.name))
            if before and _wal_header(path) == before:
                return directory / path.name
        raise _Changed
    except FileNotFoundError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise _Changed from error
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _wal_header(path: Path) -> bytes:
    with open(wal_path(path), "rb") as file:
        return file.read(_WAL_HEADER_BYTES)


def _damaged(index: int, found: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "ledger.damaged",
        f"entry {index} cannot be read",
        found=found,
        expected="an entry at every index below the checkpoint's size",
        fix="keep the file; restore from the published form or a backup as a new origin",
    )


def _unreadable(error: GovrunError, damaged: bool, path: Path) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT if damaged else ExitCode.COULD_NOT_CHECK,
        error.rule,
        f"{path.name}: {error.what}",
        found=error.found,
        expected=error.expected,
        fix=error.fix,
    )


def _mistyped(path: Path, found: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "ledger.corrupt",
        f"{path.name}: a stored value is not of its column's type",
        found=found,
        expected="bytes, numbers and UTF-8 text where the format has them",
        fix="keep the file; restore from the published form or a backup as a new origin",
    )


def _cannot_check(path: Path, found: str) -> GovrunError:
    missing = not os.path.lexists(path)
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "ledger.missing" if missing else "ledger.unreadable",
        f"there is no {path.name}" if missing else f"{path.name} cannot be read",
        found=found,
        expected="a ledger file that can be read and holds still",
        fix="name a ledger's file or directory" if missing else None,
    )
