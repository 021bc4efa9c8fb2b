"""What a full verification costs: time per core against bare Ed25519, its growth, and its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks.measure import Rounds, Row, seconds, start
from benchmarks.place import Place
from govrun.audit.verify import verify_ledger
from govrun.ledger.read import open_ledger
from govrun.signing.dsse import pae, parse_envelope

LEAST_SHARE = 0.6
MOST_BYTES = 150_000_000
_LOOK_S = 0.02


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """Every signature, leaf, link, schema and hash of ledgers that grow, on one core; then memory on every core."""
    place = Place(directory)
    pattern = place.pattern()
    for size in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        place.grow(pattern, size)
        yield _speed(place, 3 if size < 100_000 else 1)
    yield _memory(place, size)


def _speed(place: Place, times: int) -> Row:
    ledger, trusted = str(place.home / "ledger.sqlite"), place.trusted
    key = Ed25519PublicKey.from_public_bytes(trusted.receipt[0].public)
    signed = []
    for leaf in place.leaves():
        envelope = parse_envelope(leaf)
        # The genesis is signed by the receipt key like every other entry.
        signed.append((envelope.signatures[0].sig, pae(envelope.payload_type.encode(), envelope.payload)))

    def bare() -> None:
        for signature, message in signed:
            key.verify(signature, message)

    def full() -> None:
        reader = open_ledger(ledger)
        try:
            report = verify_ledger(reader, trusted)
        finally:
            reader.close()
        assert (report.integrity, report.size) == ("intact", len(signed)), report.checks

    rounds = Rounds(times, lambda: seconds(full, "cpu"), lambda: seconds(bare, "cpu"))
    share = rounds.ratio(1, 0)
    count = len(signed)
    return Row(
        f"full verify of {count:,} entries, entries/s of one core",
        f"{count / rounds.median(0):,.0f}",
        f"{count / rounds.median(1):,.0f}, bare Ed25519",
        share,
        f"at least {LEAST_SHARE:g}",
        share >= LEAST_SHARE,
    )


def _memory(place: Place, size: int) -> Row:
    process = start(place.command("govrun", "verify", "--json"))
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_pss(pid) for pid in _tree(process.pid)))
        time.sleep(_LOOK_S)
    assert process.returncode == 0, process.returncode
    return Row(
        f"memory of a full verify of {size:,} entries on {os.cpu_count()} cores",
        f"{peak / 1e6:.0f} MB",
        "greatest sum of PSS over the process tree, every 20 ms",
        None,
        f"at most {MOST_BYTES / 1e6:.0f} MB",
        peak <= MOST_BYTES,
    )


def _tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in _list(f"/proc/{pid}/task"):
        for child in _read(f"/proc/{pid}/task/{task}/children").split():
            yield from _tree(int(child))


def _pss(pid: int) -> int:
    """Bytes of a process's memory, with what n processes share counted as an n-th; 0 once it is gone."""
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
