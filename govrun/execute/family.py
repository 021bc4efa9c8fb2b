"""Who descends from whom, and what they use together: read from /proc, changing nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

# Field numbers of /proc/PID/stat less 3: what follows the closing parenthesis of the name (proc(5)).
_PARENT: Final = 1
_CPU_FIELDS: Final = slice(11, 15)  # utime, stime, cutime, cstime in clock ticks
_RSS: Final = 21  # pages
_TICK_MS: Final = 1000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")

T = TypeVar("T")


def children(pid: int) -> tuple[int, ...]:
    """The living children of pid, zombies included; may miss some while they come and go, so ask again."""
    if os.path.exists("/proc/thread-self/children"):
        return children_by_list(pid)
    return children_by_scan(pid)


def children_by_list(pid: int) -> tuple[int, ...]:
    """`children`, from the kernel's list of each thread (CONFIG_PROC_CHILDREN): cost grows with this family alone."""
    lists = (_read(f"/proc/{pid}/task/{thread}/children") for thread in _names(f"/proc/{pid}/task"))
    return tuple(int(word) for words in lists for word in words.split())


def children_by_scan(pid: int) -> tuple[int, ...]:
    """`children`, by asking every process who its parent is: for kernels without the list."""
    everybody = (int(name) for name in _names("/proc") if name.isdigit())
    return tuple(other for other in everybody if (fields := _stat(other)) and int(fields[_PARENT]) == pid)


def descendants(pid: int) -> tuple[int, ...]:
    """Everything below pid, nearest first, without pid."""
    found = list(children(pid))
    for child in found:
        found.extend(children(child))
    return tuple(dict.fromkeys(found))


def cpu_ms(pids: tuple[int, ...]) -> int:
    """Milliseconds of CPU time of these processes and of the children that they have waited for."""
    return sum(int(ticks) for pid in pids for ticks in _stat(pid)[_CPU_FIELDS]) * _TICK_MS


def holds_more_than(limit: int, pids: tuple[int, ...]) -> bool:
    """True when these processes together hold more than limit bytes of memory that is theirs alone to fill.

    Pages of files do not count: a mapped model is shared with every other process that reads it. A page that n
    processes share counts once.
    """
    resident = sum(int(fields[_RSS]) for pid in pids if (fields := _stat(pid))) * _PAGE_BYTES
    # The exact answer makes the kernel walk page tables, so it is asked for only when the rough one is too large.
    return resident > limit and sum(_anonymous_bytes(pid) for pid in pids) > limit


def _anonymous_bytes(pid: int) -> int:
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(
        int(line.split()[1]) * 1024 for line in lines if line.startswith((b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:"))
    )


def _stat(pid: int) -> list[bytes]:
    # The name may hold spaces and parentheses; the last parenthesis closes it.
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _names(path: str) -> list[str]:
    return _or_gone(lambda: os.listdir(path), [])


def _read(path: str) -> bytes:
    return _or_gone(lambda: _content(path), b"")


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def _or_gone(ask: Callable[[], T], gone: T) -> T:
    # A process that ends while it is looked at is the normal case, not an error.
    try:
        return ask()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return gone
