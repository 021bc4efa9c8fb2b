"""Tiles: one path each, the published examples, and the same hashes as the tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import merkle, tile
from govrun.ledger.tile import Bundle, Tile

LEAVES = [b"leaf %d" % n for n in range(66_000)]


def build(leaves: Sequence[bytes]) -> list[bytes]:
    frontier = merkle.Frontier()
    return [one for leaf in leaves for one in frontier.append(merkle.leaf_hash(leaf))]


STORED = build(LEAVES)


def reader(indexes: Sequence[int]) -> Sequence[bytes]:
    return [STORED[index] for index in indexes]


def refused(rule: str, call: Callable[..., object], *args: object) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (ExitCode.LEDGER_INCONSISTENT, rule) == (caught.value.code, caught.value.rule)
    return caught.value


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tile/0/x001/x234/067", Tile(0, 1_234_067, 256)),
        ("tile/0/x001/x234/067.p/1", Tile(0, 1_234_067, 1)),
        ("tile/63/000", Tile(63, 0, 256)),
        ("tile/1/000.p/255", Tile(1, 0, 255)),
        ("tile/10/999.p/10", Tile(10, 999, 10)),
        ("tile/0/x001/000", Tile(0, 1000, 256)),
        ("tile/entries/000", Bundle(0, 256)),
        ("tile/entries/x001/x234/067.p/17", Bundle(1_234_067, 17)),
    ],
)
def test_path_and_tile_belong_to_each_other(path: str, expected: Tile | Bundle) -> None:
    assert expected == tile.parse_tile_path(path)
    assert path == tile.format_tile_path(expected)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/x001/x002",
        "tile/64/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/8/0/000",
        "tile/data/000",
        "tile/entries/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000/1",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile//000",
        "tile/0/../000",
        "Tile/0/000",
    ],
)
def test_every_other_path_is_refused(path: str) -> None:
    refused("tile.path", tile.parse_tile_path, path)


@given(
    level=st.integers(0, 63) | st.none(),
    index=st.integers(0, 10**20 - 1),
    width=st.integers(1, 256),
)
def test_paths_survive_writing_and_reading(level: int | None, index: int, width: int) -> None:
    one = Bundle(index, width) if level is None else Tile(level, index, width)
    assert one == tile.parse_tile_path(tile.format_tile_path(one))


def test_tree_of_70000_has_the_published_tiles() -> None:
    # C2SP tlog-tiles, "Partial Tiles".
    tiles = list(tile.tiles_of(70_000))
    assert [Tile(0, n, 256) for n in range(273)] == tiles[:273]
    assert tiles[273:] == [Tile(0, 273, 112), Tile(1, 0, 256), Tile(1, 1, 17), Tile(2, 0, 1)]


def test_tree_of_256_has_a_full_tile_and_one_of_width_one_above() -> None:
    assert list(tile.tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(tile.bundles_of(256)) == [Bundle(0, 256)]


def test_empty_and_unchanged_trees_have_no_new_tiles() -> None:
    for size in (0, 1, 256, 257):
        assert list(tile.tiles_of(size, since=size)) == []
        assert list(tile.bundles_of(size, since=size)) == []
    assert list(tile.tiles_of(0)) == []


@given(new=st.integers(0, 200_000), data=st.data())
def test_new_tiles_are_those_the_older_tree_lacks(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(max(0, new - 2000), new))
    before, after = set(tile.tiles_of(old)), list(tile.tiles_of(new))
    assert list(tile.tiles_of(new, since=old)) == [one for one in after if one not in before]
    bundles = set(tile.bundles_of(old))
    assert list(tile.bundles_of(new, since=old)) == [one for one in tile.bundles_of(new) if one not in bundles]
    assert [Bundle(one.index, one.width) for one in after if one.level == 0] == list(tile.bundles_of(new))


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600, 66_000])
def test_tiles_hold_every_hash_of_the_tree(size: int) -> None:
    published = {one: tile.tile_data(one, reader) for one in tile.tiles_of(size)}
    for one in published:
        if one.level == 0:
            entries = LEAVES[one.index * 256 : one.index * 256 + one.width]
            assert tile.tile_from_bundle(entries) == published[one]
    read = tile.tile_reader(size, published.__getitem__)
    indexes = range(merkle.stored_hash_count(size)) if size < 1000 else range(0, merkle.stored_hash_count(size), 997)
    assert list(reader(indexes)) == list(read(indexes))
    assert merkle.root_hash(size, reader) == merkle.root_hash(size, read)
    assert merkle.inclusion_proof(size // 2, size, reader) == merkle.inclusion_proof(size // 2, size, read)
    assert merkle.consistency_proof(size // 3, size, reader) == merkle.consistency_proof(size // 3, size, read)


def test_reader_asks_for_each_tile_once_per_read() -> None:
    asked: list[Tile] = []

    def read_tile(one: Tile) -> bytes:
        asked.append(one)
        return tile.tile_data(one, reader)

    merkle.inclusion_proof(300, 600, tile.tile_reader(600, read_tile))
    assert sorted(asked, key=repr) == [Tile(0, 1, 256), Tile(0, 2, 88), Tile(1, 0, 2)]


def test_hash_outside_the_tree_is_refused() -> None:
    read = tile.tile_reader(5, lambda one: tile.tile_data(one, reader))
    refused("tree.index", read, [merkle.stored_hash_index(0, 5)])
    refused("tree.index", read, [merkle.stored_hash_index(3, 0)])
    refused("tree.index", read, [merkle.stored_hash_index(8, 0)])
    refused("tree.index", read, [merkle.stored_hash_index(0, 256)])


def test_tile_of_another_length_is_refused() -> None:
    for wrong in (b"", b"x" * 31, b"x" * (32 * 5 - 1), b"x" * (32 * 6)):
        error = refused("tile.length", tile.tile_reader(5, lambda one, data=wrong: data), [0])
        assert error.expected == "160 bytes"
        assert error.what == "tile/0/000.p/5 has the wrong length"
    refused("tile.length", tile.tile_data, Tile(0, 0, 2), lambda indexes: [b"x" * 32])


def test_changed_tile_gives_another_root() -> None:
    published = {one: tile.tile_data(one, reader) for one in tile.tiles_of(600)}
    expected = merkle.root_hash(600, reader)
    for changed in (Tile(0, 2, 88), Tile(1, 0, 2)):
        data = published[changed]
        other = {**published, changed: data[:-1] + bytes([data[-1] ^ 1])}
        assert expected != merkle.root_hash(600, tile.tile_reader(600, other.__getitem__))


entries_of = st.lists(st.binary(max_size=40), min_size=1, max_size=256)


@given(entries=entries_of)
def test_bundles_survive_writing_and_reading(entries: list[bytes]) -> None:
    data = tile.format_bundle(entries)
    assert tuple(entries) == tile.parse_bundle(data, len(entries))
    refused("bundle.short", tile.parse_bundle, data, len(entries) + 1)
    refused("bundle.short", tile.parse_bundle, data[:-1], len(entries))
    refused("bundle.long", tile.parse_bundle, data + b"\0", len(entries))


def test_bundle_is_cut_at_no_length() -> None:
    data = tile.format_bundle([b"one", b"", b"three"])
    assert data == b"\x00\x03one\x00\x00\x00\x05three"
    for length in range(len(data)):
        refused("bundle.short", tile.parse_bundle, data[:length], 3)
    refused("bundle.long", tile.parse_bundle, data, 2)


def test_bundle_has_limits() -> None:
    largest = b"x" * 65_535
    assert tile.parse_bundle(tile.format_bundle([largest]), 1) == (largest,)
    refused("bundle.entry", tile.format_bundle, [largest + b"x"])
    refused("bundle.width", tile.format_bundle, [])
    refused("bundle.width", tile.format_bundle, [b""] * 257)
