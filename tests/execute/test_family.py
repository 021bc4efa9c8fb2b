"""Reading families from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from govrun.execute import family
from tests.execute.children import until


def test_both_ways_to_find_children_agree_and_see_those_of_every_thread() -> None:
    started: list[subprocess.Popen[bytes]] = []
    ready, done = threading.Event(), threading.Event()

    def start() -> None:
        started.append(subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE))
        ready.set()
        done.wait()

    thread = threading.Thread(target=start)
    thread.start()
    ready.wait()
    try:
        assert started[0].pid in family.children(os.getpid())
        assert set(family.children_by_list(os.getpid())) == set(family.children_by_scan(os.getpid()))
    finally:
        done.set()
        thread.join()
        started[0].communicate(b"")


def test_descendants_are_found_at_every_depth() -> None:
    script = "sh -c 'sh -c \"echo ready; read line\" & wait' & wait"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        found = family.descendants(process.pid)
        assert len(found) >= 1
        assert process.pid not in found
    assert family.descendants(process.pid) == ()


def test_cpu_time_counts_children_that_were_waited_for() -> None:
    script = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; echo; read line"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert family.cpu_ms((process.pid,)) >= 20
        process.communicate(b"")


def test_a_page_that_processes_share_counts_once() -> None:
    program = "import os\nx = bytearray(b'x') * (40 << 20)\nif os.fork() == 0: print(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-ISc", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: len(family.descendants(process.pid)) == 1)
        both = (process.pid, *family.descendants(process.pid))
        assert family.holds_more_than(40 << 20, both)
        assert not family.holds_more_than(70 << 20, both)
        process.communicate(b"\n\n")


def test_a_process_that_is_gone_has_and_uses_nothing() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        pass
    assert family.children_by_list(process.pid) == ()
    assert family.cpu_ms((process.pid,)) == 0
    assert not family.holds_more_than(0, (process.pid,))
