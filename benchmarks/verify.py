"""What a verification costs: per core against bare Ed25519, on two cores, resumed from a bookmark, and its memory."""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks.measure import Rounds, Row, below, seconds, start
from benchmarks.place import Pattern, Place
from govrun.audit.bookmark import CLAIM_BYTES, merge_claims
from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, verify_ledger
from govrun.cli.bookmark_file import read_bookmark, write_bookmark
from govrun.frozen import evolve
from govrun.ledger.read import open_ledger
from govrun.signing.dsse import pae, parse_envelope
from govrun.signing.note import parse_note

LEAST_SHARE = 0.6
LEAST_GAIN = 1.8
MOST_RESUMED = 1.5
NEW = 100
MOST_BYTES = 150_000_000
_LOOK_S = 0.02


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """Every signature, leaf, link, schema and hash of ledgers that grow; memory on every core; only what is new."""
    directory.joinpath("groups").mkdir()
    groups = Place(directory / "groups")
    groups.grow(groups.pattern(), 10_000)
    place = Place(directory)
    pattern = place.pattern()
    for size in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        place.grow_run_by_run(pattern, size)
        yield _speed(place, 7 if size < 100_000 else 1, "run by run")
    yield _speed(groups, 7, "in groups of 1,000")
    yield _gain(groups, 3 if quick else 9)
    yield _memory(place, size)
    yield _resumed(place, pattern, size, directory)


class _InTurns:
    """A full verification that stops behind each batch of entries while the floor verifies their signatures.

    A machine that is slow for a second is so for both sides. The clock is this process's CPU time.
    """

    def __init__(self, place: Place) -> None:
        self._ledger, self._trusted = str(place.home / "ledger.sqlite"), place.trusted
        self.signed = _signed(self._ledger, self._trusted)
        self._bare_s = 0.0
        self._done = 0

    def full(self) -> float:
        """Seconds of the verification alone."""
        self._bare_s, self._done = 0.0, 0
        whole = seconds(self._verify, "cpu")
        return whole - self._bare_s

    def bare(self) -> float:
        """Seconds that the floor took during it."""
        return self._bare_s

    def _verify(self) -> None:
        reader = open_ledger(self._ledger)
        try:
            report = verify_ledger(reader, self._trusted, Question(progress=self._floor))
        finally:
            reader.close()
        assert (report.integrity, report.size) == ("intact", len(self.signed)), report.checks

    def _floor(self, done: int, _: int) -> None:
        part, self._done = self.signed[self._done : done], done
        self._bare_s += seconds(lambda: _verify_bare(part), "cpu")


# What was signed at an entry: key, signature and message of its receipt, and of its checkpoint if it has one.
_Signed = tuple[tuple[Ed25519PublicKey, bytes, bytes], ...]


def _signed(ledger: str, trusted: TrustedKeys) -> list[_Signed]:
    # The genesis is signed by the receipt key like every other entry.
    receipt, log = (Ed25519PublicKey.from_public_bytes(keys[0].public) for keys in (trusted.receipt, trusted.log))
    reader = open_ledger(ledger)
    try:
        notes = {size: parse_note(note) for size, note in reader.checkpoints(0, reader.size)}
        envelopes = [parse_envelope(leaf) for leaves in reader.leaves(0, reader.size) for leaf in leaves]
    finally:
        reader.close()
    found: list[_Signed] = []
    for size, envelope in enumerate(envelopes, 1):
        of_receipt = (receipt, envelope.signatures[0].sig, pae(envelope.payload_type.encode(), envelope.payload))
        if note := notes.get(size):
            found.append((of_receipt, (log, note.signatures[0].signature, note.text)))
        else:
            found.append((of_receipt,))
    return found


def _verify_bare(part: list[_Signed]) -> None:
    for entry in part:
        for key, signature, message in entry:
            key.verify(signature, message)


def _speed(place: Place, times: int, how: str) -> Row:
    turns = _InTurns(place)
    # Like the command line, which collects no garbage; what the floor verifies is no load on the other side.
    gc.disable()
    rounds = Rounds(times, turns.full, turns.bare)
    gc.enable()
    share = rounds.ratio(1, 0)
    count = len(turns.signed)
    return Row(
        f"full verify of {count:,} entries appended {how}, entries/s of one core",
        f"{count / rounds.median(0):,.0f}",
        f"{count / rounds.median(1):,.0f}, bare Ed25519",
        share,
        f"at least {LEAST_SHARE:g}",
        share >= LEAST_SHARE,
    )


def _gain(place: Place, times: int) -> Row:
    """Wall time of one process against two, which want a core each for themselves."""
    ledger, trusted = str(place.home / "ledger.sqlite"), place.trusted

    def verify(workers: int) -> float:
        def work() -> None:
            reader = open_ledger(ledger)
            try:
                report = verify_ledger(reader, trusted, Question(workers=workers))
            finally:
                reader.close()
            assert report.integrity == "intact", report.checks

        return seconds(work, "wall")

    gc.disable()
    rounds = Rounds(times, lambda: verify(1), lambda: verify(2))
    gc.enable()
    gain = rounds.ratio(0, 1)
    return Row(
        "full verify of 10,001 entries on 2 cores, wall time",
        f"{rounds.median(1):.2f} s",
        f"{rounds.median(0):.2f} s, on 1",
        gain,
        f"at least {LEAST_GAIN:g}",
        gain >= LEAST_GAIN,
    )


def _resumed(large: Place, pattern: Pattern, size: int, directory: Path) -> Row:
    """What is new since a bookmark, on a large ledger and on a small one."""
    directory.joinpath("small").mkdir()
    small = Place(directory / "small")
    grown = small.pattern()
    small.grow_run_by_run(grown, NEW)
    sides = []
    for place, its in ((large, pattern), (small, grown)):
        _keep(place)
        reader = open_ledger(place.home / "ledger.sqlite")
        place.grow_run_by_run(its, reader.size + NEW)
        reader.close()
        sides.append(lambda place=place: seconds(lambda: _resume(place), "cpu") * 1e3)
    gc.disable()
    rounds = Rounds(15, *sides)
    gc.enable()
    what = f"resume a verify from a bookmark, {NEW} new entries on {size:,}, CPU"
    return below(what, rounds, 0, 1, "ms", f"{NEW} new on {NEW}", MOST_RESUMED)


def _keep(place: Place) -> None:
    """A bookmark of a full verification, in which every invocation has claimed a request id, as far as it shows."""
    reader = open_ledger(place.home / "ledger.sqlite")
    try:
        workers = len(os.sched_getaffinity(0))
        report = verify_ledger(reader, place.trusted, Question(keep=True, workers=workers))
    finally:
        reader.close()
    assert report.bookmark is not None, report.checks
    intents = dict(report.counts.kinds)["intent"]
    claims = merge_claims(b"", {hashlib.sha256(b"%d" % n).digest()[:CLAIM_BYTES] for n in range(intents)})
    bookmark = evolve(report.bookmark, past=evolve(report.bookmark.past, claims=claims))
    write_bookmark(str(place.directory / "kept"), bookmark)


def _resume(place: Place) -> None:
    """Read the bookmark, verify what is new, and write the next bookmark, to another file."""
    bookmark = read_bookmark(str(place.directory / "kept"))
    reader = open_ledger(place.home / "ledger.sqlite")
    try:
        report = verify_ledger(reader, place.trusted, Question(bookmark=bookmark, keep=True))
    finally:
        reader.close()
    assert bookmark is not None
    assert report.bookmark is not None, report.checks
    assert (report.checked_from, report.size - bookmark.size) == (bookmark.size, NEW), report.unused
    write_bookmark(str(place.directory / "next"), report.bookmark)


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
