"""Leases: a file whose lock says that an invocation is still running, from before its intent until after its outcome.

The kernel lets go of the lock when the process dies, so an open intent whose lease is free is orphaned. The file also
keeps room on the disk: an outcome that cannot be appended because the disk is full still fits into it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lock
from govrun.ledger.place import sync_directory

LEASES_DIRECTORY: Final = "leases"

# An outcome's predicate is at most 32 KiB of canonical JSON; a draft adds its file names and a salt.
RESERVED_BYTES: Final = 65_536

_PAUSES_S: Final = (0.001, 0.01, 0.1)

_INVOCATION_ID = re.compile(r"[0-9a-f]{32}")


class Lease:
    """A held lease; let go of with `release` or when the process ends. Children do not inherit it."""

    def __init__(self, invocation_id: str, path: Path, descriptor: int) -> None:
        self.invocation_id = invocation_id
        # Called once when the lease is let go of, while the file's lock is still held.
        self.on_release: Callable[[], None] | None = None
        self._path = path
        self._descriptor = descriptor

    def keep(self, data: bytes, target: Path) -> None:
        """Write data into the room that the lease reserved and give the file the name target, durable.

        The lock stays held. OSError if the disk fails; then there is no target.
        """
        if os.pwrite(self._descriptor, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(self._descriptor, len(data))
        os.fsync(self._descriptor)
        os.rename(self._path, target)
        for directory in {target.parent, self._path.parent}:
            sync_directory(directory)

    def release(self) -> None:
        """Take the file away and let go of the lock; harmless when done twice."""
        if self._descriptor < 0:
            return
        if self.on_release is not None:
            self.on_release()
        # While the lock is still held: whoever waits for it sees that the file has lost its name.
        with contextlib.suppress(OSError):  # what is left behind is swept by the next writer
            if lock.same_file(self._descriptor, self._path):
                os.unlink(self._path)
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):  # the lock is gone all the same, and nothing was written to lose
            os.close(descriptor)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FileLeases:
    """The leases in one directory of this machine (a `store.Leases`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def acquire(self, invocation_id: str) -> Lease:
        return acquire(self._directory, invocation_id)

    def seize(self, invocation_id: str) -> Lease | None:
        return seize(self._directory, invocation_id)

    def is_held(self, invocation_id: str) -> bool:
        return is_held(self._directory, invocation_id)


def acquire(directory: Path, invocation_id: str) -> Lease:
    """Take the lease of a new invocation and reserve room for its outcome; the directory is made with mode 0700.

    GovrunError (ledger-unavailable): held already (`lease.held`), no room (`lease.full`), or not writable.
    """
    try:
        lease = seize(directory, invocation_id)
        for pause_s in _PAUSES_S:
            # Whoever sweeps may hold it for an instant, between its making and its locking.
            if lease is None:
                time.sleep(pause_s)
                lease = seize(directory, invocation_id)
        if lease is None:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "lease.held",
                "the invocation is running already",
                found=f"lease {invocation_id} is held",
                expected="an invocation id of its own",
            )
        try:
            os.posix_fallocate(lease._descriptor, 0, RESERVED_BYTES)
        except BaseException:
            lease.release()
            raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "lease.full" if full else "lease.unusable",
            "there is no room to keep an outcome" if full else "the lease of the invocation cannot be taken",
            found=os.strerror(error.errno or 0),
            expected=f"room for {RESERVED_BYTES} bytes" if full else "a directory that its owner can write",
            fix="free some space" if full else f"make {directory.name} a directory of your own with mode 0700",
        ) from error
    return lease


def seize(directory: Path, invocation_id: str) -> Lease | None:
    """Take a lease that nobody holds; None if it is held, which means that its invocation is running. OSError."""
    path = _path(directory, invocation_id)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        descriptor = lock.open_lock_file(path)
        if not lock.try_lock(descriptor):
            os.close(descriptor)
            return None
        if lock.same_file(descriptor, path):
            return Lease(invocation_id, path, descriptor)
        # Its holder released it between opening and locking.
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Take away each lease that nobody holds: its process was killed, or its file could not be removed. OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if _INVOCATION_ID.fullmatch(name) and (free := seize(directory, name)) is not None:
            free.release()


def is_held(directory: Path, invocation_id: str) -> bool:
    """Whether somebody holds the lease; changes nothing. OSError if it cannot be looked at."""
    try:
        descriptor = os.open(_path(directory, invocation_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # Shared, so that two who look do not take each other for the holder.
        return not lock.try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _path(directory: Path, invocation_id: str) -> Path:
    if not _INVOCATION_ID.fullmatch(invocation_id):
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "lease.id",
            "this is not an invocation id",
            found=ascii(invocation_id[:64]),
            expected="32 lower-case hex digits",
        )
    return directory / invocation_id
