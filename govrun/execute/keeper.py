"""The process between govrun and its child: every descendant is its descendant, and none outlives it.

govrun could be the subreaper itself. It is not: a program that embeds govrun has children of its own, and two runs may
overlap, and an orphan does not show whose it was. Below a keeper there is only one run, so "ours" needs no guess, the
keeper reaps nothing else, and when govrun is killed the keeper is told and ends everything.

The keeper is a fork of govrun that never executes another program, so it costs one fork. It imports nothing, takes no
lock, and keeps every signal blocked: it waits for signals one at a time, so no race between handlers exists. govrun
speaks to it by signals, it answers in lines on a pipe.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Final, NoReturn

from govrun.execute import family
from govrun.frozen import evolve, frozen

TERMINATE: Final = signal.SIGTERM  # ask the leader's group to end
KILL: Final = signal.SIGUSR1  # end everything; the kernel sends it too when govrun is gone

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_SIGNALS: Final = tuple(n for n in range(1, signal.NSIG) if n not in (signal.SIGKILL, signal.SIGSTOP, 32, 33))


@frozen
class Orders:
    """Everything the keeper and its leader need, made before the fork.

    argv: program first, absolute. placed: (descriptor here, number there) pairs; the leader has these and no others.
    limits: (resource, soft, hard). report: where the keeper writes. inner: the leader is bubblewrap, and the group to
    ask to end is the one of its child.
    """

    argv: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    cwd: bytes
    placed: tuple[tuple[int, int], ...]
    limits: tuple[tuple[int, int, int], ...]
    report: int
    inner: bool


@frozen
class Told:
    """What the keeper has reported so far; None for what it has not.

    errno: why the program could not be executed. status: the leader's wait status. leftovers: processes that outlived
    the leader and were killed. cpu_us and max_rss_bytes: of all descendants; the latter None where it would only show
    the size of govrun.
    """

    errno: int | None = None
    status: int | None = None
    finished: bool = False
    leftovers: int = 0
    cpu_us: int | None = None
    max_rss_bytes: int | None = None


def parse_report(data: bytes) -> Told:
    """What the whole lines of a report say; a line that is not finished yet says nothing."""
    told = Told()
    for line in data.split(b"\n")[:-1]:
        word, *numbers = line.split()
        values = [int(number) for number in numbers]
        if word == b"errno":
            told = evolve(told, errno=values[0])
        elif word == b"status":
            told = evolve(told, status=values[0])
        else:
            leftovers, cpu_us, rss = values
            told = evolve(
                told, finished=True, leftovers=leftovers, cpu_us=cpu_us, max_rss_bytes=rss if rss > 0 else None
            )
    return told


def start(orders: Orders) -> int:
    """Fork the keeper and return its pid. Raises OSError when no process can be made."""
    prctl = _prctl()
    govrun = os.getpid()
    # A handler of this program must not run in the copy of this program.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _never_return(lambda: _keep(orders, govrun, prctl))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _prctl() -> Callable[[int, int], int]:
    # ctypes takes 2 ms to import, once. The other ways to a parent-death signal are a program between govrun and the
    # child (setpriv), which costs an execve in every run and cannot make a subreaper of the keeper.
    import ctypes

    function: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    return function


def _never_return(work: Callable[[], None]) -> NoReturn:
    # Neither an exception nor a return may let the copy go on as if it were govrun.
    code = 70
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def _keep(orders: Orders, govrun: int, prctl: Callable[[int, int], int]) -> None:
    # A collection would run finalisers of objects that belong to govrun.
    gc.disable()
    os.setsid()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(_PR_SET_PDEATHSIG, KILL)
    if os.getppid() != govrun:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _close_all_but({orders.report, *(source for source, _ in orders.placed)})
    # A fork begins with a copy of this process, which the kernel counts as memory the child once used.
    floor_kb = _resident_kb() + 1024
    keeper = os.getpid()
    try:
        leader = os.fork()
    except OSError as error:
        os.write(orders.report, b"errno %d\nfinished 0 0 0\n" % (error.errno or 0))
        return
    if leader == 0:
        _never_return(lambda: _become(orders, keeper, prctl))
    _close_all_but({orders.report})
    leftovers = _watch_over(leader, orders)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_us = round((used.ru_utime + used.ru_stime) * 1_000_000)
    rss = used.ru_maxrss * 1024 if used.ru_maxrss > floor_kb else 0
    os.write(orders.report, b"finished %d %d %d\n" % (leftovers, cpu_us, rss))


def _become(orders: Orders, keeper: int, prctl: Callable[[int, int], int]) -> None:
    report = orders.report
    try:
        # Above every number that the program is promised, so that no placing overwrites it.
        above = max(number for _, number in orders.placed) + 1
        report = fcntl(report, F_DUPFD_CLOEXEC, above)
        os.setsid()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            return
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(orders.cwd)
        for kind, soft, hard in orders.limits:
            resource.setrlimit(kind, (soft, hard))
        sources = [(fcntl(source, F_DUPFD_CLOEXEC, above), number) for source, number in orders.placed]
        for source, number in sources:
            os.dup2(source, number)
        _close_all_but({report, *(number for _, number in sources)})
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(orders.argv[0], orders.argv, orders.environment)  # noqa: S606 - no shell is the intention
    except (OSError, ValueError) as error:
        # A ValueError is Python's own refusal to ask the kernel: a limit above ours, an environment name with "=".
        os.write(report, b"errno %d\n" % (getattr(error, "errno", None) or EINVAL))


def _watch_over(leader: int, orders: Orders) -> int:
    """Obey and reap until no descendant is left; return how many outlived the leader and had to be killed."""
    gone = ending = False
    leftovers = 0
    while True:
        order = signal.sigwait((signal.SIGCHLD, TERMINATE, KILL))
        if not gone and _has_ended(leader):
            # The leader is not reaped yet, so its group still has its number and nobody else's group can.
            _signal(os.killpg, leader, signal.SIGKILL)
            os.write(orders.report, b"status %d\n" % os.waitpid(leader, 0)[1])
            gone = ending = True
        elif order == TERMINATE and not gone:
            ending = not _ask_to_end(leader, orders.inner)
        elif order == KILL:
            ending = True
        if ending and not gone:
            _signal(os.killpg, leader, signal.SIGKILL)
        killed = _reap(all_but=None if gone else leader)
        if gone:
            # In a pid namespace the kernel ends them all with bubblewrap's own process 1, which is not one of them.
            leftovers += 0 if orders.inner else killed
        if ending and not _kill_children() and gone:
            return leftovers


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _ask_to_end(leader: int, inner: bool) -> bool:
    """SIGTERM to the group that the program leads; False when bubblewrap has not made it yet, so nothing has run."""
    if not inner:
        return _signal(os.killpg, leader, signal.SIGTERM)
    # To end bubblewrap itself would end its child at once, with no grace. Its process 1 leads the session of the
    # program and ignores what it has no handler for.
    return any(_signal(os.killpg, first, signal.SIGTERM) for first in family.children(leader))


def _reap(all_but: int | None) -> int:
    """Wait for every child that has ended; return how many had been killed."""
    killed = 0
    for pid in family.children(os.getpid()):
        if pid == all_but:
            continue
        try:
            _, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return killed


def _kill_children() -> bool:
    """SIGKILL to every child and what is below it; False when there is none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    for pid in family.descendants(os.getpid()):
        _signal(os.kill, pid, signal.SIGKILL)
    return True


def _signal(send: Callable[[int, int], None], target: int, number: int) -> bool:
    # Gone is what was wanted; a program with other rights (setuid) cannot be ended by us, and govrun stops waiting.
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _close_all_but(kept: set[int]) -> None:
    # The numbers are few and known; a loop to the limit on descriptors can be a million calls.
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in kept:
            with suppress(OSError):  # the descriptor of the listing is closed already
                os.close(number)


def _resident_kb() -> int:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024
