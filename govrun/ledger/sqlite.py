"""The embedded store: a ledger in one SQLite file that several processes may append to.

Durable before acknowledged: write-ahead log with synchronous=FULL, read back and refused if it is anything less. Every
commit, every checkpoint of the write-ahead log and every close happens under one flock (`ledger.lock`), so that
checkpointing never runs beside a commit: SQLite before 3.51.3 can lose a commit when the write-ahead log is reset
beside one.

Here nothing is signed and nothing verified; `append` does that while it holds the store.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lock
from govrun.ledger.entry import Entry, IndexColumns
from govrun.ledger.lease import LEASES_DIRECTORY, FileLeases
from govrun.ledger.place import cannot_use, check_directory, check_file, exists, sync_directory
from govrun.ledger.sqlite_form import SELECT_COLUMNS, check_form, create_form, refusal
from govrun.ledger.store import Ends
from govrun.world import World

LEDGER_FILE: Final = "ledger.sqlite"
LOCK_FILE: Final = "ledger.lock"
WAIT_MS: Final = 10_000

# The write-ahead log is folded into the database once in so many entries. It then begins anew in the same blocks, and a
# sync that need not record a grown file is quicker by a third: folding 64 together costs less than the next 192 save.
FOLD_EVERY: Final = 64
# After so many commits of groups, or after so many entries: three megabytes.
FOLD_AT_MOST: Final = 1024

_READ_AT_ONCE: Final = 500

# NORMAL would sync the write-ahead log only when it is folded: acknowledged entries could be lost.
_SETTINGS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_REQUIRED: Final = (("journal_mode", {"wal"}), ("synchronous", {2, 3}), ("wal_autocheckpoint", {0}))

# One statement where there were four: each costs 10 us, of which SQLite's own work is the lesser part.
_SELECT_ENDS: Final = (
    "SELECT (SELECT ifnull(max(idx) + 1, 0) FROM entry), (SELECT ifnull(max(position) + 1, 0) FROM node),"
    " (SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1)"
)

_INSERT_ENTRY: Final = "INSERT INTO entry VALUES (?, ?)"
_INSERT_NODE: Final = "INSERT INTO node VALUES (?, ?)"
_INSERT_COLUMNS: Final = "INSERT INTO entry_index VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_INSERT_OPEN: Final = "INSERT INTO open_intent VALUES (?, ?)"
_DELETE_OPEN: Final = "DELETE FROM open_intent WHERE idx = ?"
# In this order: an intent and its outcome may come in one commit.
_WRITES: Final = (_INSERT_ENTRY, _INSERT_NODE, _INSERT_COLUMNS, _INSERT_OPEN, _DELETE_OPEN)

Connect = Callable[[Path, float], sqlite3.Connection]


def connect_sqlite(path: Path, wait_s: float) -> sqlite3.Connection:
    """A connection to an existing file, with no transaction but those that are begun."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=wait_s, isolation_level=None)


def create_store(path: Path, origin: str, world: World, wait_ms: int = WAIT_MS) -> SqliteStore:
    """Make an empty ledger file, mode 0600, and open it; the directory is made with mode 0700 if there is none.

    GovrunError (ledger-unavailable): the file exists (`ledger.exists`), or cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_use(path.parent, error) from error
    check_directory(path.parent)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        connection = connect_sqlite(path, 0)
        try:
            create_form(connection, origin)
        finally:
            connection.close()
        sync_directory(path.parent)
    except FileExistsError:
        raise exists(path) from None
    except OSError as error:
        raise cannot_use(path, error) from error
    except sqlite3.Error as error:
        raise refusal(error) from error
    return open_store(path, world, wait_ms)


def open_store(path: Path, world: World, wait_ms: int = WAIT_MS, connect: Connect = connect_sqlite) -> SqliteStore:
    """Open a ledger for appending; wait_ms is how long to wait for other writers, here and at each append.

    GovrunError (ledger-unavailable), each under its own rule: missing, a link, of another owner, writable by others,
    no ledger, of a newer format, locked, not writable, damaged, or not durable.
    """
    check_directory(path.parent)
    check_file(path)
    return SqliteStore(path, world, wait_ms, connect)


def move_store(making: Path, path: Path, world: World, wait_ms: int = WAIT_MS) -> None:
    """Give a closed ledger file its name, durable when this returns; never in the place of another file."""
    try:
        descriptor = lock.open_lock_file(path.parent / LOCK_FILE)
        try:
            # Whoever makes a ledger here holds this lock, so nothing comes between looking and renaming.
            if not lock.lock_within(descriptor, world, wait_ms):
                raise _still_locked(wait_ms)
            if os.path.lexists(path):
                raise exists(path)
            os.rename(making, path)
            sync_directory(path.parent)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise cannot_use(path, error) from error


class SqliteStore:
    """An open ledger file (a `store.Store`); used by one thread of the process that opened it.

    Everything but reading happens inside `hold`. Errors are GovrunError (ledger-unavailable).
    """

    def __init__(self, path: Path, world: World, wait_ms: int, connect: Connect) -> None:
        self.path = path
        self.directory = path.parent
        self.origin = ""
        self.world = world
        self.may_sign = True
        self.leases = FileLeases(self.directory / LEASES_DIRECTORY)
        self._wait_ms = wait_ms
        self._connect = connect
        self._process = os.getpid()
        self._fold_due = False
        self._written: tuple[int, int] | None = None
        # What is written as soon as anything is read, or the checkpoint is written: many rows in one go.
        self._rows: dict[str, list[Sequence[Any]]] = {sql: [] for sql in _WRITES}
        self._has_rows = False
        self._paths = tuple(map(str, (path, wal_path(path), self.directory / LOCK_FILE)))
        self._connection: sqlite3.Connection | None = None
        try:
            self._lock = lock.open_lock_file(self.directory / LOCK_FILE)
        except OSError as error:
            raise cannot_use(self.directory / LOCK_FILE, error) from error
        try:
            with self._locked():
                self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        try:
            connection = self._connect(self.path, self._wait_ms / 1000)
        except sqlite3.Error as error:
            raise refusal(error) from error
        try:
            self.origin = check_form(connection)
            for setting in _SETTINGS:
                connection.execute(setting)
            _check_settings(connection)
            # The first read made the write-ahead log, which stays until the last writer closes.
            self._files = *map(_identity, self._paths[:-1]), _identity(self._lock)
        except sqlite3.Error as error:
            connection.close()
            raise refusal(error) from error
        except OSError as error:
            connection.close()
            raise cannot_use(self.path, error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Fold the write-ahead log into the database and close; harmless when done twice.

        If the ledger stays locked beyond the deadline, the write-ahead log is left as it is: the next writer folds it.
        """
        if self._lock < 0:
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(GovrunError):
                stack.enter_context(self._locked())
                self._fold("TRUNCATE")
            # SQLite folds and removes the write-ahead log when the last connection closes. If somebody else holds the
            # lock, theirs is the last one, or they are only opening it and commit nothing yet.
            self._disconnect()
        descriptor, self._lock = self._lock, -1
        with contextlib.suppress(OSError):  # the lock is gone all the same, and nothing was written to lose
            os.close(descriptor)

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other writer out; what is written inside is gone at the end unless `commit` was called."""
        if self._lock < 0 or self._process != os.getpid():
            raise _closed()
        with self._locked():
            if self._connection is None:
                self._open()
            self._check_in_place()
            self._run("BEGIN IMMEDIATE")
            self._written = None
            self._forget_rows()
            try:
                yield
            finally:
                self._forget_rows()
                # After a failed commit SQLite may or may not have ended the transaction itself.
                if self._connection is not None and self._connection.in_transaction:
                    with contextlib.suppress(GovrunError):
                        self._run("ROLLBACK")
                if self._fold_due:
                    self._fold_due = False
                    self._fold("PASSIVE")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            is_ours = lock.lock_within(self._lock, self.world, self._wait_ms)
        except OSError as error:
            raise cannot_use(self.directory / LOCK_FILE, error) from error
        if not is_ours:
            raise _still_locked(self._wait_ms)
        try:
            yield
        finally:
            lock.unlock(self._lock)

    def _check_in_place(self) -> None:
        # Appending to a file that nobody can find any more would acknowledge entries that are gone.
        try:
            in_place = self._files == tuple(map(_identity, self._paths))
        except OSError:
            in_place = False
        if not in_place:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.replaced",
                "the ledger's files were moved, removed or replaced while it was open",
                expected=f"the files that were opened as {self.path.name}",
                fix="put them back, or open the ledger again",
            )

    def commit(self) -> None:
        """Make what was written in this `hold` durable; when this returns, it is.

        When it raises, the result is unknown until `reopen` and a look at the head.
        """
        self._run("COMMIT")
        # From here the entries are durable.
        if self._written is not None:
            first, last = self._written
            every = min(FOLD_EVERY * (last + 1 - first), FOLD_AT_MOST)
            self._fold_due = first // every != (last + 1) // every

    def reopen(self) -> None:
        """Inside `hold`, after a commit that failed: look again, through a fresh connection, at what is there.

        Whatever is then visible is durable: folding writes and syncs it once more. Raises when that cannot be done.
        """
        self._disconnect()
        self._open()
        busy, _, _ = self._run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise refusal(sqlite3.OperationalError("readers keep the write-ahead log"))

    def _fold(self, mode: str) -> None:
        # What cannot be folded now (a reader, a full disk) stays, durable, in the write-ahead log.
        with contextlib.suppress(GovrunError):
            self._run(f"PRAGMA wal_checkpoint({mode})")

    def ends(self) -> Ends:
        """How far entries and tree hashes go, by the last of each, and the newest checkpoint's note."""
        return Ends(*self._fetch(_SELECT_ENDS)[0])

    def head(self) -> bytes | None:
        """The newest checkpoint's note, None in an empty ledger."""
        return self.ends().note

    def size(self) -> int:
        """How many entries there are, by the last index."""
        return self.ends().size

    def leaf(self, index: int) -> bytes | None:
        """The leaf at an index, None if there is none."""
        rows = self._fetch("SELECT leaf FROM entry WHERE idx = ?", (index,))
        return bytes(rows[0][0]) if rows else None

    def leaves(self, first: int, count: int) -> list[bytes]:
        """The leaves from an index on, in order; fewer if some are missing."""
        sql = "SELECT leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx"
        return [bytes(leaf) for (leaf,) in self._fetch(sql, (first, first + count))]

    def hashes(self, positions: Sequence[int]) -> list[bytes]:
        """The stored hashes at these positions, in this order; fewer if some are missing (a `HashReader`)."""
        try:
            return select_hashes(self._run, positions)
        except sqlite3.Error as error:
            raise refusal(error) from error

    def columns(self, index: int) -> IndexColumns | None:
        """The query columns of an entry."""
        rows = self._fetch(SELECT_COLUMNS, (index, index + 1))
        return IndexColumns(*rows[0]) if rows else None

    def intent_of_request(self, request_id: str) -> int | None:
        """The index of the intent that claimed a request id."""
        rows = self._fetch("SELECT idx FROM entry_index WHERE request_id = ? AND kind = 'intent'", (request_id,))
        return int(rows[0][0]) if rows else None

    def answer_to(self, intent: int, kind: str) -> int | None:
        """The index of the entry of a kind (`outcome` or `gap`) about the intent at an index."""
        rows = self._fetch("SELECT idx FROM entry_index WHERE intent = ? AND kind = ?", (intent, kind))
        return int(rows[0][0]) if rows else None

    def open_intents(self) -> tuple[tuple[int, str], ...]:
        """(index, invocation id) of each intent without outcome and gap, by index."""
        return tuple(self._fetch("SELECT idx, invocation_id FROM open_intent ORDER BY idx"))

    def add_entry(self, entry: Entry, columns: IndexColumns, position: int, hashes: Sequence[bytes]) -> None:
        """Write an entry, its columns, and the hashes that the tree grows by, from a position on."""
        rows = self._rows
        rows[_INSERT_ENTRY].append((entry.index, entry.leaf))
        rows[_INSERT_NODE].extend(enumerate(hashes, position))
        rows[_INSERT_COLUMNS].append(columns)
        if columns.kind == "intent":
            rows[_INSERT_OPEN].append((entry.index, columns.invocation_id))
        if columns.intent is not None:
            rows[_DELETE_OPEN].append((columns.intent,))
        self._has_rows = True
        self._written = (entry.index if self._written is None else self._written[0]), entry.index

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Write the signed note of the tree of size entries."""
        self._run("INSERT INTO checkpoint VALUES (?, ?)", (size, note))

    def _fetch(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        # The disk can also fail while rows are fetched.
        cursor = self._run(sql, values)
        try:
            return cursor.fetchall()
        except sqlite3.Error as error:
            raise refusal(error) from error

    def _write_rows(self) -> None:
        assert self._connection is not None  # noqa: S101 - rows are taken inside `hold` only, which connects
        for sql, rows in self._rows.items():
            if rows:
                self._connection.executemany(sql, rows)
        self._forget_rows()

    def _forget_rows(self) -> None:
        if self._has_rows:
            self._has_rows = False
            for rows in self._rows.values():
                rows.clear()

    def _run(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self._connection is None:
            raise _closed()
        try:
            if self._has_rows:
                self._write_rows()
            return self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise refusal(error) from error


def _identity(file: str | int) -> tuple[int, int]:
    """What a path or a descriptor stands for; a link stands for itself."""
    status = os.fstat(file) if isinstance(file, int) else os.stat(file, follow_symlinks=False)
    return status.st_dev, status.st_ino


def _check_settings(connection: sqlite3.Connection) -> None:
    for name, allowed in _REQUIRED:
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found not in allowed:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.durable",
                "this SQLite does not make entries durable before they are acknowledged",
                found=f"{name} = {found}",
                expected=" or ".join(f"{name} = {value}" for value in sorted(map(str, allowed))),
                fix="keep the ledger on a local file system, and use an unmodified SQLite",
            )


def select_hashes(run: Callable[[str, Sequence[Any]], sqlite3.Cursor], positions: Sequence[int]) -> list[bytes]:
    """The stored hashes at these positions, in this order; what is missing is left out."""
    found: dict[int, bytes] = {}
    for at in range(0, len(positions), _READ_AT_ONCE):
        some = tuple(positions[at : at + _READ_AT_ONCE])
        marks = ",".join("?" * len(some))
        found.update(run(f"SELECT position, hash FROM node WHERE position IN ({marks})", some).fetchall())  # noqa: S608 - marks only
    return [found[position] for position in positions if position in found]


def wal_path(path: Path) -> Path:
    """Where SQLite keeps the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def _closed() -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE, "ledger.closed", "the ledger is not open in this process", fix="open it"
    )


def _still_locked(wait_ms: int) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "ledger.locked",
        "another process keeps the ledger locked",
        found=f"locked for {wait_ms} ms",
        expected="a lock that is released within the deadline",
        fix=f"find its holder with `fuser {LOCK_FILE}`; it may be stopped or waiting for its disk",
    )
