"""Read a ledger in PostgreSQL as it is used, without holding anybody up: plain reading, one statement at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.entry import IndexColumns
from govrun.ledger.merkle import stored_hash_index
from govrun.ledger.postgres import SELECT_COLUMNS, is_held, select_hashes
from govrun.ledger.postgres_form import check_form, writers_may_sign
from govrun.ledger.postgres_link import close, connect, driver, refusal
from govrun.ledger.read import BATCH, MAX_BATCH_BYTES

if TYPE_CHECKING:
    from psycopg import Connection

WAIT_MS: Final = 30_000

_SELECT_HEAD: Final = "SELECT note, size FROM govrun.checkpoint ORDER BY size DESC LIMIT 1"
_SELECT_CHECKPOINTS: Final = "SELECT size, note FROM govrun.checkpoint WHERE size > %s AND size <= %s ORDER BY size"
# So many that they stay below a limit of bytes, and one more.
_SELECT_LEAVES: Final = """
SELECT idx, leaf FROM (
  SELECT idx, leaf, sum(octet_length(leaf)) OVER (ORDER BY idx) - octet_length(leaf) AS before
  FROM govrun.entry WHERE idx >= %s AND idx < %s) AS part
WHERE before < %s ORDER BY idx
"""


class PostgresReader:
    """A ledger in a database under the head it had when it was opened (a `read.Reader`)."""

    def __init__(self, url: str, wait_ms: int = WAIT_MS) -> None:
        self._link: Connection[tuple[Any, ...]] | None = None
        try:
            self._errors = driver().Error
            self._link = connect(url, wait_ms, writes=False)
            self.origin = check_form(self._link)
            head = self._rows(_SELECT_HEAD)
        except GovrunError as error:
            self.close()
            raise _unreadable(error) from error
        except self._errors as error:
            self.close()
            raise _unreadable(refusal(error)) from error
        self._note: bytes | None = bytes(head[0][0]) if head else None
        self.size = int(head[0][1]) if head else 0

    def checkpoint(self) -> bytes | None:
        return self._note

    def checkpoints(self, start: int, stop: int) -> Sequence[tuple[int, bytes]]:
        rows = self._rows(_SELECT_CHECKPOINTS, (start, min(stop, self.size)))
        return tuple((int(size), bytes(note)) for size, note in rows)

    def leaves(self, start: int, stop: int, batch: int = BATCH) -> Iterator[tuple[bytes, ...]]:
        stop = min(stop, self.size)
        while start < stop:
            rows = self._rows(_SELECT_LEAVES, (start, min(stop, start + batch), MAX_BATCH_BYTES))
            part = tuple(bytes(leaf) for at, (index, leaf) in enumerate(rows, start) if index == at)
            if not part:
                raise GovrunError(
                    ExitCode.LEDGER_INCONSISTENT,
                    "ledger.damaged",
                    f"entry {start} cannot be read",
                    found="no such row",
                    expected="an entry at every index below the checkpoint's size",
                    fix="keep the database; restore from the published form, as a new origin",
                )
            yield part
            start += len(part)

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        # Nothing that was appended since may be mixed in.
        limit = stored_hash_index(0, self.size)
        return select_hashes(self._rows, [position for position in positions if position < limit])

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        stop = min(stop, self.size)
        found = {row[0]: IndexColumns._make(row) for row in self._rows(SELECT_COLUMNS, (start, stop))}
        return tuple(found.get(index) for index in range(start, stop))

    def is_running(self, invocation_id: str) -> bool | None:
        """Whether some session of the database holds the lease of an invocation; None when that cannot be known."""
        try:
            return None if self._link is None else is_held(self._link, invocation_id)
        except self._errors:
            return None

    def writers_may_sign(self) -> bool:
        """Whether the database lets who appends also insert checkpoints. It says nothing about who has the key."""
        try:
            return self._link is None or writers_may_sign(self._link)
        except self._errors as error:
            raise _unreadable(refusal(error)) from error

    def close(self) -> None:
        close(self._link)
        self._link = None

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if self._link is None:
            raise _unreadable(
                GovrunError(ExitCode.LEDGER_UNAVAILABLE, "ledger.closed", "the ledger is not open", fix="open it")
            )
        try:
            return self._link.execute(sql.encode(), values).fetchall()
        except self._errors as error:
            raise _unreadable(refusal(error)) from error


def _unreadable(error: GovrunError) -> GovrunError:
    damaged = error.rule == "ledger.corrupt"
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT if damaged else ExitCode.COULD_NOT_CHECK,
        error.rule,
        error.what,
        found=error.found,
        expected=error.expected,
        fix=error.fix,
    )
