"""A fault in every system call that touches the ledger, its lock, salts, leases, pending outcomes and remembered head.

The calls are counted in a run without a fault; then the work is done once for each call and each kind of fault.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
from pathlib import Path
from typing import NamedTuple

from faults import judge, scenes, trace
from faults.report import Progress, Row

HOWS = (("SIGKILL", "signal=KILL"), ("EIO", "error=EIO"), ("ENOSPC", "error=ENOSPC"))
MUST_HOLD = {
    "append": "acknowledged means present; refused means absent, with the reason",
    "run": "nothing runs unannounced; exit 15 before the launch, 30-33 after it, the outcome kept",
    "recovery": "each intent gets exactly one end, and each refusal is counted once",
}


class Case(NamedTuple):
    """One fault in one scene, and whether it struck a file of the ledger."""

    scene: int
    how: str
    fault: trace.Fault


class Outcome(NamedTuple):
    """How a case went; struck is False when the injected call never came, or was one on another file."""

    case: Case
    struck: bool
    verdict: scenes.Verdict


_shared: tuple[Path, judge.Judge] | None = None


def rows(directory: Path, sample: int | None, seed: int, jobs: int, program: judge.Judge) -> list[Row]:
    """Inject everything, or sample cases of each scene and kind chosen by seed."""
    global _shared  # noqa: PLW0603 - inherited by the processes of the pool
    _shared = directory, program
    cases: list[Case] = []
    chance = random.Random(seed)  # noqa: S311 - a choice of cases, not a secret
    for number, scene in enumerate(scenes.SCENES):
        scenes.prepare(scene, directory / scene.name)
        touching = _count(number)
        for name, how in HOWS:
            chosen = touching if sample is None else sorted(chance.sample(touching, min(sample, len(touching))))
            cases += [Case(number, name, trace.Fault(call, how)) for call in chosen]
    progress = Progress("system calls", len(cases))
    found = []
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for outcome in pool.imap_unordered(_inject, cases, chunksize=4):
            found.append(outcome)
            progress.step()
    progress.end()
    return [_row(found, number, name) for number in range(len(scenes.SCENES)) for name, _ in HOWS]


def _count(number: int) -> list[trace.Call]:
    """The calls of a scene without a fault; it must end well, and be judged well."""
    assert _shared is not None
    directory, program = _shared
    scene = scenes.SCENES[number]
    # Twice, since the first time modules are loaded that stay; here in this process, for those that are forked later.
    for attempt in ("warm", "count"):
        place = scenes.copied(directory / scene.name, directory / f"{scene.name}-{attempt}")
        ended = trace.run(lambda place=place: scene.work(place), directory / "log", environ=place.environ)
        verdict = scenes.settle(scene, place, ended, program)
        if ended.code or verdict.broken:
            raise AssertionError(f"{scene.name} without a fault: {ended.code} {ended.err} {verdict.broken}")
    return [call for call in trace.calls(ended.lines) if scenes.TOUCHED.search(call.line)]


def _inject(case: Case) -> Outcome:
    assert _shared is not None
    directory, program = _shared
    scene = scenes.SCENES[case.scene]
    name = f"{scene.name}-{case.how}-{case.fault.call.name}-{case.fault.call.nth}"
    place = scenes.copied(directory / scene.name, directory / name)
    log = directory / f"{name}.log"
    try:
        ended = trace.run(lambda: scene.work(place), log, case.fault, environ=place.environ)
        struck = _struck(case, ended)
        verdict = scenes.settle(scene, place, ended, program)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(place.root, ignore_errors=True)
        return Outcome(case, True, scenes.Verdict(0, (f"the harness failed: {error}",)))
    log.unlink(missing_ok=True)
    return Outcome(case, struck, verdict)


def _struck(case: Case, ended: trace.Ended) -> bool:
    if case.how == "SIGKILL":
        return ended.code == -9
    return any("(INJECTED)" in line and scenes.TOUCHED.search(line) for line in ended.lines)


def _row(found: list[Outcome], number: int, how: str) -> Row:
    mine = [o for o in found if (o.case.scene, o.case.how) == (number, how) and o.struck]
    broken = [f"{o.case.fault}: {words}" for o in mine for words in o.verdict.broken]
    return Row(
        fault=f"{how} at each system call",
        during=scenes.SCENES[number].name,
        times=len(mine),
        acknowledged=sum(o.verdict.acknowledged for o in mine),
        lost=sum("acknowledged and is not there" in words for words in broken),
        must_hold=MUST_HOLD[scenes.SCENES[number].name],
        broken=tuple(broken),
    )
