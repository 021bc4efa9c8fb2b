"""What is going on when a fault strikes, and what must hold afterwards: an append, a whole run, a recovery."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

# Imported here, so that no child of a scene spends its traced life importing.
import govrun.cli.commands
import govrun.cli.run  # noqa: F401
from faults.judge import Judge
from faults.trace import Ended
from govrun.api import open_ground
from govrun.errors import GovrunError
from govrun.frozen import evolve
from govrun.invoke import Ground, recover
from govrun.ledger import lease, pending
from govrun.ledger.append import Appended
from govrun.ledger.merkle import leaf_hash
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.settings import load_settings
from govrun.world import real_world
from tests.e2e.place import Place
from tests.ledger.ledger_world import denied, intent, invocation, outcome_of

# The files of a ledger, and the directories that name them.
TOUCHED = re.compile(r"ledger\.(sqlite|lock)|/salts\b|/leases\b|/pending\b|/heads\b|refusals\.json|\.govrun[\">]")

COMMAND = ("/bin/sh", "-c", "echo executed >>executed; echo done")


class Verdict(NamedTuple):
    """What became of one case: how many entries were acknowledged, and what did not hold, in words."""

    acknowledged: int
    broken: tuple[str, ...]


class Scene(NamedTuple):
    """One thing that is done in a child, and what is asked of its end, given the place and the size before.

    judge_after asks what must hold once the next run has settled it.
    """

    name: str
    prepare: Callable[[Place], None]
    work: Callable[[Place], None]
    judge: Callable[[Place, Ended, int], list[str]]
    judge_after: Callable[[Place], list[str]] = lambda _: []


def place_at(root: Path) -> Place:
    """The world below root; its home is named, since a copy stands where no trust file says."""
    place = Place(root)
    place.extra["GOVRUN_HOME"] = str(place.home)
    return place


def prepare(scene: Scene, root: Path) -> None:
    """Make the world that each case of a scene begins with a copy of."""
    for directory in ("work", "user", "config", "state"):
        (root / directory).mkdir(mode=0o700, parents=True)
    place = place_at(root)
    place.init("process")
    scene.prepare(place)
    (root / "before").write_bytes(_checkpoint(place))


def copied(template: Path, root: Path) -> Place:
    """A world of its own for one case."""
    shutil.copytree(template, root)
    return place_at(root)


def settle(scene: Scene, place: Place, ended: Ended, judge: Judge) -> Verdict:
    """Judge what one case has left, after the next run has settled it; the world is gone at the end."""
    said = [line.split() for line in ended.out.splitlines() if line.startswith("acknowledged ")]
    broken = []
    try:
        before = int((place.root / "before").read_bytes().split(b"\n")[1])
        if "Traceback" in ended.err:
            broken.append(f"crashed: {ended.err.strip().splitlines()[-1]}")
        broken += scene.judge(place, ended, before)
        broken += _next_run(place)
        broken += scene.judge_after(place)
        hashes = _leaf_hashes(place)
        broken += [f"entry {i} was acknowledged and is not there" for _, i, h in said if hashes[int(i) :][:1] != [h]]
        broken += _verdict(place)
        broken += judge.refuses(published(place), _trust_line(place), place.root / "before", len(hashes))
    except (GovrunError, AssertionError, OSError, ValueError) as error:
        broken.append(f"{type(error).__name__} while it was looked at: {' '.join(str(error).split())[:200]}")
    shutil.rmtree(place.root)
    return Verdict(len(said), tuple(broken))


def _next_run(place: Place) -> list[str]:
    """The next start settles what is left, and runs."""
    result = place.call(argv=("/bin/true",))
    broken = [] if result.exit == 0 else [f"the next run ended with {result.exit}"]
    entries = place.entries()
    answers = [e for e in entries if e.kind in ("outcome", "gap") and e.predicate["intent"] is not None]
    ends = [(e.kind, e.predicate["intent"]["index"]) for e in answers]
    if sorted(of for _, of in ends) != [e.index for e in entries if e.kind == "intent"]:
        broken.append(f"an intent has not exactly one end: {ends}")
    if place.runs > sum(e.kind == "intent" for e in entries) - 1:
        broken.append("something ran that was not announced")
    return broken + [f"left behind: {name}" for name in place.leftovers()]


def _verdict(place: Place) -> list[str]:
    report = place.verify()
    if (report.integrity, int(report.exit_code)) == ("intact", 0):
        return []
    return [f"verify: {report.integrity}, exit {int(report.exit_code)}, {report.findings[:1]}"]


def published(place: Place) -> Path:
    """Where the ledger of a place is published now."""
    from govrun.signing.keys import load_signer

    reader = open_ledger(str(place.ledger))
    try:
        publish(reader, place.root / "public", load_signer(place.home / "keys" / "log.key").verifier)
    finally:
        reader.close()
    return place.root / "public"


def _trust_line(place: Place) -> str:
    from govrun.signing.keys import format_vkey, load_signer

    return format_vkey(load_signer(place.home / "keys" / "log.key").verifier)


def _checkpoint(place: Place) -> bytes:
    reader = open_ledger(str(place.ledger))
    try:
        return reader.checkpoint() or b""
    finally:
        reader.close()


def _leaf_hashes(place: Place) -> list[str]:
    reader = open_ledger(str(place.ledger))
    try:
        return [leaf_hash(leaf).hex() for batch in reader.leaves(0, reader.size) for leaf in batch]
    finally:
        reader.close()


def ground_of(place: Place) -> AbstractContextManager[Ground]:
    """The open ledger of a place."""
    world = real_world(place.environ)
    return open_ground(world, load_settings(place.home, world.environ, {}))


def say(word: str, *rest: object) -> None:
    """One line in one write, so that a child that is killed leaves whole lines only."""
    os.write(1, (" ".join(map(str, (word, *rest))) + "\n").encode())


def acknowledge(appended: Appended) -> None:
    """Say that an entry is durable; from here it must never be missing."""
    say("acknowledged", appended.index, appended.leaf_hash)


def _refused(error: GovrunError) -> None:
    say("refused", json.dumps([int(error.code), error.rule, error.found, error.effect]))


def refusals(ended: Ended) -> list[list[str]]:
    """[exit code, rule, found, effect] of each refusal that a child told."""
    return [json.loads(line.split(" ", 1)[1]) for line in ended.out.splitlines() if line.startswith("refused ")]


def _append(place: Place) -> None:
    try:
        with ground_of(place) as ground:
            try:
                for n in (1, 2):
                    acknowledge(ground.writer.append([denied(n)], salts=[b"s" * 32])[0])
            except GovrunError as error:
                _refused(error)
    except GovrunError as error:
        _refused(error)


def judge_append(place: Place, ended: Ended, before: int) -> list[str]:
    told = refusals(ended)
    size = place.size
    acknowledged = ended.out.count("acknowledged ")
    broken = []
    if ended.code not in (0, -9):
        broken.append(f"ended with {ended.code}: {ended.err[-200:]}")
    elif ended.code == 0 and not told and acknowledged != 2:
        broken.append("neither acknowledged nor refused")
    if any(not (rule and (found or effect)) for _, rule, found, effect in told):
        broken.append(f"refused without a reason: {told}")
    unknown = ended.code == -9 or any((effect or "").startswith("unknown") for *_, effect in told)
    if not (before + acknowledged <= size <= before + acknowledged + unknown):
        broken.append(f"{size - before} entries appended, {acknowledged} acknowledged, told: {told}")
    return broken


def _run(place: Place) -> None:
    from govrun.cli import main

    os.chdir(place.work)
    sys.argv = ["govrun", "run", "--backend", "process", "--", *COMMAND]
    main()


def _judge_run(place: Place, ended: Ended, before: int) -> list[str]:
    kinds = place.kinds()[before:]
    ran = place.runs
    broken = []
    if ran and "intent" not in kinds:
        broken.append("it ran without an intent in the ledger")
    if ended.out and "outcome" not in kinds:
        broken.append("the output was given before the outcome was durable")
    if ended.code == -9:
        return broken
    if ended.code == 0:
        if (ran, kinds[-1:], ended.out) != (1, ["outcome"], "done\n"):
            broken.append(f"success with {ran} runs, {kinds}, {ended.out!r}")
    elif ended.code in (15, 16):
        if ran or "nothing was executed" not in ended.err:
            broken.append(f"exit {ended.code} after {ran} runs: {ended.err}")
    elif 30 <= ended.code <= 33:
        kept = "is kept in pending/" in ended.err
        held = len([name for name in place.leftovers() if name.startswith("pending/") and name.endswith(".json")])
        told = kept or "its outcome is lost" in ended.err
        if not ran or ended.out or not told or held != int(kept):
            broken.append(f"exit {ended.code}, {ran} runs, {held} kept: {ended.err}")
    else:
        broken.append(f"exit {ended.code}: {ended.err[-300:]}")
    if ended.code and "[" not in ended.err:
        broken.append(f"exit {ended.code} without a reason")
    return broken


REFUSED = 11


def _leave_work(place: Place) -> None:
    """An intent whose process is gone, an outcome that could not be appended, and refusals of two minutes ago."""
    world = real_world(place.environ)
    then_ms = world.now_ms() - 120_000
    for _ in range(REFUSED):
        with contextlib.suppress(GovrunError):
            place.call(argv=COMMAND, ok_exit=(999,), world=evolve(world, now_ms=lambda: then_ms))
    with ground_of(place) as ground:
        writer = ground.writer
        writer.append([intent(invocation(1))])
        held = lease.acquire(writer.store.directory / lease.LEASES_DIRECTORY, invocation(2))
        (announced,) = writer.append([intent(invocation(2))])
        (writer.store.directory / pending.PENDING_DIRECTORY).mkdir(0o700)
        pending.keep(writer.store.directory / pending.PENDING_DIRECTORY, held, outcome_of(invocation(2), announced))
        held.release()


def _recover(place: Place) -> None:
    try:
        with ground_of(place) as ground:
            recover(ground)
            say("recovered")
    except GovrunError as error:
        _refused(error)


def _judge_recover(place: Place, ended: Ended, before: int) -> list[str]:
    told = refusals(ended)
    kinds = place.kinds()[before:]
    if ended.code not in (0, -9):
        return [f"ended with {ended.code}: {ended.err[-200:]}"]
    # Refusals that cannot be looked for now wait for the next start.
    if "recovered" in ended.out and sorted(kinds) not in (["denied", "gap", "outcome"], ["gap", "outcome"]):
        return [f"recovered, and appended {kinds}"]
    if ended.code == 0 and "recovered" not in ended.out and [code for code, *_ in told] != [15]:
        return [f"neither recovered nor refused: {told}"]
    return []


def _count_refusals(place: Place) -> list[str]:
    told = sum(entry.predicate["count"] for entry in place.entries() if entry.kind == "denied")
    return [] if told == REFUSED else [f"{told} refusals are told of {REFUSED}"]


SCENES = (
    Scene("append", lambda place: None, _append, judge_append),
    Scene("run", lambda place: None, _run, _judge_run),
    Scene("recovery", _leave_work, _recover, _judge_recover, _count_refusals),
)
