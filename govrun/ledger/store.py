"""What a writer needs of a store, whatever keeps the bytes: one file on this machine, or a database of several.

A store keeps entries, tree hashes, checkpoints and query columns; it signs nothing and verifies nothing. `directory`
is on this machine whatever the store is: salts, leases, pending outcomes and counted refusals lie there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from govrun.frozen import frozen

if TYPE_CHECKING:
    from govrun.ledger.entry import Entry, IndexColumns
    from govrun.ledger.lease import Lease
    from govrun.world import World


@frozen
class Ends:
    """Where a stored ledger ends: entries, tree hashes, and the newest checkpoint's note (None if there is none)."""

    size: int
    hashes: int
    note: bytes | None


class Leases(Protocol):
    """Who may say that an invocation is running; whatever machine looks, it sees the same."""

    def acquire(self, invocation_id: str) -> Lease:
        """Take the lease of a new invocation, with room for its outcome on this machine's disk.

        GovrunError (ledger-unavailable): held already (`lease.held`), no room (`lease.full`), or not to be had.
        """

    def seize(self, invocation_id: str) -> Lease | None:
        """Take a lease that nobody holds; None if it is held. OSError, GovrunError."""

    def is_held(self, invocation_id: str) -> bool:
        """Whether somebody holds the lease; changes nothing. OSError, GovrunError if it cannot be looked at."""


class Reads(Protocol):
    """What can be asked of an open ledger. Errors are GovrunError (ledger-unavailable)."""

    @property
    def origin(self) -> str: ...

    @property
    def directory(self) -> Path: ...

    @property
    def world(self) -> World: ...

    @property
    def leases(self) -> Leases: ...

    def head(self) -> bytes | None:
        """The newest checkpoint's note, None in an empty ledger."""

    def size(self) -> int:
        """How many entries there are, by the last index."""

    def leaf(self, index: int) -> bytes | None:
        """The leaf at an index, None if there is none."""

    def hashes(self, positions: Sequence[int]) -> list[bytes]:
        """The stored hashes at these positions, in this order; fewer if some are missing (a `HashReader`)."""

    def columns(self, index: int) -> IndexColumns | None:
        """The query columns of an entry."""

    def intent_of_request(self, request_id: str) -> int | None:
        """The index of the intent that claimed a request id."""

    def answer_to(self, intent: int, kind: str) -> int | None:
        """The index of the entry of a kind (`outcome` or `gap`) about the intent at an index."""

    def open_intents(self) -> tuple[tuple[int, str], ...]:
        """(index, invocation id) of each intent without outcome and gap, by index."""


class Store(Reads, Protocol):
    """An open ledger; used by one thread of the process that opened it.

    Everything but reading happens inside `hold`. Reading inside it sees what was written there.
    """

    def hold(self) -> AbstractContextManager[None]:
        """Keep every other writer out; what is written inside is gone at the end unless `commit` was called."""

    def commit(self) -> None:
        """Make what was written in this `hold` durable; when this returns, it is.

        When it raises, the result is unknown until `reopen` and a look for what was written.
        """

    def reopen(self) -> None:
        """Inside `hold`, after a commit that failed: look again, through a fresh connection, at what is there.

        Whatever is then visible is durable, and what is not visible will never be. Raises when that cannot be done.
        """

    def ends(self) -> Ends:
        """How far entries and tree hashes go, by the last of each, and the newest checkpoint's note."""

    def leaves(self, first: int, count: int) -> list[bytes]:
        """The leaves from an index on, in order; fewer if some are missing."""

    def add_entry(self, entry: Entry, columns: IndexColumns, position: int, hashes: Sequence[bytes]) -> None:
        """Write an entry, its columns, and the hashes that the tree grows by, from a position on."""

    @property
    def may_sign(self) -> bool:
        """Whether checkpoints are taken from this writer, and not from a sequencer only."""

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Write the signed note of the tree of size entries."""

    def close(self) -> None:
        """Give up what was kept open; harmless when done twice."""
