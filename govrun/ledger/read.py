"""Read a ledger, wherever it is, without changing it or leaving anything beside it.

The head is taken first and only what lies below it is read, so a writer may go on appending. Nothing is verified
here: whoever wrote the file decides what a reader gives. `audit` verifies; its errors, not these, are verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.entry import IndexColumns

BATCH: Final = 1024
MAX_BATCH_BYTES: Final = 4 << 20

_LEDGER_FILE: Final = "ledger.sqlite"
_CHECKPOINT_FILE: Final = "checkpoint"


class Reader(Protocol):
    """A ledger under the head it had when it was opened.

    Errors are GovrunError: could-not-check, and ledger-inconsistent with what could be located of the damage.
    origin and size are what the store says; only a verified checkpoint makes them true.
    """

    @property
    def origin(self) -> str: ...

    @property
    def size(self) -> int: ...

    def checkpoint(self) -> bytes | None:
        """The note of the head; None if the ledger has none."""

    def checkpoints(self, start: int, stop: int) -> Sequence[tuple[int, bytes]]:
        """(size, note) of every checkpoint kept with start < size <= stop, by size.

        The published form keeps only the newest.
        """

    def leaves(self, start: int, stop: int, batch: int = BATCH) -> Iterator[tuple[bytes, ...]]:
        """The leaves from index start up to stop, in order, at most batch or about 4 MiB at once."""

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        """Stored hashes (a `merkle.HashReader`)."""

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        """The query columns of the entries from start up to stop as they are stored, None for a row that is missing.

        None at all in a form that has no columns.
        """

    def close(self) -> None:
        """Give up what was kept open; harmless when done twice."""


def open_ledger(location: str | Path) -> Reader:
    """Open a SQLite file, a `.govrun` directory or a published directory for reading.

    GovrunError (could-not-check): nothing there (`ledger.missing`), nothing that is a ledger, or of a kind that
    cannot be read here (`ledger.kind`). Damaged files: ledger-inconsistent.
    """
    text = str(location)
    if "://" in text:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "ledger.kind",
            "ledgers at this kind of place cannot be read yet",
            found=ascii(text.partition("://")[0][:32])[1:-1] + "://",
            expected="a SQLite file, a .govrun directory or a published directory",
            fix="publish the ledger to a directory, or copy it here",
        )
    path = Path(location)
    if not path.is_dir():
        return _open_sqlite(path)
    if (path / _LEDGER_FILE).exists():
        return _open_sqlite(path / _LEDGER_FILE)
    if (path / _CHECKPOINT_FILE).exists():
        from govrun.ledger.read_published import PublishedReader

        return PublishedReader(path)
    raise GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "ledger.missing",
        f"the directory {path.name or text} holds no ledger",
        expected=f"{_LEDGER_FILE}, or a published {_CHECKPOINT_FILE}",
        fix="name the ledger with --ledger",
    )


def _open_sqlite(path: Path) -> Reader:
    from govrun.ledger.read_sqlite import SqliteReader

    return SqliteReader(path)
