"""What a receipt costs when 64 share a commit: CPU against the least that any receipt needs, and room on the disk."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from benchmarks.measure import Rounds, Row, Work, below, seconds
from benchmarks.place import SALT, Pattern, Place, intent_of, settle
from govrun import schemas
from govrun.api import open_ground, open_shared_ground
from govrun.errors import ExitCode
from govrun.ledger.append import Submission
from govrun.ledger.merkle import leaf_hash
from govrun.receipt import Draft, parse_statement
from govrun.settings import load_settings
from govrun.signing.dsse import TYPE_BYTES, pae, parse_envelope
from govrun.signing.keys import load_signer

TOGETHER = 64
MOST_BYTES = 350


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """A group through the writer against validate + sign + hash of the same bytes; then the stored bytes.

    To validate is what `parse_statement` does, and the writer too: the profile, the schema, the subject. The schema
    alone is shown besides.
    """
    place = Place(directory)
    pattern = place.pattern()
    rounds = _cpu(place, pattern, 20 if quick else 100)
    size = max(map(len, place.leaves()))
    words = f"CPU of a receipt of {size:,} bytes in a commit of {TOGETHER}"
    yield below(words, rounds, 0, 1, "us", "validate, sign and hash the same bytes", 2)
    for name, one, floor, said in (
        ("... its floor validated by the schema alone", 0, 3, "parse, schema, sign, hash"),
        (f"... handed over by {TOGETHER} threads that wait for it", 2, 1, "validate, sign and hash the same bytes"),
    ):
        shown = f"{rounds.median(floor):.3g} us, {said}"
        yield Row(name, f"{rounds.median(one):.3g} us", shown, rounds.ratio(one, floor), "", None)
    yield from _storage(Place(_below(directory, "storage")), pattern, 5_000 if quick else 20_000)


def _below(directory: Path, name: str) -> Path:
    made = directory / name
    made.mkdir()
    return made


def _each_us(work: Work) -> float:
    return 1e6 * seconds(work, "cpu") / TOGETHER


def _cpu(place: Place, pattern: Pattern, times: int) -> Rounds:
    settings = load_settings(place.home, place.environ, {})
    signer = load_signer(place.home / "keys" / "receipt.key")

    def drafts() -> list[Draft]:
        return [intent_of(place.world, pattern) for _ in range(TOGETHER)]

    with open_ground(place.world, settings) as ground:
        writer = ground.writer

        def in_a_group() -> float:
            group = [Submission((draft,), (SALT,)) for draft in drafts()]
            return _each_us(lambda: writer.append_each(group))

        def floor(validate: Callable[[bytes], object]) -> float:
            last = writer.store.size() - TOGETHER
            leaves = [writer.store.leaf(last + n) or b"" for n in range(TOGETHER)]
            parts = [(leaf, parse_envelope(leaf).payload) for leaf in leaves]

            def least() -> None:
                for leaf, payload in parts:
                    validate(payload)
                    signer.sign(pae(TYPE_BYTES, payload))
                    leaf_hash(leaf)

            return _each_us(least)

        # The pool's threads stay, as those of a server do.
        with open_shared_ground(place.world, settings) as shared, ThreadPoolExecutor(TOGETHER) as pool:

            def by_threads() -> float:
                one_each = drafts()
                append = shared.writer.append
                return _each_us(lambda: list(pool.map(lambda draft: append([draft], salts=[SALT]), one_each)))

            rounds = Rounds(times, in_a_group, lambda: floor(parse_statement), by_threads, lambda: floor(_fits))
        settle(writer, pattern)
    return rounds


def _fits(payload: bytes) -> None:
    schemas.check(orjson.loads(payload), "receipt.v1", "intent", ExitCode.RECEIPT_INVALID, "receipt")


def _storage(place: Place, pattern: Pattern, size: int) -> Iterator[Row]:
    place.grow(pattern, size, TOGETHER)
    found = stored(place)
    if found is None:
        print("skipped: this SQLite has no dbstat, so the bytes of an entry are not shown", file=sys.stderr)
        return
    parts = f"tree {found['tree']:.0f}, table {found['entry']:.0f}, checkpoints and salts {found['rest']:.0f}"
    beyond = found["tree"] + found["entry"] + found["rest"]
    yield Row(
        f"room of an entry beyond its leaf, in commits of {TOGETHER}",
        f"{beyond:.0f} bytes",
        f"{parts}; search index besides: {found['index']:.0f}",
        None,
        f"at most {MOST_BYTES} bytes",
        beyond <= MOST_BYTES,
    )


def stored(place: Place) -> dict[str, float] | None:
    """Bytes of an entry on the disk by what they are for, its leaf aside; None where SQLite cannot tell."""
    connection = sqlite3.connect(place.home / "ledger.sqlite")
    try:
        tables = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
        count, leaves = connection.execute("SELECT count(*), sum(length(leaf)) FROM entry").fetchone()
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()
    index = sum(size for name, size in tables.items() if name.startswith(("entry_", "open_")))
    salts = (place.home / "salts").stat().st_size
    rest = sum(tables.values()) + salts - index - tables["entry"] - tables["node"]
    parts = {"entry": tables["entry"] - leaves, "tree": tables["node"], "rest": rest, "index": index, "leaf": leaves}
    return {name: size / count for name, size in parts.items()}
