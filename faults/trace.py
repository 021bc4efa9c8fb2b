"""A child process under strace: which system calls it makes on which files, and one of them made to fail.

strace is attached to a process that has imported everything and waits, so that only the calls of the work itself are
counted, and a case costs tens of milliseconds instead of a start of Python.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

STRACE = "strace"
PATIENCE_S = 60.0

# `name(arguments) = result`; what was interrupted and resumed does not occur with one thread and no handlers.
_LINE = re.compile(r"(?:\d+ +)?(\w+)\(")


class Call(NamedTuple):
    """The nth call of a system call since strace was attached, counted from 1, and what strace showed of it."""

    name: str
    nth: int
    line: str


class Fault(NamedTuple):
    """What one call does instead: `signal=KILL`, `error=EIO`, `error=ENOSPC`."""

    call: Call
    how: str

    def __str__(self) -> str:
        return f"{self.how} at {self.call.name} number {self.call.nth}: {self.call.line[:160]}"


class Ended(NamedTuple):
    """How a traced child ended: exit code (negative for a signal), what it wrote, and the lines of its trace."""

    code: int
    out: str
    err: str
    lines: list[str]


def missing() -> str | None:
    """Why nothing can be traced here; None if it can."""
    if shutil.which(STRACE) is None:
        return "no strace here"
    try:
        ended = run(lambda: None, Path(os.devnull))
    except (OSError, RuntimeError) as error:
        return f"strace may not attach here: {error}"
    return None if ended.code == 0 else "strace does not work here"


def calls(lines: list[str]) -> list[Call]:
    """Every call of a trace with its number among those of its name."""
    seen: Counter[str] = Counter()
    found = []
    for line in lines:
        if match := _LINE.match(line):
            seen[match[1]] += 1
            found.append(Call(match[1], seen[match[1]], line))
    return found


def run(
    work: Callable[[], None],
    log: Path,
    fault: Fault | None = None,
    *,
    environ: dict[str, str] | None = None,
    whole: bool = False,
) -> Ended:
    """Do work in a forked child under strace, with one fault or none; whole shows every byte that it writes, in hex."""
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(work, (out_w, err_w, ready_w, go_r), environ)
    for descriptor in (out_w, err_w, ready_w, go_r):
        os.close(descriptor)
    try:
        os.read(ready_r, 1)
        tracer = _attach(pid, log, fault, whole)
        os.write(go_w, b"x")
        out, err = _read_all(pid, out_r, err_r)
        _, status = os.waitpid(pid, 0)
        tracer.communicate(timeout=PATIENCE_S)
    finally:
        for descriptor in (out_r, err_r, ready_r, go_w):
            os.close(descriptor)
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    return Ended(os.waitstatus_to_exitcode(status), out, err, lines)


def _child(work: Callable[[], None], descriptors: tuple[int, ...], environ: dict[str, str] | None) -> None:
    code = 70
    try:
        out, err, ready, go = descriptors
        os.dup2(out, 1)
        os.dup2(err, 2)
        if environ is not None:
            os.environ.clear()
            os.environ.update(environ)
        os.write(ready, b"x")
        # Not a call that is ever counted, so it does not matter where in it strace finds this process.
        poll = select.poll()
        poll.register(go, select.POLLIN)
        poll.poll()
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - told on stderr, and judged there
        import traceback

        os.write(2, traceback.format_exc().encode())
        code = 1
    finally:
        os._exit(code)


def _attach(pid: int, log: Path, fault: Fault | None, whole: bool) -> subprocess.Popen[str]:
    words = [STRACE, "-y", "-e", "trace=%file,%desc", "-o", str(log), *(("-xx", "-s", "1000000") if whole else ())]
    if fault is not None:
        words += ["-e", f"inject={fault.call.name}:{fault.how}:when={fault.call.nth}"]
    tracer = subprocess.Popen([*words, "-p", str(pid)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        tracer.communicate()
        raise RuntimeError(said.strip())
    return tracer


def _read_all(pid: int, out: int, err: int) -> tuple[str, str]:
    """Both streams to their end; a child that does not come to its end is killed."""
    taken: dict[int, bytes] = {out: b"", err: b""}
    still = {out, err}
    until = time.monotonic() + PATIENCE_S
    while still:
        ready, _, _ = select.select(sorted(still), [], [], max(0.0, until - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + PATIENCE_S
        for descriptor in ready:
            part = os.read(descriptor, 65_536)
            taken[descriptor] += part
            if not part:
                still.discard(descriptor)
    return taken[out].decode("utf-8", "replace"), taken[err].decode("utf-8", "replace")
