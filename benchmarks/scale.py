"""What grows with a ledger and what does not: appends, proofs, verification, room; 1,000 to 1,000,000 entries."""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from benchmarks.group import stored
from benchmarks.measure import Rounds, Row, Work, cpu_ms, seconds
from benchmarks.place import SALT, Place
from govrun.api import open_ground
from govrun.ledger.append import Appender
from govrun.ledger.checkpoint import parse_checkpoint
from govrun.ledger.merkle import Frontier, inclusion_proof, leaf_hash, verify_inclusion
from govrun.ledger.proof import LogProof, format_proof
from govrun.ledger.read import open_ledger
from govrun.receipt import Draft, parse_statement
from govrun.settings import load_settings
from govrun.signing.dsse import parse_envelope
from govrun.signing.note import parse_note

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MOST_GROWTH = 1.2
MOST_MAKE_MS = 5
MOST_VERIFY_MS = 150
LEAST_TREE = 150_000
_TOGETHER = 1_000
_BLOCK = 10
_INSTANT = "2026-11-22T12:00:00.000Z"

Point = dict[str, float]


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """Figures at the largest size, beside those at the smallest where a ratio tells more."""
    last = measure(directory, SIZES[:-1] if quick else SIZES)[-1]
    size = int(last["entries"])
    for clock in ("wall", "cpu"):
        ratio = last[f"append {clock} ratio"]
        name = "durable append" if clock == "wall" else "... its CPU"
        yield Row(
            f"{name} at {size:,} entries against at {SIZES[0]:,}",
            f"{last[f'append {clock} ms']:.3g} ms",
            f"{last[f'append {clock} ms when small']:.3g} ms at {SIZES[0]:,}, in the same loop",
            ratio,
            f"at most {MOST_GROWTH:g}",
            ratio <= MOST_GROWTH,
        )
    made, verified = last["make proof CPU ms"], last["verify proof CPU ms"]
    words = f"proof of one entry of {size:,}"
    opened = f"{last['proof bytes']:,.0f} bytes, ledger opened each time"
    yield Row(
        f"{words}: make it, CPU", f"{made:.2g} ms", opened, None, f"at most {MOST_MAKE_MS} ms", made <= MOST_MAKE_MS
    )
    within = f"at most {MOST_VERIFY_MS} ms"
    shown = f"`govrun verify PROOF`; {last['python CPU ms']:.3g} ms, python -c pass"
    yield Row(f"{words}: verify it, CPU", f"{verified:.3g} ms", shown, None, within, verified <= MOST_VERIFY_MS)
    yield _tree_only(directory / "home", 100_000)


def measure(directory: Path, sizes: tuple[int, ...]) -> list[Point]:
    """A point for each size."""
    small, large = (Place(_made(directory / name)) for name in ("small", "home"))
    _grow(small, sizes[0])
    points = []
    for size in sizes:
        print(f"growing to {size:,} entries", file=sys.stderr, flush=True)
        _grow(large, size)
        points.append({"entries": size, **_appends(large, small), **_proof(large, 40), **_rest(large)})
    return points


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _refusal(place: Place) -> Draft:
    """The smallest receipt there is, so that a million of them are made in minutes."""
    return Draft(
        "denied",
        {
            "invocationId": place.world.new_id(),
            "request": None,
            "backend": "process",
            "task": None,
            "agent": None,
            "policy": None,
            "stage": "policy",
            "rule": "policy.backend",
            "exitCode": 11,
            "found": "process",
            "expected": None,
            "count": 1,
            "firstOn": _INSTANT,
            "deniedOn": _INSTANT,
        },
    )


def _grow(place: Place, size: int) -> None:
    with open_ground(place.world, load_settings(place.home, place.environ, {})) as ground:
        writer = ground.writer
        while (missing := size - writer.store.size()) > 0:
            count = min(_TOGETHER, missing)
            writer.append([_refusal(place) for _ in range(count)], salts=[SALT] * count)


def _appends(large: Place, small: Place) -> Point:
    """Durable appends to both in turns: blocks of ten, by the clock on the wall and by CPU time.

    The small ledger stays what it is, within some hundreds of entries, and tells how the machine is at the moment.
    """
    grounds = [open_ground(p.world, load_settings(p.home, p.environ, {})) for p in (large, small)]
    with grounds[0] as at_large, grounds[1] as at_small:

        def block(writer: Appender, place: Place) -> Work:
            drafts = [_refusal(place) for _ in range(_BLOCK)]
            return lambda: [writer.append([one], salts=[SALT]) for one in drafts]

        def timed(place: Place, writer: Appender, clock: Literal["wall", "cpu"]) -> Callable[[], float]:
            return lambda: 1e3 * seconds(block(writer, place), clock) / _BLOCK

        both = ((large, at_large.writer), (small, at_small.writer))
        wall = Rounds(40, *(timed(place, writer, "wall") for place, writer in both))
        cpu = Rounds(40, *(timed(place, writer, "cpu") for place, writer in both))
    found: Point = {}
    for clock, rounds in (("wall", wall), ("cpu", cpu)):
        found[f"append {clock} ms"], found[f"append {clock} ms when small"] = rounds.median(0), rounds.median(1)
        found[f"append {clock} ratio"] = rounds.ratio(0, 1)
    return found


def _proof(place: Place, times: int) -> Point:
    """Making and verifying proofs of entries here and there."""
    ledger, chance = str(place.home / "ledger.sqlite"), random.Random(20261122)  # noqa: S311 - places, not secrets
    file = place.directory / "entry.tlog-proof"

    def make() -> float:
        return 1e3 * seconds(lambda: file.write_bytes(_proof_of(ledger, chance)), "cpu")

    verify, nothing = place.command("govrun", "verify", str(file)), place.command("python", "-c", "pass")
    rounds = Rounds(times, make, lambda: cpu_ms(verify), lambda: cpu_ms(nothing))
    found = {"make proof CPU ms": rounds.median(0), "verify proof CPU ms": rounds.median(1)}
    return {**found, "python CPU ms": rounds.median(2), "proof bytes": len(_proof_of(ledger, chance))}


def _proof_of(ledger: str, chance: random.Random) -> bytes:
    """A proof of any entry, as `govrun ledger prove` makes it: the ledger opened, the entry's way up checked."""
    reader = open_ledger(ledger)
    try:
        note = reader.checkpoint() or b""
        head = parse_checkpoint(parse_note(note).text)
        index = chance.randrange(head.size)
        [[leaf]] = [list(batch) for batch in reader.leaves(index, index + 1)]
        path = inclusion_proof(index, head.size, reader.hashes)
        verify_inclusion(path, leaf_hash(leaf), head.root)
        return format_proof(LogProof(leaf, index, path.hashes, note))
    finally:
        reader.close()


def _rest(place: Place) -> Point:
    """A full verification by the command line, and the room on the disk; each per entry."""
    count = _size(place)
    found = {"verify CPU us": 1e3 * cpu_ms(place.command("govrun", "verify", "--json")) / count}
    if (parts := stored(place)) is not None:
        found |= {"leaf bytes": parts["leaf"], "tree bytes": parts["tree"], "index bytes": parts["index"]}
        found["other bytes"] = parts["entry"] + parts["rest"]
    return found


def _size(place: Place) -> int:
    reader = open_ledger(str(place.home / "ledger.sqlite"))
    try:
        return reader.size
    finally:
        reader.close()


def _tree_only(directory: Path, count: int) -> Row:
    """Leaf hashes, chain and tree of leaves in memory: the internal functions alone, which give no verdict."""
    reader = open_ledger(str(directory / ".govrun" / "ledger.sqlite"))
    try:
        count = min(count, reader.size)
        leaves = [leaf for batch in reader.leaves(0, count) for leaf in batch]
        expected = Frontier.at(count, reader.hashes).root()
    finally:
        reader.close()
    previous = [bytes.fromhex(parse_statement(parse_envelope(leaf).payload).position.previous) for leaf in leaves]

    def walk() -> None:
        found = [leaf_hash(leaf) for leaf in leaves]
        assert all(last == named for last, named in zip(found, previous[1:], strict=False))
        frontier = Frontier()
        frontier.extend(found)
        assert frontier.root() == expected

    gc.disable()
    rounds = Rounds(7, lambda: seconds(walk, "cpu"))
    gc.enable()
    speed = count / rounds.median(0)
    size = sum(map(len, leaves)) // count
    return Row(
        f"tree and chain alone, {count:,} leaves of {size:,} bytes, entries/s of one core",
        f"{speed:,.0f}",
        "hash each leaf, compare the chain, grow the tree; no verdict",
        None,
        f"at least {LEAST_TREE:,}",
        speed >= LEAST_TREE,
    )


def main() -> None:
    """`python -m benchmarks.scale FILE [LARGEST]`: the points of the curves as JSON."""
    import tempfile

    from benchmarks.__main__ import machine

    file = Path(sys.argv[1])
    largest = int(sys.argv[2]) if len(sys.argv) > 2 else SIZES[-1]
    with tempfile.TemporaryDirectory(dir=file.parent.resolve(), prefix="govrun-bench-") as directory:
        points = measure(Path(directory), tuple(size for size in SIZES if size <= largest))
    file.write_text(json.dumps({"machine": machine(), "points": points}, indent=2) + "\n")


if __name__ == "__main__":
    main()
