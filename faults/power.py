"""A power loss after every call that changed a file: what was acknowledged by then is there, and the rest does no harm.

The work is traced once with every byte that it wrote. For each instant the disk is built as it may be found again: with
what was synced and nothing else, and, several times, with some of what was not. The next start then has to settle it.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
from pathlib import Path
from typing import NamedTuple

from faults import judge, scenes, trace
from faults.disk import Disk
from faults.report import Progress, Row
from faults.scenes import Scene, ground_of, say
from govrun.audit.trust import trusted_by
from govrun.audit.verify import verify_ledger
from govrun.home import load_trust
from govrun.ledger.pending import PENDING_DIRECTORY, keep, read_pending
from govrun.ledger.read import open_ledger
from tests.e2e.place import Place
from tests.ledger.ledger_world import denied, intent, invocation, outcome_of

_CHANGING = (
    "pwrite64",
    "write",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "openat",
)


class Loss(NamedTuple):
    """The power fails after so many lines of a scene's trace, and leaves one kind of what was not synced.

    seed chooses the part of it that stays, where a random part does.
    """

    scene: int
    after: int
    left: str
    seed: int


LEFT = ("nothing", "the names", "a random part")


def _fill(place: Place) -> None:
    # So many that one of the appends to come folds the write-ahead log.
    with ground_of(place) as ground:
        ground.writer.append([denied(n + 1) for n in range(58)])


def _appends(place: Place) -> None:
    with ground_of(place) as ground:
        for n in range(10):
            scenes.acknowledge(ground.writer.append([denied(n + 1)], salts=[b"s" * 32])[0])


def _keeps(place: Place) -> None:
    with ground_of(place) as ground:
        store = ground.writer.store
        with store.leases.acquire(invocation(1)) as held:
            (announced,) = ground.writer.append([intent(invocation(1))])
            scenes.acknowledge(announced)
            keep(store.directory / PENDING_DIRECTORY, held, outcome_of(invocation(1), announced))
            say("kept")


def _judge_kept(place: Place, ended: trace.Ended, before: int) -> list[str]:
    kept = read_pending(place.home / PENDING_DIRECTORY, invocation(1))
    return ["the kept outcome is gone"] if "kept" in ended.out and kept is None else []


def _published(place: Place) -> None:
    with ground_of(place) as ground:
        for n in range(5):
            ground.writer.append([denied(n * 40 + m + 1) for m in range(40)])
    scenes.published(place)


def _publishes(place: Place) -> None:
    with ground_of(place) as ground:
        # So many that a tile becomes full, and what was published of it in part is removed.
        scenes.acknowledge(ground.writer.append([denied(n) for n in range(1, 61)])[-1])
    scenes.published(place)
    say("published")


def _judge_published(place: Place, ended: trace.Ended, before: int) -> list[str]:
    reader = open_ledger(str(place.root / "public"))
    try:
        [trust] = (place.root / "config" / "govrun" / "trust").glob("*.toml")
        report = verify_ledger(reader, trusted_by(load_trust(trust)))
    finally:
        reader.close()
    broken = [] if (report.integrity, int(report.exit_code)) == ("intact", 0) else [f"published: {report.findings[:1]}"]
    expected = before + 60 if "published" in ended.out else before
    return broken if report.size >= expected else [*broken, f"{report.size} entries published, expected {expected}"]


SCENES = (
    Scene("append", _fill, _appends, scenes.judge_append),
    Scene("pending", lambda place: None, _keeps, _judge_kept),
    Scene("publish", _published, _publishes, _judge_published),
)
MUST_HOLD = {
    "append": "acknowledged means present",
    "pending": "a kept outcome is there",
    "publish": "the published form verifies at one of its checkpoints",
}

_shared: tuple[Path, judge.Judge, list[list[str]]] | None = None
# By scene: a disk, how many lines of the trace it has played, and what was said by then.
_played: dict[int, tuple[Disk | None, int, str]] = {}


def rows(directory: Path, sample: int | None, seed: int, jobs: int, program: judge.Judge) -> list[Row]:
    """Lose the power at every instant, or at some that seed chooses, and with nothing unsynced at each answer."""
    global _shared  # noqa: PLW0603 - inherited by the processes of the pool
    traces: list[list[str]] = []
    losses: list[Loss] = []
    for number, scene in enumerate(SCENES):
        template = directory / f"power-{scene.name}"
        scenes.prepare(scene, template)
        lines = _trace(scene, template, directory)
        traces.append(lines)
        losses += _instants(number, lines, sample, seed)
    _shared = directory, program, traces
    progress = Progress("power losses", len(losses))
    found: list[tuple[Loss, scenes.Verdict]] = []
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for one in pool.imap_unordered(_lose, sorted(losses, key=lambda one: one[:2]), chunksize=8):
            found.append(one)
            progress.step()
    progress.end()
    return [_row(found, number, left) for number in range(len(SCENES)) for left in LEFT]


def _trace(scene: Scene, template: Path, directory: Path) -> list[str]:
    # The template itself: what the trace says of its paths is played over the copy that was kept of it.
    kept = directory / f"{template.name}-kept"
    shutil.copytree(template, kept)
    place = scenes.place_at(template)
    ended = trace.run(lambda: scene.work(place), directory / "power.log", environ=place.environ, whole=True)
    if ended.code:
        raise AssertionError(f"{scene.name} without a fault: {ended.code} {ended.err}")
    shutil.rmtree(template)
    kept.rename(template)
    return ended.lines


def _instants(number: int, lines: list[str], sample: int | None, seed: int) -> list[Loss]:
    chance = random.Random(seed)  # noqa: S311 - instants, not secrets
    calls = [n for n, line in enumerate(lines, 1) if line.partition("(")[0] in _CHANGING]
    answers = {n for n in calls if lines[n - 1].startswith("write(1<")}
    # What is durable at the least changes with a sync only, and what must be durable with an answer only.
    least = [n for n in calls if "sync(" in lines[n - 1] or n in answers]
    named = [n for n in calls if lines[n - 1].startswith(("rename", "unlink", "rmdir"))]
    some = calls if sample is None else chance.sample(calls, min(sample, len(calls)))
    instants = zip(LEFT, (least, named, some), strict=True)
    return [Loss(number, n, left, chance.getrandbits(32)) for left, chosen in instants for n in chosen]


def _lose(loss: Loss) -> tuple[Loss, scenes.Verdict]:
    assert _shared is not None
    directory, program, traces = _shared
    scene = SCENES[loss.scene]
    disk, said = _disk_after(loss, directory / f"power-{scene.name}", traces[loss.scene])
    root = directory / f"{scene.name}-{loss.after}-{loss.seed}"
    chance = random.Random(loss.seed)  # noqa: S311 - chance, not a secret
    disk.crash(root, None if loss.left == "nothing" else chance, names_only=loss.left == "the names")
    verdict = scenes.settle(scene, scenes.place_at(root), trace.Ended(-9, said, "", []), program)
    return loss, verdict


def _disk_after(loss: Loss, template: Path, lines: list[str]) -> tuple[Disk, str]:
    """The disk of this process, played on to an instant, and what was said by then."""
    disk, at, said = _played.get(loss.scene, (None, 0, ""))
    if disk is None or at > loss.after:
        disk, at, said = Disk(template), 0, ""
    said += "".join(disk.play(line) or "" for line in lines[at : loss.after])
    _played[loss.scene] = disk, loss.after, said
    return disk, said


def _row(found: list[tuple[Loss, scenes.Verdict]], number: int, left: str) -> Row:
    mine = [(loss, verdict) for loss, verdict in found if (loss.scene, loss.left) == (number, left)]
    broken = [f"{json.dumps(loss)}: {words}" for loss, verdict in mine for words in verdict.broken]
    return Row(
        fault=f"power loss that leaves {left} of what is not synced",
        during=SCENES[number].name,
        times=len(mine),
        acknowledged=sum(verdict.acknowledged for _, verdict in mine),
        lost=sum("acknowledged and is not there" in words for words in broken),
        must_hold=MUST_HOLD[SCENES[number].name],
        broken=tuple(broken),
    )
