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


def alternate(times: int, *works: Callable[[], float]) -> list[float]:
    """Run each in turn, so many times, and return the median of what each returned.

    The first round is not counted: it warms the caches for all of them.
    """
    rounds = [[work() for work in works] for _ in range(times + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


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


def below(measure: str, ours: float, theirs: float, unit: str, peer: str, most: float) -> Row:
    """A row whose bar is a greatest ratio of ours to theirs."""
    ratio = ours / theirs
    return Row(measure, f"{ours:.3g} {unit}", f"{theirs:.3g} {unit}, {peer}", ratio, f"at most {most:g}", ratio <= most)
