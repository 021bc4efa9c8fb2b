"""Real children for the tests of `execute`: how to make, run, find and await them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from govrun.backends.interface import Captured, CommandPlan, Determinism
from govrun.execute.process import Limits, Watch, run
from govrun.template import Template, Word
from govrun.world import real_world


def a_plan(
    *argv: str,
    cwd: str = "/",
    environment: tuple[tuple[str, str], ...] = (("PATH", "/usr/bin:/bin"),),
    descriptors: tuple[tuple[int, bytes], ...] = (),
) -> CommandPlan:
    template = Template("test", tuple(Word(word) for word in argv))
    determinism = Determinism("notApplicable")
    return CommandPlan(template, Path(cwd), environment, (), determinism, descriptors=descriptors)


def shell(script: str, **options: object) -> CommandPlan:
    return a_plan("/bin/sh", "-c", script, **options)  # type: ignore[arg-type]


def python(program: str, *arguments: str, **options: object) -> CommandPlan:
    return a_plan(sys.executable, "-I", "-S", "-c", program, *arguments, **options)  # type: ignore[arg-type]


def limits(**changes: object) -> Limits:
    usual = {"wall_ms": 20_000, "stdout_bytes": 1 << 20, "stderr_bytes": 1 << 20, "grace_ms": 300}
    return Limits(**(usual | changes))  # type: ignore[arg-type]


def go(plan: CommandPlan, watch: Watch | None = None, salt: bytes | None = None, **changes: object) -> Captured:
    return run(plan, limits(**changes), world=real_world(), salt=salt, watch=watch)


def with_word(word: str) -> list[int]:
    """The pids, as this process sees them, of every process that has word on its command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(int(name))
    return found


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another process does; fail when it does not happen."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


DAEMON = """
import os, sys
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        open(sys.argv[1], "w").close()
        os.write(writer, b"x")
        os.execv("/bin/sleep", ["sleep", sys.argv[2]])
    os._exit(0)
os.wait()
os.read(reader, 1)
"""
