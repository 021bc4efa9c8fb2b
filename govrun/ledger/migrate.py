"""Copy a ledger from wherever it can be read into a store: leaves byte for byte, tree, and checkpoints.

What comes out is the same ledger at another place: same origin, same entries, same signed checkpoints. It is no backup
that may be written beside the old one. Two copies that both grow are two histories of one origin; the rollback guard
takes either as an extension of what it saw until one of them grows, and from then on refuses the other.

Every hash is computed again on the way, and the copy has its name only when whoever asked for it has verified it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import Checkpoint
from govrun.ledger.entry import columns_of, entry_of
from govrun.ledger.merkle import Frontier, stored_hash_count
from govrun.ledger.read import Reader
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope
from govrun.world import World

if TYPE_CHECKING:
    from govrun.ledger.store import Store

BATCH: Final = 1024

Progress = Callable[[int, int], None]


@contextlib.contextmanager
def copied_to_file(
    reader: Reader, head: Checkpoint, path: Path, world: World, progress: Progress | None = None
) -> Iterator[Path]:
    """Copy the ledger under a verified head to a new SQLite file, and give its place under a name for the time being.

    The block verifies it, and looks at the old ledger again. When it ends without an error the file gets its own name,
    durable, never in the place of another file; otherwise nothing is left. A process that is killed leaves at most a
    file with a random name.

    GovrunError: ledger-inconsistent if the ledger does not hold; ledger-unavailable if there already is a file
    (`ledger.exists`), or it cannot be made.
    """
    from govrun.ledger.place import exists
    from govrun.ledger.sqlite import create_store, move_store, wal_path

    if os.path.lexists(path):
        raise exists(path)
    making = path.with_name(f"{path.name}.{world.new_id()}")
    try:
        with create_store(making, head.origin, world) as store:
            frontier = Frontier()
            for leaves in reader.leaves(0, head.size, BATCH):
                with store.hold():
                    _write(reader, head, store, frontier, leaves)
                    # Whatever of it is there is no ledger before it has its name.
                    store.commit()
                if progress is not None:
                    progress(frontier.size, head.size)
        yield making
        move_store(making, path, world)
    finally:
        for left in (making, wal_path(making), making.with_name(making.name + "-shm")):
            left.unlink(missing_ok=True)


def copy_to_database(
    reader: Reader,
    head: Checkpoint,
    url: str,
    world: World,
    look_again: Callable[[], None],
    progress: Progress | None = None,
) -> None:
    """Copy the ledger under a verified head to a PostgreSQL database that is prepared and empty, in one transaction.

    look_again is called before the commit, and may raise. The database then has the whole ledger or, as before, none.
    GovrunError: ledger-inconsistent if the ledger does not hold; ledger-unavailable if the database has a ledger
    (`ledger.exists`), cannot be reached, or its role may not append and sign.
    """
    import tempfile

    from govrun.ledger.postgres import open_store

    with (
        # A store keeps leases beside it on this machine; here none is taken.
        tempfile.TemporaryDirectory(prefix="govrun-migrate-") as beside,
        open_store(url, Path(beside), world) as store,
        store.hold(),
    ):
        if store.size():
            raise _begun(store.origin)
        store.begin(head.origin)
        frontier = Frontier()
        for leaves in reader.leaves(0, head.size, BATCH):
            _write(reader, head, store, frontier, leaves)
            if progress is not None:
                progress(frontier.size, head.size)
        look_again()
        store.commit()


def _write(reader: Reader, head: Checkpoint, store: Store, frontier: Frontier, leaves: tuple[bytes, ...]) -> None:
    """Write one batch behind those that frontier stands for, while the store is held."""
    first = frontier.size
    grown = [_add(store, frontier, leaf) for leaf in leaves]
    _compare(reader, first, [one for some in grown for one in some])
    if frontier.size == head.size and frontier.root() != head.root:
        raise _inconsistent("the entries lead to another root", frontier.root().hex(), head.root.hex())
    for size, note in reader.checkpoints(first, frontier.size):
        store.add_checkpoint(size, note)
    if store.size() != frontier.size:
        raise _inconsistent("the store holds another number of entries", f"{store.size()}", f"{frontier.size}")


def _add(store: Store, frontier: Frontier, leaf: bytes) -> list[bytes]:
    """Write one entry; the hashes that the tree grew by."""
    index = frontier.size
    columns = columns_of(parse_statement(parse_envelope(leaf).payload))
    if columns.index != index:
        raise _inconsistent("an entry stands at another place", f"index {columns.index}", f"index {index}")
    entry = entry_of(index, leaf)
    grown = list(frontier.append(entry.leaf_hash))
    store.add_entry(entry, columns, stored_hash_count(index), grown)
    return grown


def _compare(reader: Reader, first: int, computed: list[bytes]) -> None:
    start = stored_hash_count(first)
    if list(reader.hashes(range(start, start + len(computed)))) != computed:
        raise _inconsistent(
            f"entries from {first} on do not have the stored hashes", "other hashes", "those of the tree"
        )


def _inconsistent(what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "migrate.tree",
        what,
        found=found,
        expected=expected,
        fix="run `govrun verify` on the ledger",
        effect="nothing was migrated",
    )


def _begun(origin: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "ledger.exists",
        "the database has a ledger already",
        found=origin,
        expected="a database that is prepared and has no entries",
        fix="prepare another database",
        effect="nothing was migrated",
    )
