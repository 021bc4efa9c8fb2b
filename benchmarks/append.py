"""What one durable append costs, against the least that durability costs on the same disk, and how it grows."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Rounds, Row, Work, below, seconds
from benchmarks.place import Pattern, Place, intent_of, settle
from govrun.api import open_ground
from govrun.settings import load_settings

# So many of a kind in a row: a sync right behind somebody else's finds the disk's cache empty, and is too cheap.
BLOCK = 10


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """One receipt through the writer against one raw write and fdatasync of the same bytes, at two sizes.

    And the same bytes as one row of an SQLite table that holds nothing else: what any store in SQLite costs.
    """
    small, large = (1_000, 10_000) if quick else (1_000, 100_000)
    place = Place(directory)
    pattern = place.pattern()
    size = max(map(len, place.leaves()))
    for entries in (small, large):
        place.grow(pattern, entries)
        rounds = _append(place, pattern, 10 if quick else 60)
        words = f"durable append of {size:,} bytes at {entries:,} entries"
        yield below(words, rounds, 0, 1, "ms", "write + fdatasync", 2)
        peer = f"{rounds.median(1):.3g} ms, write + fdatasync"
        yield Row("... one row in SQLite alone", f"{rounds.median(2):.3g} ms", peer, rounds.ratio(2, 1), "", None)


def _each_ms(work: Work) -> float:
    return 1e3 * seconds(work, "wall") / BLOCK


def _append(place: Place, pattern: Pattern, times: int) -> Rounds:
    raw, rowed = place.directory / "raw", place.directory / "rows.sqlite"
    descriptor = os.open(raw, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    table = sqlite3.connect(rowed, isolation_level=None)
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        table.execute(f"PRAGMA {setting}")
    table.execute("CREATE TABLE entry (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL) STRICT")
    try:
        with open_ground(place.world, load_settings(place.home, place.environ, {})) as ground:
            writer = ground.writer

            def through_govrun() -> float:
                drafts = [intent_of(place.world, pattern) for _ in range(BLOCK)]
                return _each_ms(lambda: [writer.append([d], salts=[b"s" * 32]) for d in drafts])

            def last() -> bytes:
                return writer.store.leaf(writer.store.size() - 1) or b""

            def bare() -> float:
                leaf = last()

                def write() -> None:
                    for _ in range(BLOCK):
                        os.write(descriptor, leaf)
                        os.fdatasync(descriptor)

                return _each_ms(write)

            def in_a_table() -> float:
                leaf = last()
                return _each_ms(
                    lambda: [table.execute("INSERT INTO entry (leaf) VALUES (?)", (leaf,)) for _ in range(BLOCK)]
                )

            rounds = Rounds(times, through_govrun, bare, in_a_table)
            settle(writer, pattern)
    finally:
        os.close(descriptor)
        raw.unlink()
        table.close()
        rowed.unlink()
    return rounds
