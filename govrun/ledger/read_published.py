"""Read a published ledger: tiles, bundles and a checkpoint (C2SP tlog-tiles), wherever the files are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from govrun.digest import without_waiting
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import parse_checkpoint
from govrun.ledger.entry import IndexColumns
from govrun.ledger.merkle import HASH_BYTES, MAX_ENTRY_BYTES
from govrun.ledger.read import BATCH, MAX_BATCH_BYTES
from govrun.ledger.tile import (
    TILE_WIDTH,
    Bundle,
    Tile,
    format_tile_path,
    parse_bundle,
    tile_reader,
)
from govrun.signing.note import MAX_NOTE_BYTES, parse_note

CHECKPOINT: Final = "checkpoint"

# How many bundles beyond the present one a place that is far away is told of.
_AHEAD: Final = 6


class Files(Protocol):
    """The files of one published ledger, by their names below it.

    Errors are GovrunError: could-not-check when a file cannot be read, ledger-inconsistent when it is no file of a
    ledger or larger than its limit.
    """

    def fetch(self, name: str, limit: int) -> bytes | None:
        """The bytes of a file, at most limit; None if there is none of that name."""

    def ahead(self, wanted: Sequence[tuple[str, int]]) -> None:
        """Names and limits that will probably be fetched next, in this order; to be used or ignored."""

    def close(self) -> None:
        """Give up what was kept open; harmless when done twice."""


class PublishedReader:
    """A published ledger under the checkpoint that was there when it was opened (a `read.Reader`)."""

    def __init__(self, files: Files) -> None:
        self._files = files
        note = files.fetch(CHECKPOINT, MAX_NOTE_BYTES)
        if note is None:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "ledger.missing",
                "there is no published ledger",
                found=f"no {CHECKPOINT}",
                expected="what `govrun ledger publish` wrote",
                fix="name the place where the file checkpoint is",
            )
        self._note = note
        head = parse_checkpoint(parse_note(note).text)
        self.origin = head.origin
        self.size = head.size
        self._hashes = tile_reader(head.size, self._tile)

    def checkpoint(self) -> bytes | None:
        return self._note

    def checkpoints(self, start: int, stop: int) -> Sequence[tuple[int, bytes]]:
        return ((self.size, self._note),) if start < self.size <= stop else ()

    def leaves(self, start: int, stop: int, batch: int = BATCH) -> Iterator[tuple[bytes, ...]]:
        stop = min(stop, self.size)
        while start < stop:
            index = start // TILE_WIDTH
            self._announce(index + 1, -(-stop // TILE_WIDTH))
            entries = self._entries(self._bundle(index))[start - index * TILE_WIDTH : stop - index * TILE_WIDTH]
            start += len(entries)
            yield from _split(entries, batch)

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        return self._hashes(positions)

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        del start, stop  # the published form has leaves only
        return None

    def close(self) -> None:
        self._files.close()

    def _announce(self, first: int, end: int) -> None:
        wanted: list[Tile | Bundle] = []
        for index in range(first, min(end, first + _AHEAD)):
            bundle = self._bundle(index)
            # Whoever reads one bundle after another compares them with the tiles over them.
            wanted += (bundle, Tile(0, index, bundle.width))
        if wanted:
            self._files.ahead([(format_tile_path(one), byte_limit(one)) for one in wanted])

    def _bundle(self, index: int) -> Bundle:
        return Bundle(index, min(TILE_WIDTH, self.size - index * TILE_WIDTH))

    def _entries(self, bundle: Bundle) -> tuple[bytes, ...]:
        found, data = self._read_tile(bundle)
        try:
            return parse_bundle(data, found.width)[: bundle.width]
        except GovrunError as error:
            first = bundle.index * TILE_WIDTH
            raise GovrunError(
                error.code,
                error.rule,
                f"{format_tile_path(found)}, entries {first} to {first + found.width - 1}: {error.what}",
                found=error.found,
                expected=error.expected,
            ) from error

    def _tile(self, tile: Tile) -> bytes:
        found, data = self._read_tile(tile)
        # A tile of the wrong length goes on as it is, for `tile_reader` to refuse.
        return data[: tile.width * HASH_BYTES] if len(data) == found.width * HASH_BYTES else data

    def _read_tile(self, tile: Tile | Bundle) -> tuple[Tile | Bundle, bytes]:
        """The tile, or the full one that has replaced it since the checkpoint was read."""
        full = Tile(tile.level, tile.index, TILE_WIDTH) if isinstance(tile, Tile) else Bundle(tile.index, TILE_WIDTH)
        for one in dict.fromkeys((tile, full)):
            data = self._files.fetch(format_tile_path(one), byte_limit(one))
            if data is not None:
                return one, data
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "published.missing",
            f"the published ledger lacks {format_tile_path(tile)}",
            expected="every tile that its checkpoint needs",
            fix="publish the ledger again",
        )


class DirectoryFiles:
    """A published ledger in a directory (a `Files`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def fetch(self, name: str, limit: int) -> bytes | None:
        try:
            with open(self._directory / name, "rb", opener=without_waiting) as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "published.unreadable",
                f"{name} cannot be read",
                found=os.strerror(error.errno or 0),
                expected="a file that can be read",
            ) from error
        if len(data) > limit:
            raise too_large(name, limit)
        return data

    def ahead(self, wanted: Sequence[tuple[str, int]]) -> None:
        """The system reads ahead by itself."""

    def close(self) -> None:
        """Nothing is kept open."""


def byte_limit(tile: Tile | Bundle) -> int:
    """How many bytes a tile or a bundle of this width can have."""
    return tile.width * (HASH_BYTES if isinstance(tile, Tile) else 2 + MAX_ENTRY_BYTES)


def too_large(name: str, limit: int) -> GovrunError:
    """The refusal of a file that has more bytes than what it stands for can have."""
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "published.size",
        f"{name} is too large",
        found=f"more than {limit} bytes",
        expected=f"at most {limit} bytes",
    )


def _split(entries: Sequence[bytes], batch: int) -> Iterator[tuple[bytes, ...]]:
    part: list[bytes] = []
    size = 0
    for entry in entries:
        part.append(entry)
        size += len(entry)
        if len(part) == batch or size >= MAX_BATCH_BYTES:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)
