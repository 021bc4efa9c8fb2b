"""How a figure is taken: two things in turn in one loop, the median of each, and their ratio."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Work = Callable[[], object]


class Row(NamedTuple):
    """One line of the table: what was measured, both sides in words, their ratio, the bar, and whether it is met.

    ratio: None for a figure that has none. is_met: None for a figure that only shows how a cost grows.
    """

    measure: str
    govrun: str
    peer: str
    ratio: float | None
    bar: str
    is_met: bool | None


class Command(NamedTuple):
    """A command to start, with the whole of its environment."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path


class Rounds:
    """Rounds of one loop in which several things took turns."""

    def __init__(self, times: int, *works: Callable[[], float]) -> None:
        """Run each in turn, so many times; the first round warms the caches for all of them and is not counted."""
        self._rounds = [[work() for work in works] for _ in range(times + 1)][1:]

    def median(self, one: int) -> float:
        """The median of what one of them returned."""
        return statistics.median(values[one] for values in self._rounds)

    def ratio(self, one: int, other: int) -> float:
        """The median of the ratios of one to another, each taken within one round.

        A load that comes and goes weighs on both sides of a round, and so less on this than on a ratio of medians.
        """
        return statistics.median(values[one] / values[other] for values in self._rounds)


def cpu_ms(command: Command) -> float:
    """CPU milliseconds, user and system, of a command and of every child that it waited for."""
    process = start(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    assert process.returncode == 0, f"{' '.join(command.argv)} ended with {process.returncode}"
    return (used.ru_utime + used.ru_stime) * 1e3


def start(command: Command) -> subprocess.Popen[bytes]:
    """Start a command that is neither fed nor heard."""
    none = subprocess.DEVNULL
    environ = dict(command.environ)
    return subprocess.Popen(command.argv, env=environ, cwd=command.cwd, stdin=none, stdout=none, stderr=none)


def seconds(work: Work, clock: Literal["wall", "cpu"]) -> float:
    """Seconds that some work takes, by the clock on the wall or by this process's CPU time."""
    now = time.perf_counter if clock == "wall" else time.process_time
    before = now()
    work()
    return now() - before


def below(measure: str, rounds: Rounds, one: int, other: int, unit: str, peer: str, most: float) -> Row:
    """A row whose bar is a greatest ratio of one side to another."""
    ratio = rounds.ratio(one, other)
    shown = [f"{rounds.median(side):.3g} {unit}" for side in (one, other)]
    return Row(measure, shown[0], f"{shown[1]}, {peer}", ratio, f"at most {most:g}", ratio <= most)
