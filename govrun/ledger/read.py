"""Read a ledger, wherever it is, without changing it or leaving anything beside it.

The head is taken first and only what lies below it is read, so a writer may go on appending. Nothing is verified
here: whoever wrote the file decides what a reader gives. `audit` verifies; its errors, not these, are verdicts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from govrun.digest import without_waiting
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.entry import IndexColumns
from govrun.ledger.proof import is_proof

if TYPE_CHECKING:
    from govrun.ledger.read_published import Files, PublishedReader
    from govrun.world import World

Kind = Literal["sqlite", "directory", "url", "export", "postgres"]

# How messages and help name them.
KINDS: Final = "a SQLite file, a .govrun, a published directory or its URL, an export, or a PostgreSQL URL"

BATCH: Final = 1024
MAX_BATCH_BYTES: Final = 4 << 20

_LEDGER_FILE: Final = "ledger.sqlite"
_CHECKPOINT_FILE: Final = "checkpoint"
_ZIP: Final = b"PK"


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


def open_ledger(location: str | Path, *, allow_http: bool = False, world: World | None = None) -> Reader:
    """Open a ledger for reading: a SQLite file, a `.govrun`, a published directory or its address, or an export.

    allow_http: whether a published ledger may be read from another machine over plain http. world: whose clock the
    deadlines of a server are measured by.

    GovrunError (could-not-check): nothing there (`ledger.missing`), nothing that is a ledger, of a kind that cannot be
    read (`ledger.kind`), a server that does not give it (`url...`). Damaged files: ledger-inconsistent.
    """
    kind = kind_of(location)
    if kind == "url":
        from govrun.ledger.read_published import PublishedReader
        from govrun.ledger.read_url import UrlFiles
        from govrun.world import real_world

        return _over(PublishedReader, UrlFiles(str(location), world or real_world(), allow_http))
    if kind == "postgres":
        from govrun.ledger.read_postgres import PostgresReader

        return PostgresReader(str(location))
    path = Path(location)
    if kind == "export":
        from govrun.ledger.read_export import ExportFiles
        from govrun.ledger.read_published import PublishedReader

        return _over(PublishedReader, ExportFiles(path))
    if kind == "sqlite":
        return _open_sqlite(path)
    if (path / _LEDGER_FILE).exists():
        return _open_sqlite(path / _LEDGER_FILE)
    if (path / _CHECKPOINT_FILE).exists():
        from govrun.ledger.read_published import DirectoryFiles, PublishedReader

        return PublishedReader(DirectoryFiles(path))
    raise GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "ledger.missing",
        f"the directory {path.name or path} holds no ledger",
        expected=f"{_LEDGER_FILE}, or a published {_CHECKPOINT_FILE}",
        fix="name a ledger's file or directory",
    )


def kind_of(location: str | Path) -> Kind:
    """What a location names, by its spelling and by what lies there.

    GovrunError (could-not-check): an address of another kind, or the proof of one entry in the place of a ledger.
    """
    scheme, mark, _ = str(location).partition("://")
    if mark and scheme in ("http", "https"):
        return "url"
    if mark and scheme == "postgresql":
        return "postgres"
    if mark:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "ledger.kind",
            "ledgers at this kind of place cannot be read",
            found=ascii(scheme[:32])[1:-1] + "://",
            expected=KINDS,
            fix="publish the ledger to a directory, or copy it here",
        )
    path = Path(location)
    if path.is_dir():
        return "directory"
    if path.with_name(path.name + "-wal").exists():
        # A database that somebody writes to. If it is this process, closing the file here would drop SQLite's locks on
        # it, and the next writer elsewhere that closes would take the write-ahead log away.
        return "sqlite"
    head = _head_of(path)
    if head.startswith(_ZIP):
        return "export"
    if is_proof(head):
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "ledger.proof",
            f"{path.name} is the proof of one entry, not a ledger",
            expected=KINDS,
            fix=f"`govrun verify {path.name}` checks it; audit, list and show need the ledger it comes from",
        )
    return "sqlite"


def _head_of(path: Path) -> bytes:
    try:
        with open(path, "rb", buffering=0, opener=without_waiting) as file:
            return file.read(64) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except (OSError, ValueError):
        # Whatever is wrong with it is said where it is opened as a ledger.
        return b""


def _over(reader: type[PublishedReader], files: Files) -> Reader:
    try:
        return reader(files)
    except BaseException:
        files.close()
        raise


def _open_sqlite(path: Path) -> Reader:
    from govrun.ledger.read_sqlite import SqliteReader

    return SqliteReader(path)
