"""Cases about tiles, bundles, and proofs from hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.spec import Json, bundle, consistency, inclusion, leaf_hash, root, sha256

_LEAVES = [b"", b"\x00", b"entry 2", b"entry 3", b"entry 4", b"entry 5" * 20, b"entry 6", b"entry 7"]
_HASHES = [leaf_hash(leaf) for leaf in _LEAVES]
_OTHER = sha256(b"another")


def cases() -> Iterator[Case]:
    yield from _paths()
    yield from _bundles()
    yield from _inclusions()
    yield from _consistencies()


def _paths() -> Iterator[Case]:
    good = {
        "tile/0/000": {"level": 0, "index": 0, "width": 256},
        "tile/63/999": {"level": 63, "index": 999, "width": 256},
        "tile/0/x001/x234/067.p/17": {"level": 0, "index": 1_234_067, "width": 17},
        "tile/entries/x001/000.p/255": {"level": "entries", "index": 1000, "width": 255},
    }
    for number, (path, place) in enumerate(good.items(), 1):
        yield Case(f"tile-path-{number}", "tilePath", "the path of a tile", {"path": path}, {}, accepted(**place))
    bad = {
        "short-number": ("tile/0/67", "a number of two digits"),
        "no-groups": ("tile/0/1234", "a number of four digits in one group"),
        "leading-group": ("tile/0/x000/067", "a group of zeros in front"),
        "no-x": ("tile/0/001/067", "a group without its x"),
        "level-64": ("tile/64/000", "a level that no tree has"),
        "leading-zero": ("tile/00/000", "a level with a leading zero"),
        "width-256": ("tile/0/000.p/256", "a full tile spelled as a partial one"),
        "width-0": ("tile/0/000.p/0", "a tile without hashes"),
        "width-zero-in-front": ("tile/0/000.p/017", "a width with a leading zero"),
        "data": ("tile/8/data/000", "the path of another log's tiles"),
        "parent": ("tile/0/../0/000", "a way round"),
        "line-break": ("tile/0/000\n", "a line break at the end"),
    }
    for name, (path, says) in bad.items():
        yield Case(f"tile-path-{name}", "tilePath", says, {"path": path}, {}, rejected(40))


def _bundles() -> Iterator[Case]:
    data = bundle(_LEAVES)
    tile = b"".join(_HASHES)
    largest = [b"x" * 65_535]

    def case(name: str, says: str, data: bytes, width: int, tile: bytes, expected: Json) -> Case:
        asks = {"bundle": "entries", "tile": "tile", "width": width}
        return Case(f"bundle-{name}", "bundle", says, asks, {"entries": data, "tile": tile}, expected)

    yield case("eight", "eight entries, one of them empty", data, 8, tile, accepted(rootHash=root(_HASHES).hex()))
    hashes = [leaf_hash(largest[0])]
    yield case(
        "largest-entry",
        "an entry of 65,535 bytes, the most there can be",
        bundle(largest),
        1,
        hashes[0],
        accepted(rootHash=root(hashes).hex()),
    )
    no = rejected(40)
    yield case("cut", "the last entry lacks a byte", data[:-1], 8, tile, no)
    yield case("cut-in-length", "a length of one byte", data + b"\0", 9, tile + _OTHER, no)
    yield case("one-more", "an entry behind the last one", data + b"\0\0", 8, tile, no)
    yield case("one-less", "seven entries where eight are expected", bundle(_LEAVES[:7]), 8, tile, no)
    yield case("little-endian", "lengths in the other order", b"\x07\x00entry 2", 1, _HASHES[2], no)
    yield case("other-entry", "an entry that the tile does not hold", data.replace(b"entry 4", b"entry 0"), 8, tile, no)
    yield case("swapped", "two entries in another order", bundle([*_LEAVES[:6], _LEAVES[7], _LEAVES[6]]), 8, tile, no)
    yield case("short-tile", "a tile that lacks a byte", data, 8, tile[:-1], no)
    yield case("long-tile", "a tile with a ninth hash", data, 8, tile + _OTHER, no)
    yield case("plain-hashes", "a tile of plain SHA-256", data, 8, b"".join(map(sha256, _LEAVES)), no)


def _hex(hashes: Sequence[bytes]) -> list[str]:
    return [one.hex() for one in hashes]


def _inclusions() -> Iterator[Case]:
    def case(
        name: str, says: str, index: int, size: int, leaf: bytes, top: bytes, hashes: Sequence[bytes], expected: Json
    ) -> Case:
        asks = {"index": index, "size": size, "leafHash": leaf.hex(), "rootHash": top.hex(), "hashes": _hex(hashes)}
        return Case(f"inclusion-{name}", "inclusion", says, asks, {}, expected)

    for index, size in ((0, 1), (0, 8), (5, 8), (6, 7), (4, 5), (2, 6)):
        hashes = _HASHES[:size]
        path = inclusion(index, hashes)
        says = f"entry {index} of {size}"
        yield case(f"{index}-of-{size}", says, index, size, hashes[index], root(hashes), path, accepted())
    path, top, leaf, no = inclusion(5, _HASHES[:7]), root(_HASHES[:7]), _HASHES[5], rejected(40)
    yield case("other-index", "the place beside", 4, 7, leaf, top, path, no)
    yield case("other-leaf", "another entry", 5, 7, _OTHER, top, path, no)
    yield case("other-root", "another root", 5, 7, leaf, _OTHER, path, no)
    yield case("other-hash", "another sibling", 5, 7, leaf, top, [path[0], _OTHER, path[2]], no)
    yield case("swapped", "two siblings in another order", 5, 7, leaf, top, [path[1], path[0], path[2]], no)
    yield case("too-short", "a sibling is missing", 5, 7, leaf, top, path[:-1], no)
    yield case("too-long", "a sibling too many", 5, 7, leaf, top, [*path, _OTHER], no)
    yield case("no-hashes", "no siblings", 5, 7, leaf, top, [], no)
    yield case("root-as-leaf", "the root as an entry of a tree of one", 0, 1, leaf, top, [], no)
    yield case("outside", "an index that is the size", 7, 7, leaf, top, path, no)
    yield case("smaller-tree", "the size of a tree with another shape", 5, 6, leaf, top, path, no)
    yield case("short-hash", "a sibling of 31 bytes", 5, 7, leaf, top, [path[0], path[1][:31], path[2]], no)
    yield case("no-leaf-hash", "no bytes where leaf hash and root stand", 0, 1, b"", b"", [], no)
    yield case("short-root", "leaf hash and root of 31 bytes", 0, 1, leaf[:31], leaf[:31], [], no)
    yield case("empty-tree", "an entry of a tree that has none", 0, 0, leaf, root([]), [], no)


def _consistencies() -> Iterator[Case]:
    def case(
        name: str,
        says: str,
        old: int,
        new: int,
        old_root: bytes,
        new_root: bytes,
        hashes: Sequence[bytes],
        expected: Json,
    ) -> Case:
        asks = {
            "oldSize": old,
            "newSize": new,
            "oldRootHash": old_root.hex(),
            "newRootHash": new_root.hex(),
            "hashes": _hex(hashes),
        }
        return Case(f"consistency-{name}", "consistency", says, asks, {}, expected)

    def at(size: int) -> bytes:
        return root(_HASHES[:size])

    for old, new in ((1, 8), (4, 8), (3, 7), (6, 8), (7, 8), (5, 5)):
        path = consistency(old, _HASHES[:new])
        yield case(f"{old}-to-{new}", f"from {old} to {new} entries", old, new, at(old), at(new), path, accepted())
    path, no = consistency(3, _HASHES[:7]), rejected(44)
    yield case("other-old-root", "another old root", 3, 7, _OTHER, at(7), path, no)
    yield case("other-new-root", "another new root", 3, 7, at(3), _OTHER, path, no)
    yield case("swapped-roots", "the roots in each other's place", 3, 7, at(7), at(3), path, no)
    yield case("backwards", "a tree that became smaller", 7, 3, at(7), at(3), path, no)
    yield case("too-short", "a hash is missing", 3, 7, at(3), at(7), path[:-1], no)
    yield case("too-long", "a hash too many", 3, 7, at(3), at(7), [*path, _OTHER], no)
    yield case("no-hashes", "no hashes", 3, 7, at(3), at(7), [], no)
    yield case("other-hash", "another hash", 3, 7, at(3), at(7), [path[0], _OTHER, *path[2:]], no)
    yield case("other-old-size", "the proof of another old size", 2, 7, at(2), at(7), path, no)
    yield case("same-size-fork", "two roots of one size", 5, 5, at(5), _OTHER, [], no)
    yield case("same-size-hashes", "hashes where none are needed", 5, 5, at(5), at(5), [_OTHER], no)
    yield case("no-root", "no bytes where two equal roots stand", 5, 5, b"", b"", [], no)
    fork = [*_HASHES[:2], _OTHER, *_HASHES[3:7]]
    yield case("fork", "a newer tree with another entry 2", 3, 7, at(3), root(fork), consistency(3, fork), no)
