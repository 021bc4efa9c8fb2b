"""The shared store: a ledger in PostgreSQL that writers on several machines append to.

Writers queue for the lock of one row, which ends with their transaction, and the server ends a transaction that stands
still. That keeps them from being in each other's way; what keeps the ledger from forking is `append()` in the database,
which takes entries behind the very head that they were signed for and behind no other.

Here nothing is signed and nothing verified; `append` does that while it holds the store.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.entry import Entry, IndexColumns
from govrun.ledger.lease import LEASES_DIRECTORY, FileLeases, Lease
from govrun.ledger.place import check_directory
from govrun.ledger.postgres_form import Rights, check_durable, check_form, check_rights
from govrun.ledger.postgres_link import close, connect, driver, refusal
from govrun.ledger.store import Ends
from govrun.signing.dsse import parse_envelope
from govrun.world import World

if TYPE_CHECKING:
    from psycopg import Connection

WAIT_MS: Final = 10_000

_READ_AT_ONCE: Final = 500
_PAUSE_S: Final = 0.05

_SELECT_ENDS: Final = """
SELECT (SELECT coalesce(max(idx) + 1, 0) FROM govrun.entry), (SELECT coalesce(max(position) + 1, 0) FROM govrun.node),
  (SELECT note FROM govrun.checkpoint ORDER BY size DESC LIMIT 1)
"""
SELECT_COLUMNS: Final = (
    "SELECT idx, kind, invocation_id, request_id, backend, task, agent, status, reason, intent, stated_on"
    " FROM govrun.entry_index WHERE idx >= %s AND idx < %s ORDER BY idx"
)
# A session's own locks are seen here like anybody's, and looking takes none.
_SELECT_HELD: Final = """
SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::bigint << 32 | objid::bigint = %s)
"""


def open_store(url: str, directory: Path, world: World, wait_ms: int = WAIT_MS) -> PostgresStore:
    """Open the ledger of a database for appending; directory: where salts, leases and pending outcomes lie here.

    wait_ms is how long anything may take: connecting, waiting for other writers, each statement. GovrunError
    (ledger-unavailable), each under its own rule: not there, not reachable, of another form, not durable, or a role
    that may do too little or too much.
    """
    check_directory(directory)
    return PostgresStore(url, directory, world, wait_ms)


class PostgresStore:
    """An open ledger in a database (a `store.Store`); used by one thread of the process that opened it.

    A connection that was lost is made again by the next `hold`. Errors are GovrunError (ledger-unavailable).
    """

    def __init__(self, url: str, directory: Path, world: World, wait_ms: int) -> None:
        self.directory = directory
        self.world = world
        self.leases = PostgresLeases(url, FileLeases(directory / LEASES_DIRECTORY), wait_ms)
        self._errors = driver().Error
        self._url = url
        self._wait_ms = wait_ms
        self._process = os.getpid()
        self._closed = False
        self._warned: str | None = None
        self._waiting: list[tuple[Entry, IndexColumns, Sequence[bytes]]] = []
        self._link: Connection[tuple[Any, ...]] | None = None
        self._open()

    def _open(self) -> None:
        link = connect(self._url, self._wait_ms, writes=True)
        try:
            self.origin = check_form(link)
            self.rights: Rights = check_rights(link)
            check_durable(link)
        except self._errors as error:
            close(link)
            raise refusal(error) from error
        except BaseException:
            close(link)
            raise
        link.add_notice_handler(self._notice)
        self._link = link

    def _notice(self, diagnostic: Any) -> None:
        # The one warning of a commit: that it stopped waiting for a standby (or that there was no transaction).
        self._warned = str(diagnostic.message_primary or "")[:200]

    def close(self) -> None:
        """Close the connections; leases are let go of with them. Harmless when done twice."""
        self._closed = True
        link, self._link = self._link, None
        # In a child that was forked, the socket is the parent's: saying good-bye on it would end the parent's session.
        if self._process == os.getpid():
            close(link)
            self.leases.close()

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other writer out; what is written inside is gone at the end unless `commit` was called."""
        if self._closed or self._process != os.getpid():
            raise _not_open()
        self._waiting.clear()
        try:
            self._begin()
        except GovrunError as error:
            if self._is_connected():
                self._end()
                raise
            # Lost since the last use, before anything was asked for: the server may have been restarted.
            self._reconnect(error)
            self._begin()
        try:
            self.leases.revive()
            yield
        finally:
            self._waiting.clear()
            self._end()

    def _begin(self) -> None:
        self._run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        self._run("SELECT govrun.hold()")

    def _end(self) -> None:
        """Give up what was not committed; a connection that cannot even do that is closed."""
        if self._link is not None and self._link.info.transaction_status != 0:
            with contextlib.suppress(GovrunError):
                self._run("ROLLBACK")

    def _is_connected(self) -> bool:
        return self._link is not None and not self._link.closed

    def _reconnect(self, because: GovrunError) -> None:
        """Connect again, as often as it takes within the deadline: a server that restarts refuses for a while."""
        deadline = self.world.monotonic_ns() + self._wait_ms * 1_000_000
        close(self._link)
        self._link = None
        while True:
            try:
                self._open()
                return
            except GovrunError as error:
                if error.rule != "ledger.unreachable" or self.world.monotonic_ns() >= deadline:
                    raise error from because
            time.sleep(_PAUSE_S)

    def commit(self) -> None:
        """Make what was written in this `hold` durable; when this returns, it is.

        When it raises, the result is unknown until `reopen` and a look for what was written.
        """
        self._flush()
        self._warned = None
        self._run("COMMIT")
        if self._warned is not None:
            # PostgreSQL says COMMIT also when it gave up waiting for the standby that must have it.
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.notReplicated",
                "the commit was not confirmed",
                found=self._warned,
                expected="a commit that the synchronous standby has too",
                fix="look at the standby; see synchronous_standby_names",
            )

    def reopen(self) -> None:
        """Inside `hold`, after a commit that failed: look again, through a fresh connection, at what is there.

        Whatever is then visible is durable, and what is not visible will never be: the lock can be had only when the
        transaction in question has ended, and a commit of our own behind it waits for whatever that one waited for.
        Raises when that cannot be done.
        """
        self._waiting.clear()
        self._reconnect(_not_open())
        self._begin()
        self._run("SELECT pg_logical_emit_message(true, 'govrun', 'commit')")
        self.commit()
        self._begin()

    def ends(self) -> Ends:
        """How far entries and tree hashes go, by the last of each, and the newest checkpoint's note."""
        return Ends(*self._one(_SELECT_ENDS))

    def head(self) -> bytes | None:
        """The newest checkpoint's note, None in an empty ledger."""
        return self.ends().note

    def size(self) -> int:
        """How many entries there are, by the last index."""
        return self.ends().size

    def leaf(self, index: int) -> bytes | None:
        """The leaf at an index, None if there is none."""
        row = self._first("SELECT leaf FROM govrun.entry WHERE idx = %s", (index,))
        return None if row is None else bytes(row[0])

    def leaves(self, first: int, count: int) -> list[bytes]:
        """The leaves from an index on, in order; fewer if some are missing."""
        self._flush()
        sql = "SELECT leaf FROM govrun.entry WHERE idx >= %s AND idx < %s ORDER BY idx"
        return [bytes(leaf) for (leaf,) in self._rows(sql, (first, first + count))]

    def hashes(self, positions: Sequence[int]) -> list[bytes]:
        """The stored hashes at these positions, in this order; fewer if some are missing (a `HashReader`)."""
        self._flush()
        return select_hashes(self._rows, positions)

    def columns(self, index: int) -> IndexColumns | None:
        """The query columns of an entry."""
        row = self._first(SELECT_COLUMNS, (index, index + 1))
        return None if row is None else IndexColumns(*row)

    def intent_of_request(self, request_id: str) -> int | None:
        """The index of the intent that claimed a request id."""
        row = self._first("SELECT idx FROM govrun.entry_index WHERE request_id = %s AND kind = 'intent'", (request_id,))
        return None if row is None else int(row[0])

    def answer_to(self, intent: int, kind: str) -> int | None:
        """The index of the entry of a kind (`outcome` or `gap`) about the intent at an index."""
        row = self._first("SELECT idx FROM govrun.entry_index WHERE intent = %s AND kind = %s", (intent, kind))
        return None if row is None else int(row[0])

    def open_intents(self) -> tuple[tuple[int, str], ...]:
        """(index, invocation id) of each intent without outcome and gap, by index."""
        self._flush()
        return tuple(self._rows("SELECT idx, invocation_id FROM govrun.open_intent ORDER BY idx"))

    def add_entry(self, entry: Entry, columns: IndexColumns, position: int, hashes: Sequence[bytes]) -> None:
        """Write an entry, its columns, and the hashes that the tree grows by, from a position on."""
        # The database finds the position itself. Together with others, at the next look at the store.
        del position
        self._waiting.append((entry, columns, hashes))

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Write the signed note of the tree of size entries."""
        self._flush()
        self._run("SELECT govrun.sign(%s, %s)", (size, note))

    @property
    def may_sign(self) -> bool:
        """Whether the database takes checkpoints from the role of this connection."""
        return self.rights.may_sign

    def begin(self, origin: str) -> None:
        """Give an empty ledger the origin under which its first entry is about to be written."""
        self.origin = origin

    def _flush(self) -> None:
        if not self._waiting:
            return
        entries, columns, hashes = zip(*self._waiting, strict=True)
        self._waiting.clear()
        grown = [one for some in hashes for one in some]
        rows = driver().types.json.Jsonb([row._asdict() for row in columns])
        written = ([entry.leaf for entry in entries], grown, rows)
        if entries[0].index == 0:
            self._run("SELECT govrun.begin_ledger(%s, %s, %s, %s)", (self.origin, *written))
        else:
            # The place that was signed: the database takes it behind the head that it names, or not at all.
            previous = _previous(entries[0].leaf)
            self._run("SELECT govrun.append(%s, %s, %s, %s, %s)", (entries[0].index, previous, *written))

    def _one(self, sql: str) -> tuple[Any, ...]:
        self._flush()
        return self._rows(sql)[0]

    def _first(self, sql: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
        self._flush()
        rows = self._rows(sql, values)
        return rows[0] if rows else None

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._run(sql, values).fetchall()
        return found

    def _run(self, sql: str, values: Sequence[Any] = ()) -> Any:
        if self._link is None or self._closed:
            raise _not_open()
        try:
            return self._link.execute(sql.encode(), values)
        except self._errors as error:
            if self._link.closed or self._link.info.transaction_status == _UNKNOWN:
                close(self._link)
            raise refusal(error) from error


_UNKNOWN: Final = 4


class PostgresLeases:
    """Leases that every machine sees: a lock of a database session, beside the file of this machine.

    The server lets go of the lock when the session ends: with its process, with the network, and when the server is
    restarted. Until `revive` has taken it again, others may take the invocation for orphaned and append a gap; its
    outcome is appended all the same. Whoever can connect to the database can take such a lock.
    """

    def __init__(self, url: str, files: FileLeases, wait_ms: int) -> None:
        self._url = url
        self._files = files
        self._wait_ms = wait_ms
        self._link: Connection[tuple[Any, ...]] | None = None
        self._held: set[str] = set()
        # Callers that share one writer take their leases themselves.
        self._thread = threading.RLock()

    def acquire(self, invocation_id: str) -> Lease:
        return self._shared(self._files.acquire(invocation_id)) or _refuse_held(invocation_id)

    def seize(self, invocation_id: str) -> Lease | None:
        lease = self._files.seize(invocation_id)
        return None if lease is None else self._shared(lease)

    def is_held(self, invocation_id: str) -> bool:
        # The file first: it is held through a restart of the server.
        return self._files.is_held(invocation_id) or bool(self._ask(_SELECT_HELD, invocation_id))

    def revive(self) -> None:
        """Take again what was lost with a session. What another holds meanwhile is left to them: they will let go."""
        with self._thread:
            if not self._held:
                return
            if self._link is not None and not self._link.closed:
                with contextlib.suppress(GovrunError):
                    self._ask("SELECT %s IS NULL", "0" * 32)
                    return
            for invocation_id in sorted(self._held):
                self._ask("SELECT pg_try_advisory_lock(%s)", invocation_id)

    def close(self) -> None:
        """End the session, and with it every lock."""
        with self._thread:
            close(self._link)
            self._link = None

    def _shared(self, lease: Lease) -> Lease | None:
        """The lease with the lock that others see; let go of and None if another machine has that."""
        try:
            had = self._ask("SELECT pg_try_advisory_lock(%s)", lease.invocation_id)
        except BaseException:
            lease.release()
            raise
        if not had:
            lease.release()
            return None
        with self._thread:
            self._held.add(lease.invocation_id)
        lease.on_release = lambda: self._let_go(lease.invocation_id)
        return lease

    def _let_go(self, invocation_id: str) -> None:
        with self._thread:
            self._held.discard(invocation_id)
            # A session that is lost holds nothing any more.
            with contextlib.suppress(GovrunError):
                if self._link is not None:
                    self._ask("SELECT pg_advisory_unlock(%s)", invocation_id)

    def _ask(self, sql: str, invocation_id: str) -> bool:
        with self._thread:
            if self._link is None or self._link.closed:
                self._link = connect(self._url, self._wait_ms, writes=True)
            try:
                row = self._link.execute(sql.encode(), (lock_key(invocation_id),)).fetchone()
            except driver().Error as error:
                close(self._link)
                raise refusal(error) from error
            return row is not None and bool(row[0])


def lock_key(invocation_id: str) -> int:
    """The key of the lock that stands for an invocation: both halves of its id, XORed, big-endian and signed."""
    number = int(invocation_id, 16)
    return int.from_bytes(((number >> 64) ^ (number & 0xFFFF_FFFF_FFFF_FFFF)).to_bytes(8, "big"), "big", signed=True)


def is_held(link: Connection[Any], invocation_id: str) -> bool:
    """Whether some session of the database holds the lease of an invocation; changes nothing."""
    return link.execute(_SELECT_HELD.encode(), (lock_key(invocation_id),)).fetchone() == (True,)


def select_hashes(rows: Any, positions: Sequence[int]) -> list[bytes]:
    """The stored hashes at these positions, in this order; what is missing is left out."""
    found: dict[int, bytes] = {}
    for at in range(0, len(positions), _READ_AT_ONCE):
        some = list(positions[at : at + _READ_AT_ONCE])
        found.update(rows("SELECT position, hash FROM govrun.node WHERE position = ANY(%s)", (some,)))
    return [found[position] for position in positions if position in found]


def _previous(leaf: bytes) -> bytes:
    """The leaf hash of the entry before, as the receipt in a leaf has it signed."""
    import orjson

    return bytes.fromhex(orjson.loads(parse_envelope(leaf).payload)["predicate"]["ledger"]["previous"])


def _refuse_held(invocation_id: str) -> Lease:
    raise GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "lease.held",
        "the invocation is running already",
        found=f"lease {invocation_id} is held",
        expected="an invocation id of its own",
    )


def _not_open() -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE, "ledger.closed", "the ledger is not open in this process", fix="open it"
    )
