"""SIGINT, SIGTERM, SIGHUP and SIGKILL at every stage of an invocation, each stage held open by real means."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from govrun.execute import sandbox
from tests.e2e.place import Place, finish, processes_below, until

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Hold the ledger's lock, as another writer would: whoever appends waits."""
    descriptor = os.open(place.home / "ledger.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_intent_ends_govrun_by_that_signal(place: Place, number: int) -> None:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    os.mkfifo(place.work / "wait-here")
    child = place.start("run", "--backend", "hostile", "--prompt", "x", env={"HOSTILE": "check-waits"})
    until((place.work / "reached").exists, "the check is asked")
    child.send_signal(number)
    done = finish(child)
    assert (-number, b"", "") == (done.code, done.out, done.err)
    assert (0, 1, []) == (place.runs, place.size, place.leftovers())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_between_intent_and_launch_is_told_by_an_outcome_without_a_child(place: Place, number: int) -> None:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    os.mkfifo(place.work / "wait-here")
    child = place.start("run", "--backend", "hostile", "--prompt", "x", env={"HOSTILE": "check-waits"})
    until((place.work / "reached").exists, "the check is asked, and the ledger is open")
    with locked(place):
        (place.work / "wait-here").write_bytes(b"")
        until(lambda: list((place.home / "leases").glob("*")), "the lease is taken, and the ledger's lock awaited")
        child.send_signal(number)
    done = finish(child)
    assert 23 == done.code
    assert "[run.interruptedBeforeLaunch]" in done.err
    assert "nothing was started; outcome recorded as entry 3" in done.err
    assert ["genesis", "policyAdopted", "intent", "outcome"] == place.kinds()
    outcome = place.last("outcome")
    assert ("interrupted", None, None) == (outcome["status"], outcome["byproducts"], outcome["containment"])
    assert (0, []) == (place.runs, place.leftovers())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_child_runs_ends_it_and_all_it_started(place: Place, number: int) -> None:
    script = "sleep 300 & (trap '' INT HUP; sleep 300) & echo x >started; wait"
    child = place.start("run", "--backend", "process", "--json", "--", "/bin/sh", "-c", script)
    until((place.work / "started").exists, "the child runs")
    child.send_signal(number)
    done = finish(child)
    assert (23, "run.interrupted") == (done.code, done.json["error"]["rule"])
    assert "it ran; outcome recorded as entry 2" == done.json["error"]["effect"]
    assert ("interrupted", "run.interrupted") == (
        place.last("outcome")["status"],
        place.last("outcome")["error"]["code"],
    )
    assert [] == processes_below(place.root)
    assert [] == place.leftovers()


def test_a_child_that_ignores_sigterm_is_killed(place: Place) -> None:
    script = "trap '' TERM; echo x >started; while :; do sleep 1; done"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script)
    until((place.work / "started").exists, "the child runs")
    child.send_signal(signal.SIGINT)
    assert 23 == finish(child).code
    assert [] == processes_below(place.root)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_outcome_is_written_changes_nothing(place: Place, number: int) -> None:
    script = "echo x >started; while ! test -e go-on; do sleep 0.01; done; echo done"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script)
    until((place.work / "started").exists, "the child runs")
    with locked(place):
        (place.work / "go-on").touch()
        until(lambda: len(processes_below(place.work)) == 1, "only govrun is left, and waits for the lock")
        child.send_signal(number)
    done = finish(child)
    assert (0, b"done\n", "") == (done.code, done.out, done.err)
    assert "succeeded" == place.last("outcome")["status"]


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(place: Place) -> None:
    """As for a job that a shell started in the background, or under nohup."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    script = "echo x >started; while ! test -e go-on; do sleep 0.01; done; echo done"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script, preexec_fn=ignore)
    until((place.work / "started").exists, "the child runs")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGHUP)
    (place.work / "go-on").touch()
    assert (0, b"done\n") == (finish(child).code, b"done\n")
    assert "succeeded" == place.last("outcome")["status"]


def test_a_terminal_that_goes_away_does_not_end_a_run(place: Place) -> None:
    """SIGPIPE: the reader of stderr is gone while the child still speaks."""
    reader, writer = os.pipe()
    script = "echo x >started; while ! test -e go-on; do sleep 0.01; done; echo many words >&2; echo done"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script, stderr=writer)
    os.close(writer)
    until((place.work / "started").exists, "the child runs")
    os.close(reader)
    (place.work / "go-on").touch()
    assert (0, b"done\n") == (finish(child).code, b"done\n")
    assert "succeeded" == place.last("outcome")["status"]


def test_a_reader_that_stops_reading_stderr_suspends_no_time_limit(place: Place) -> None:
    reader, writer = os.pipe()
    words = ("run", "--backend", "process", "--timeout", "1", "--", "/bin/sh", "-c")
    script = "head -c 500000 /dev/zero | tr '\\0' x >&2; sleep 300"
    child = place.start(*words, script, stderr=writer)
    os.close(writer)
    until(lambda: "outcome" in place.kinds(), "the outcome is durable though nobody reads")
    with os.fdopen(reader, "rb") as stderr:
        said = stderr.read()
    assert 21 == finish(child).code
    assert (b"x" * 500000, True) == (said[:500000], b"[limit.wall]" in said[500000:])


def test_nothing_survives_govrun_killed_with_9_and_its_intent_gets_one_gap(place: Place) -> None:
    if not sandbox.bubblewrap_works():
        pytest.skip("SKIPPED ALOUD: without bubblewrap what left its session may survive a kill -9")
    script = "(setsid sleep 300 &) ; echo x >started; sleep 300"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script)
    until((place.work / "started").exists, "the child runs")
    until(lambda: len(processes_below(place.work)) >= 4, "all of it runs")
    child.kill()
    assert -9 == finish(child).code
    until(lambda: processes_below(place.root) == [], "nothing of it is left")
    assert ["genesis", "intent"] == place.kinds()
    for _ in range(2):
        assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["genesis", "intent", "gap", *("intent", "outcome") * 2] == place.kinds()
    gap = place.last("gap")
    assert ("orphaned", 1) == (gap["reason"], gap["intent"]["index"])
    assert [] == place.leftovers()


def test_a_run_that_is_still_running_is_not_orphaned_by_another(place: Place) -> None:
    script = "echo x >started; while ! test -e go-on; do sleep 0.01; done"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script)
    until((place.work / "started").exists, "the child runs")
    assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["genesis", "intent", "intent", "outcome"] == place.kinds()
    (place.work / "go-on").touch()
    assert 0 == finish(child).code
    assert ["genesis", "intent", "intent", "outcome", "outcome"] == place.kinds()


def test_a_program_that_embeds_govrun_keeps_its_own_ctrl_c_and_the_outcome_tells(place: Place) -> None:
    script = "echo x >started; sleep 300"
    program = f"import govrun; govrun.run(backend='process', argv=('/bin/sh', '-c', {script!r}))"
    child = subprocess.Popen(
        [sys.executable, "-c", program], env=place.environ, cwd=place.work, stdout=-1, stderr=subprocess.PIPE
    )
    until((place.work / "started").exists, "the child runs")
    child.send_signal(signal.SIGINT)
    done = finish(child)
    assert (-2, True) == (done.code, done.err.rstrip().endswith("KeyboardInterrupt"))
    outcome = place.last("outcome")
    assert ("interrupted", "run.interrupted") == (outcome["status"], outcome["error"]["code"])
    assert [] == processes_below(place.root)
    assert [] == place.leftovers()
