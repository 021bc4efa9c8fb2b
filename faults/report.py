"""What a part of the harness found: rows of a table, and the words for what did not hold."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table: what was done, how often, what was acknowledged by then, what of it was lost.

    broken: every statement that did not hold, with the case in which it did not; empty when all held.
    """

    fault: str
    during: str
    times: int
    acknowledged: int
    lost: int
    must_hold: str
    broken: tuple[str, ...]


class Progress:
    """A bar on a terminal, and nothing elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._began = what, total, 0, time.monotonic()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if sys.stderr.isatty():
            full = 30 * self._done // max(1, self._total)
            bar = "#" * full + "." * (30 - full)
            print(f"\r{self._what:<24} {bar} {self._done}/{self._total}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """All is done; one line stays."""
        lead = "\r\033[K" if sys.stderr.isatty() else ""
        took = f"{time.monotonic() - self._began:.0f} s"
        print(f"{lead}{self._what}: {self._done} in {took}", file=sys.stderr, flush=True)


_HEAD = ("fault", "during", "times", "acknowledged", "lost", "must hold", "held")


def table(rows: list[Row]) -> str:
    """The rows as they stand in docs/faults.md."""
    cells = [
        (
            r.fault,
            r.during,
            f"{r.times:,}",
            f"{r.acknowledged:,}",
            str(r.lost),
            r.must_hold,
            ("yes", "no")[bool(r.broken)],
        )
        for r in rows
    ]
    widths = [max(len(row[n]) for row in (_HEAD, *cells)) for n in range(len(_HEAD))]
    lines = [_HEAD, tuple("-" * width for width in widths), *cells]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)
