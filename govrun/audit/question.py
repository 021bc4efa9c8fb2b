"""What is asked of a ledger beside whose keys signed it, and what the verifier remembers of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Literal

from govrun.audit.bookmark import Bookmark
from govrun.frozen import frozen

Requirement = Literal["keyed", "pinned", "complete"]

BATCH: Final = 512
# Below this many entries starting other processes costs more than they save.
WORTH_WORKERS: Final = 4_000


@frozen
class Remembered:
    """What the rollback guard of this user holds for the ledger's origin.

    notes: signed notes as they were found, not verified. problem: why they cannot be read, None if they can. may_lag:
    what is read is a copy, which may end before the ledger that it was taken from.
    """

    notes: tuple[bytes, ...] = ()
    problem: str | None = None
    may_lag: bool = False


@frozen
class Question:
    """What is asked.

    pinned: the signed note of a checkpoint that the verifier kept. bookmark: what an earlier verification of the
    verifier's own left, so that only newer entries need reading. read_all: read the others all the same. keep: make
    such a bookmark of a yes. remembered: what the rollback guard holds, None if nothing. require: what must be there
    for a yes; `complete` means that every announced invocation has its end or still runs. at: the instant to compare
    deadlines with, None to compare none. is_running: whether the lease of an invocation id is held, None when that
    cannot be known. workers: processes to use, where alone_below entries or more are to be read; batch: entries that
    one of them takes at a time. progress: called with entries read and entries to read. writers_hold_log_key: the
    caller knows that whoever writes can sign checkpoints too; keys_lie: how, in words that `can rewrite` follows.
    writers_may_sign: whether the database of a shared ledger takes checkpoints from who appends, None for a ledger that
    is not shared.
    """

    pinned: bytes | None = None
    bookmark: Bookmark | None = None
    read_all: bool = False
    keep: bool = False
    remembered: Remembered | None = None
    require: Collection[Requirement] = ()
    at: str | None = None
    is_running: Callable[[str], bool | None] | None = None
    workers: int = 1
    alone_below: int = WORTH_WORKERS
    batch: int = BATCH
    progress: Callable[[int, int], None] | None = None
    writers_hold_log_key: bool = False
    keys_lie: str = "all keys lie in one .govrun, so who holds it"
    writers_may_sign: bool | None = None
