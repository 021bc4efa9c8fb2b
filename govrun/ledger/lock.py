"""An flock that is waited for no longer than a deadline.

The kernel lets go of an flock when its holder dies, so nothing stale is ever left to clean up. A holder that is
stopped (SIGSTOP) keeps it: whoever waits gives up at the deadline.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from govrun.world import World

_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.016


def open_lock_file(path: Path) -> int:
    """A descriptor of the file, made with mode 0600 if there is none; never a link, not inherited. OSError else."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, operation: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def lock_within(descriptor: int, world: World, wait_ms: int, operation: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock could be had before wait_ms milliseconds of the world's monotonic clock were over."""
    # Asking again and again instead of an alarm: signals belong to the program, and threads cannot use them.
    deadline = world.monotonic_ns() + wait_ms * 1_000_000
    pause = _FIRST_PAUSE_S
    while not try_lock(descriptor, operation):
        if world.monotonic_ns() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
    return True


def unlock(descriptor: int) -> None:
    """Let the next one have the lock; closing the descriptor does it too."""
    # What was done under the lock is done. Should the system refuse, others wait until the descriptor is closed.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether path still names the open file; a lock on a file that was replaced keeps nobody out."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), named)
