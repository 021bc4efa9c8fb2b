"""Defects put into a copy of govrun, each of which the project's own tests must notice; `mutants.toml` lists them.

The chosen tests also run on a copy that is not changed, so that a test that fails anyway kills nobody.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from faults.report import Progress, Row

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.toml")
PATIENCE_S = 180

_COPIED = ("govrun", "tests", "schemas", "ledger", "faults", "pyproject.toml")
_PARTS = 8  # of the tests of all mutants, each with a patience of its own
_FAILED = 1  # what pytest ends with when tests failed; anything above says that they could not be asked


class Edit(NamedTuple):
    """One text of one file that is replaced; it occurs there exactly once."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One defect: what it breaks, and which tests must fail with it."""

    name: str
    breaks: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def load() -> tuple[Mutant, ...]:
    """Every mutant of the list."""
    document = tomllib.loads(LIST.read_text())
    return tuple(
        Mutant(one["name"], one["breaks"], tuple(one["tests"]), tuple(Edit(**edit) for edit in one["edits"]))
        for one in document["mutant"]
    )


def rows(directory: Path, sample: int | None, seed: int, jobs: int) -> list[Row]:
    """Try every mutant, or a sample chosen by seed.

    A sample leaves out those that only this harness notices, and the copy that is not changed: the whole suite, of
    which a sample is a part, runs those tests.
    """
    mutants = load()
    if sample is not None:
        quick = [one for one in mutants if not any(test.startswith("tests/faults") for test in one.tests)]
        mutants = tuple(random.Random(seed).sample(quick, sample))  # noqa: S311 - a choice, not a secret
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    progress = Progress("mutants", len(mutants))
    with ThreadPoolExecutor(jobs) as pool:
        parts = [tests[n::_PARTS] for n in range(_PARTS)] if sample is None else []
        unchanged = [
            pool.submit(_run_tests, directory / f"unchanged-{n}", part, stop_at_first=False)
            for n, part in enumerate(parts)
            if part
        ]
        broken: list[str] = []
        for words in pool.map(lambda one: _try(directory / f"mutant-{one[0]}", one[1], progress), enumerate(mutants)):
            broken += words
        controls = [one.result() for one in unchanged]
    progress.end()
    broken += [f"without a mutant, these tests do not pass: {said}" for said in controls if said is not None]
    row = Row("a defect put into govrun", "the tests", len(mutants), 0, 0, "tests fail", tuple(broken))
    return [row]


def _try(directory: Path, mutant: Mutant, progress: Progress) -> list[str]:
    said = _run_tests(directory, list(mutant.tests), mutant.edits)
    progress.step()
    if said is None:
        return [f"survived: {mutant.name} ({mutant.breaks})"]
    return [f"{mutant.name}: {said}"] if said.startswith("could not") else []


def _run_tests(
    directory: Path,
    tests: list[str],
    edits: tuple[Edit, ...] = (),
    stop_at_first: bool = True,
) -> str | None:
    """What the tests say about a copy with these edits; None if they all pass."""
    directory.mkdir()
    try:
        for name in _COPIED:
            _copy(ROOT / name, directory / name)
        for edit in edits:
            file = directory / edit.file
            text = file.read_text()
            if text.count(edit.old) != 1:
                return f"could not be made: its text occurs {text.count(edit.old)} times in {edit.file}"
            file.write_text(text.replace(edit.old, edit.new))
        return _pytest(directory, tests, stop_at_first)
    finally:
        _end_what_is_left(directory)
        shutil.rmtree(directory)


def _end_what_is_left(directory: Path) -> None:
    """Kill the processes that a test which failed, or a defect, has left behind: those that name the copy."""
    name = os.fsencode(f"{directory}/")
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            here = os.fsencode(os.readlink(process / "cwd")) + b"/"
            if name in here or any(name in (process / one).read_bytes() + b"/" for one in ("cmdline", "environ")):
                os.kill(int(process.name), signal.SIGKILL)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    else:
        shutil.copy(source, target)


def _pytest(directory: Path, tests: list[str], stop_at_first: bool) -> str | None:
    # Before everything else on the path, so that the copy is what is imported, by children too.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    environ |= {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(directory)}
    where = "import govrun, sys; sys.exit(not govrun.__file__.startswith(sys.argv[1]))"
    if subprocess.run([sys.executable, "-c", where, str(directory)], cwd=directory, env=environ).returncode:
        return "could not be asked: another govrun is imported"
    words = [sys.executable, "-m", "pytest", *(["-x"] if stop_at_first else []), "-n", "0", "--no-header", *tests]
    try:
        done = subprocess.run(words, cwd=directory, env=environ, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return "the tests did not end"
    if done.returncode == 0 and " skipped" in done.stdout and " passed" not in done.stdout:
        return f"could not be asked: all tests were skipped: {done.stdout[-300:]}"
    if done.returncode > _FAILED:
        return f"could not be asked: {(done.stdout + done.stderr)[-300:]}"
    return None if done.returncode == 0 else done.stdout[-600:]
