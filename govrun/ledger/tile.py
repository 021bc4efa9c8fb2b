"""The published form's arithmetic: which tiles a tree has, their paths and their bytes (C2SP tlog-tiles).

A tile holds up to 256 neighbouring hashes; those of level L stand 8 * L above the leaves. A bundle holds the entries
under a tile of level 0, each behind its length:

    tile/0/x001/x234/067            a full tile: level 0, number 1234067, 8,192 bytes
    tile/0/x001/x234/067.p/17       its first 17 hashes, while there are no more
    tile/entries/x001/x234/067      the entries under it

A tree of 70,000 entries has 273 full tiles and one of width 112 on level 0, one full and one of width 17 on level 1,
and one of width 1 on level 2. Whoever can change a tile or a bundle can at most make verification fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.merkle import (
    HASH_BYTES,
    MAX_ENTRY_BYTES,
    HashReader,
    leaf_hash,
    node_hash,
    split_stored_hash_index,
    stored_hash_index,
)

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
MAX_LEVEL: Final = 63

_PATH = re.compile(r"tile/(?:(entries)|([0-9]{1,2}))/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


@frozen
class Tile:
    """Width (1 to 256) hashes of a level (0 to 63), from place index * 256 on."""

    level: int
    index: int
    width: int


@frozen
class Bundle:
    """The entries under a tile of level 0: width (1 to 256) of them, from entry index * 256 on."""

    index: int
    width: int


def format_tile_path(tile: Tile | Bundle) -> str:
    """The path below the published directory; inverse of `parse_tile_path`."""
    digits = f"{tile.index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    number = "".join(f"x{group}/" for group in groups[:-1]) + groups[-1]
    level = "entries" if isinstance(tile, Bundle) else str(tile.level)
    return f"tile/{level}/{number}" + ("" if tile.width == TILE_WIDTH else f".p/{tile.width}")


def parse_tile_path(path: str) -> Tile | Bundle:
    """Read a path; `format_tile_path(parse_tile_path(p)) == p` or GovrunError (ledger-inconsistent)."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise _malformed("tile.path", "this is not the path of a tile", ascii(path[:100]), "tile/<L>/<N>[.p/<W>]")
    entries, level, number, partial = match.groups()
    index = int(number.replace("x", "").replace("/", ""))
    width = TILE_WIDTH if partial is None else int(partial)
    tile = Bundle(index, width) if entries else Tile(int(level), index, width)
    if isinstance(tile, Tile) and tile.level > MAX_LEVEL:
        raise _malformed("tile.path", "there are no tiles on this level", str(tile.level), f"at most {MAX_LEVEL}")
    if not 1 <= width <= TILE_WIDTH or format_tile_path(tile) != path:
        raise _malformed("tile.path", "this is not the one path of the tile", path, format_tile_path(tile))
    return tile


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """The tiles of a tree of size leaves, by level and index; only those that one of since leaves does not have.

    Tiles of since's tree that were partial and are now wider count as new.
    """
    level = 0
    while size:
        for index in range(since // TILE_WIDTH, -(-size // TILE_WIDTH)):
            tile = Tile(level, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
            if size != since:
                yield tile
        level += 1
        size //= TILE_WIDTH
        since //= TILE_WIDTH


def bundles_of(size: int, since: int = 0) -> Iterator[Bundle]:
    """The bundles of a ledger of size entries, in order; only those that one of since entries does not have."""
    if size == since:
        return
    for index in range(since // TILE_WIDTH, -(-size // TILE_WIDTH)):
        yield Bundle(index, min(TILE_WIDTH, size - index * TILE_WIDTH))


def tile_indexes(tile: Tile) -> tuple[int, ...]:
    """The places of a tile's hashes in the list that `merkle` keeps, left to right."""
    first = tile.index * TILE_WIDTH
    return tuple(stored_hash_index(tile.level * TILE_HEIGHT, first + n) for n in range(tile.width))


def tile_data(tile: Tile, reader: HashReader) -> bytes:
    """A tile's bytes, 32 for each hash, from stored hashes."""
    data = b"".join(reader(tile_indexes(tile)))
    _check_width(tile, data)
    return data


def format_bundle(entries: Sequence[bytes]) -> bytes:
    """A bundle's bytes: each entry behind its length, 2 bytes big-endian; inverse of `parse_bundle`.

    1 to 256 entries of at most 65,535 bytes, else GovrunError (ledger-inconsistent).
    """
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise _malformed("bundle.width", "a bundle holds 1 to 256 entries", str(len(entries)), "1 to 256")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise _malformed(
            "bundle.entry", "an entry is too large", f"{max(map(len, entries))} bytes", f"at most {MAX_ENTRY_BYTES}"
        )
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(data: bytes, width: int) -> tuple[bytes, ...]:
    """Read exactly width entries; anything missing or left over is GovrunError (ledger-inconsistent)."""
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        start = at + 2
        end = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or end > len(data):
            raise _malformed("bundle.short", "a bundle ends too early", f"{len(entries)} entries", f"{width} entries")
        entries.append(data[start:end])
        at = end
    if at != len(data):
        raise _malformed("bundle.long", "a bundle goes on behind its last entry", f"{len(data)} bytes", f"{at} bytes")
    return tuple(entries)


def tile_from_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of the level 0 tile over a bundle's entries."""
    return b"".join(map(leaf_hash, entries))


def tile_reader(size: int, read_tile: Callable[[Tile], bytes]) -> HashReader:
    """Read stored hashes of a tree of size leaves from its tiles; those inside a tile are computed.

    read_tile returns one tile's bytes, and may raise. Each tile is asked for once per read. Nothing is authenticated:
    compare what follows from the hashes with a signed root. A place outside the tree, or a tile of another length:
    GovrunError (ledger-inconsistent).
    """

    def read(indexes: Sequence[int]) -> Sequence[bytes]:
        tiles: dict[Tile, bytes] = {}
        hashes = []
        for index in indexes:
            tile, start, end = _place(index, size)
            data = tiles.get(tile)
            if data is None:
                data = tiles[tile] = read_tile(tile)
                _check_width(tile, data)
            hashes.append(_subtree(data[start * HASH_BYTES : end * HASH_BYTES]))
        return hashes

    return read


def _place(index: int, size: int) -> tuple[Tile, int, int]:
    """The tile, in a tree of size leaves, over which the stored hash at index stands, and which of its hashes."""
    level, n = split_stored_hash_index(index)
    tile_level, inside = divmod(level, TILE_HEIGHT)
    first = n << inside
    number, start = divmod(first, TILE_WIDTH)
    width = min(TILE_WIDTH, (size >> (tile_level * TILE_HEIGHT)) - number * TILE_WIDTH)
    end = start + (1 << inside)
    if end > width:
        raise _malformed("tree.index", "the tree has no such hash", f"hash {index}", f"a hash of {size} leaves")
    return Tile(tile_level, number, width), start, end


def _subtree(data: bytes) -> bytes:
    """The hash over a power of two of neighbouring hashes."""
    hashes = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def _check_width(tile: Tile, data: bytes) -> None:
    if len(data) != tile.width * HASH_BYTES:
        raise _malformed(
            "tile.length",
            f"{format_tile_path(tile)} has the wrong length",
            f"{len(data)} bytes",
            f"{tile.width * HASH_BYTES} bytes",
        )


def _malformed(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, rule, what, found=found, expected=expected)
