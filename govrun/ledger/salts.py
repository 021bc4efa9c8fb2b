"""The salts of commitments, in one file beside the ledger: 32 bytes at 32 * index for the receipt at index.

Salts are never part of the ledger, so erasing one takes away what could be disclosed and breaks no proof. Zeros mean
that there is none, or none any more. Writing is not synced: what a power loss can take is only the ability to
disclose, never an entry, and an outcome must not wait for a second disk write. Erasing is synced.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from govrun.digest import SALT_BYTES
from govrun.errors import ExitCode, GovrunError

SALTS_FILE: Final = "salts"

_NONE: Final = bytes(SALT_BYTES)


def check_salt(salt: bytes | None) -> None:
    """Return if this can be kept as a receipt's salt, 32 bytes that are not all zeros; else receipt-invalid."""
    if salt is not None and (len(salt) != SALT_BYTES or salt == _NONE):
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "salt.form",
            "this cannot be a salt",
            found=f"{len(salt)} bytes, or zeros",
            expected=f"{SALT_BYTES} random bytes",
        )


class Salts:
    """The file of salts of one ledger; made, with mode 0600, when the first salt is written.

    Errors are GovrunError (ledger-unavailable).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, index: int, salts: Sequence[bytes | None]) -> None:
        """Keep the salts of the receipts that are about to stand from index on, each as `check_salt` wants it.

        None clears what an append that never was committed may have left there.
        """
        if all(salt is None for salt in salts) and self._size() <= index * SALT_BYTES:
            return
        self._write(index, b"".join(salt or _NONE for salt in salts), sync=False)

    def read(self, index: int) -> bytes | None:
        """The salt of the receipt at index, None if it has none or it was erased."""
        if self._size() <= index * SALT_BYTES:
            return None
        descriptor = self._open(os.O_RDONLY)
        try:
            salt = os.pread(descriptor, SALT_BYTES, index * SALT_BYTES)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            os.close(descriptor)
        return salt if len(salt) == SALT_BYTES and salt != _NONE else None

    def erase(self, index: int) -> None:
        """Put zeros in the place of a salt, durable when this returns; nothing can be disclosed of it any more."""
        if self._size() > index * SALT_BYTES:
            self._write(index, _NONE, sync=True)

    def _size(self) -> int:
        try:
            return os.lstat(self._path).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise self._unusable(error) from error

    def _write(self, index: int, data: bytes, *, sync: bool) -> None:
        descriptor = self._open(os.O_RDWR | os.O_CREAT)
        try:
            try:
                if os.pwrite(descriptor, data, index * SALT_BYTES) != len(data):
                    raise OSError(errno.ENOSPC, "short write")
                if sync:
                    os.fsync(descriptor)
            finally:
                # Some file systems say only now that there was no room.
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error) from error

    def _open(self, flags: int) -> int:
        try:
            descriptor = os.open(self._path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            status = os.fstat(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise self._unusable(error) from error
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            os.close(descriptor)
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "salts.permissions",
                "the file of salts is open to others, or not ours",
                found=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
                expected=f"a regular file, mode 0600, user {os.geteuid()}",
                fix=f"chmod 600 {self._path.name}, and consider what it protects disclosed",
            )
        return descriptor

    def _unusable(self, error: OSError) -> GovrunError:
        return GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "salts.unusable",
            "the file of salts cannot be used",
            found=os.strerror(error.errno or 0),
            expected="a file that its owner can read and write",
        )
