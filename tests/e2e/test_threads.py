"""Many threads of one program run through one open ledger: each run as if it were alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import govrun
from govrun.errors import ExitCode, GovrunError
from govrun.filecache import MIN_CACHED_BYTES
from govrun.invoke import Ground
from govrun.world import real_world
from tests.e2e.place import Place, processes_below, until

pytestmark = pytest.mark.threads

# A program that runs commands from 16 threads until it is killed, and says each run that was acknowledged.
PROGRAM = """
import itertools, os, sys, threading, govrun

def work():
    while True:
        done = govrun.run(backend="process", argv=("/bin/true",), ground=ground)
        os.write(1, b"%d %d\\n" % (done.intent_index, done.outcome_index))

with govrun.open_shared() as ground:
    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def shared(place: Place) -> AbstractContextManager[Ground]:
    return govrun.open_shared(home=str(place.home), cwd=str(place.work), world=real_world(place.environ))


@pytest.fixture
def ground(place: Place) -> Iterator[Ground]:
    with shared(place) as opened:
        yield opened


def call(place: Place, ground: Ground, *argv: str, **wanted: str | tuple[str, ...]) -> govrun.Result:
    return place.call(argv=argv, world=None, ground=ground, **wanted)


def test_64_threads_run_at_once_with_a_receipt_for_each(place: Place) -> None:
    with shared(place) as ground, ThreadPoolExecutor(64) as pool:
        done = list(pool.map(lambda n: call(place, ground, "/bin/echo", str(n)), range(64)))
    assert [b"%d\n" % n for n in range(64)] == [one.text for one in done]
    entries = place.entries()
    assert {"genesis": 1, "intent": 64, "outcome": 64} == Counter(entry.kind for entry in entries)
    for one in done:
        about = entries[one.outcome_index].predicate["intent"]["index"]
        ids = {entries[n].predicate["invocationId"] for n in (one.intent_index, one.outcome_index)}
        assert (one.intent_index, {one.invocation_id}) == (about, ids)
    assert [] == place.leftovers()


def test_one_request_id_in_many_threads_is_one_run(place: Place, ground: Ground) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: call(place, ground, *place.mark, request_id="r1"), range(8)))
    assert 1 == place.runs
    assert [False] + [True] * 7 == sorted(one.repeated for one in done)
    assert 1 == len({one.outcome_index for one in done})
    assert ["genesis", "intent", "outcome"] == place.kinds()


def test_refusals_of_many_threads_are_recorded_or_counted_and_hurt_no_run(place: Place, ground: Ground) -> None:
    def one(n: int) -> tuple[ExitCode, str]:
        try:
            return call(place, ground, *(("/bin/true",) if n % 2 else ("no-such-program",))).exit, ""
        except GovrunError as error:
            return error.code, str(error.effect)

    with ThreadPoolExecutor(32) as pool:
        told = list(pool.map(one, range(32)))
    codes = Counter(code for code, _ in told)
    assert all(effect.startswith("nothing was executed; refusal ") for code, effect in told if code)
    assert 16 == codes[ExitCode.SUCCESS]
    assert 16 == sum(codes.values()) - codes[ExitCode.SUCCESS]
    counted = sum(entry.predicate["count"] for entry in place.entries() if entry.kind == "denied")
    assert 1 <= counted <= 16
    assert 16 == sum(1 for entry in place.entries() if entry.kind == "outcome")


def test_a_policy_that_changes_while_a_ground_is_open_holds_from_then_on(place: Place, ground: Ground) -> None:
    assert ExitCode.SUCCESS == call(place, ground, "/bin/true").exit
    place.policy("[backends.bitnet]\n")
    with pytest.raises(GovrunError) as caught:
        call(place, ground, *place.mark)
    assert (ExitCode.POLICY_DENIED, 0) == (caught.value.code, place.runs)
    place.policy("# again\n[backends.process]\nfreeArgv = true\n")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: call(place, ground, "/bin/true"), range(8)))
    assert {ExitCode.SUCCESS} == {one.exit for one in done}
    assert 1 == place.kinds().count("policyAdopted")


def test_threads_that_read_the_same_large_file_all_announce_its_digest(place: Place, ground: Ground) -> None:
    (place.work / "large").write_bytes(os.urandom(MIN_CACHED_BYTES))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(place, ground, "/bin/true", inputs=("large",)), range(8)))
    digests = [entry.predicate["inputs"][0]["sha256"] for entry in place.entries() if entry.kind == "intent"]
    assert (8, 1) == (len(digests), len(set(digests)))


def test_a_ground_has_its_own_home_and_world(place: Place, ground: Ground) -> None:
    with pytest.raises(TypeError):
        govrun.run(backend="process", argv=("/bin/true",), home=str(place.home), ground=ground)
    with pytest.raises(GovrunError) as caught:
        govrun.run(argv=("/bin/true",), cwd=str(place.work), ground=ground)
    assert "request.backend" == caught.value.rule


def test_a_closed_ground_runs_nothing(place: Place) -> None:
    with shared(place) as ground:
        pass
    with pytest.raises(GovrunError) as caught:
        call(place, ground, *place.mark)
    assert (ExitCode.LEDGER_UNAVAILABLE, "ledger.closed") == (caught.value.code, caught.value.rule)
    assert (0, 1) == (place.runs, place.size)


def test_without_a_home_nothing_is_opened(bare: Place) -> None:
    with pytest.raises(GovrunError) as caught, shared(bare):
        pass
    assert 10 <= caught.value.code <= 16


def test_a_program_with_threads_that_is_killed_loses_no_acknowledged_run(place: Place, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as out:
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=place.work,
            stdout=out,
            env={**place.environ, "GOVRUN_HOME": str(place.home)},
        )
    until(lambda: said.read_bytes().count(b"\n") >= 20, "twenty runs are acknowledged")
    os.kill(program.pid, signal.SIGKILL)
    program.wait(30)
    acknowledged = [tuple(map(int, line.split())) for line in said.read_text().splitlines()]
    until(lambda: not processes_below(place.root), "what it ran is gone")
    assert 0 == place.run("--", "/bin/true").code
    entries = place.entries()
    for intent, outcome in acknowledged:
        assert ("intent", "outcome") == (entries[intent].kind, entries[outcome].kind)
        assert intent == entries[outcome].predicate["intent"]["index"]
    # Every intent has an end: its outcome, or the gap that says that nobody knows.
    counted = Counter(entry.kind for entry in entries)
    assert counted["intent"] == counted["outcome"] + counted["gap"]
