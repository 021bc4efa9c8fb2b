"""Read a published ledger: a directory of tiles, bundles and a checkpoint (C2SP tlog-tiles)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

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

_MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)


class PublishedReader:
    """A published ledger under the checkpoint that was there when it was opened (a `read.Reader`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._note = self._read("checkpoint", MAX_NOTE_BYTES)
        head = parse_checkpoint(parse_note(self._note).text)
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
            bundle = Bundle(index, min(TILE_WIDTH, self.size - index * TILE_WIDTH))
            entries = self._entries(bundle)[start - index * TILE_WIDTH : stop - index * TILE_WIDTH]
            start += len(entries)
            yield from _split(entries, batch)

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        return self._hashes(positions)

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        del start, stop  # the published form has leaves only
        return None

    def close(self) -> None:
        """Nothing is kept open."""

    def _entries(self, bundle: Bundle) -> tuple[bytes, ...]:
        found, data = self._read_tile(bundle, _MAX_BUNDLE_BYTES)
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
        found, data = self._read_tile(tile, TILE_WIDTH * HASH_BYTES)
        # A tile of the wrong length goes on as it is, for `tile_reader` to refuse.
        return data[: tile.width * HASH_BYTES] if len(data) == found.width * HASH_BYTES else data

    def _read_tile(self, tile: Tile | Bundle, limit: int) -> tuple[Tile | Bundle, bytes]:
        """The tile, or the full one that has replaced it since the checkpoint was read."""
        if tile.width < TILE_WIDTH and not (self._directory / format_tile_path(tile)).exists():
            full = (
                Tile(tile.level, tile.index, TILE_WIDTH) if isinstance(tile, Tile) else Bundle(tile.index, TILE_WIDTH)
            )
            if (self._directory / format_tile_path(full)).exists():
                tile = full
        return tile, self._read(format_tile_path(tile), limit)

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with open(self._directory / name, "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError as error:
            raise GovrunError(
                ExitCode.LEDGER_INCONSISTENT,
                "published.missing",
                f"the published ledger lacks {name}",
                expected="every tile that its checkpoint needs",
                fix="publish the ledger again",
            ) from error
        except OSError as error:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "published.unreadable",
                f"{name} cannot be read",
                found=os.strerror(error.errno or 0),
                expected="a file that can be read",
            ) from error
        if len(data) > limit:
            raise GovrunError(
                ExitCode.LEDGER_INCONSISTENT,
                "published.size",
                f"{name} is too large",
                found=f"more than {limit} bytes",
                expected=f"at most {limit} bytes",
            )
        return data


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
