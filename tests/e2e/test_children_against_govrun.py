"""Children that signal whoever started them: in a namespace they reach nobody, in a group their end is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from govrun.execute import sandbox
from tests.e2e.place import Done, Place, finish, processes_below, until

# Hides bubblewrap from one govrun, in a mount namespace of its own.
HIDE = 'mount --bind /dev/null "$0" && exec "$@"'
# The parent of a child is its keeper, whose parent is govrun.
KEEPER = "$PPID"
GOVRUN = "$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)"


def run_in_group(place: Place, script: str) -> Done:
    """`govrun run` of a shell script on a machine without bubblewrap."""
    bubblewrap = sandbox.locate()
    command = [sys.executable, "-m", "govrun", "run", "--backend", "process", "--", "/bin/sh", "-c", script]
    if bubblewrap is not None:
        if os.geteuid() or shutil.which("unshare") is None:
            pytest.skip("SKIPPED ALOUD: bubblewrap is here, and only root can hide it from one process")
        command = ["unshare", "-m", "/bin/sh", "-c", HIDE, bubblewrap, *command]
    child = subprocess.Popen(
        command,
        env=place.environ,
        cwd=place.work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    return finish(child)


def test_in_a_namespace_a_child_finds_nobody_to_kill(place: Place) -> None:
    if not sandbox.bubblewrap_works():
        pytest.skip("SKIPPED ALOUD: without bubblewrap there is no namespace")
    script = "kill -9 $PPID; kill -9 1; kill -9 -1; echo still here"
    done = place.run("--", "/bin/sh", "-c", script)
    # In its namespace it is alone; what it kills is itself or what holds it, and that is told.
    assert "outcome" == place.kinds()[-1], done.err
    assert "pidNamespace" == place.last("outcome")["containment"]["level"]
    assert done.code in (0, 20), done.err
    assert [] == place.leftovers()


def test_in_a_group_a_child_that_kills_its_keeper_is_gone_and_told(place: Place) -> None:
    done = run_in_group(place, f"kill -9 {KEEPER}; exec sleep 300")
    assert 20 == done.code, done.err
    outcome = place.last("outcome")
    assert ("group", "failed") == (outcome["containment"]["level"], outcome["status"])
    until(lambda: processes_below(place.work) == [], "nothing of it is left")
    assert [] == place.leftovers()


def test_in_a_group_a_child_that_stops_its_keeper_ends_at_its_time_limit(place: Place) -> None:
    place.policy("[limits]\nwallMs = 500\n[backends.process]\nfreeArgv = true\n")
    done = run_in_group(place, f"kill -STOP {KEEPER}; sleep 300")
    assert 21 == done.code, done.err
    until(lambda: processes_below(place.work) == [], "nothing of it is left")
    assert [] == place.leftovers()


def test_in_a_group_a_child_that_asks_govrun_to_end_is_ended_and_told(place: Place) -> None:
    done = run_in_group(place, f"kill -TERM {GOVRUN}; sleep 300")
    assert 23 == done.code, done.err
    assert "interrupted" == place.last("outcome")["status"]
    assert [] == place.leftovers()


def test_in_a_group_a_child_that_kills_govrun_dies_with_it_and_leaves_one_gap(place: Place) -> None:
    done = run_in_group(place, f"kill -9 {GOVRUN}; sleep 300")
    assert -signal.SIGKILL == done.code, done.err
    until(lambda: processes_below(place.work) == [], "nothing of it is left")
    assert 0 == place.call(argv=("/bin/true",)).exit
    assert ["intent", "gap", "intent", "outcome"] == place.kinds()[-4:]
    assert "orphaned" == place.last("gap")["reason"]
