"""Bounded hashing: files, bytes, and commitments that cannot be guessed."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

CHUNK: Final = 1 << 20
SALT_BYTES: Final = 32


def sha256_hex(data: bytes) -> str:
    """Lower-case hex of the SHA-256 of data."""
    return hashlib.sha256(data).hexdigest()


@frozen
class FileDigest:
    """A regular file as it was when it was read: size in bytes, sha256 in lower-case hex."""

    size: int
    sha256: str


@frozen
class FileIdentity:
    """What changes when a file is replaced or rewritten; equal identities allow a cached digest."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity_of(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def digest_file(path: Path, progress: Callable[[int], None] | None = None) -> FileDigest:
    """Hash a regular file through one descriptor; refuse anything else, and a file that grows while it is read.

    progress is called with the number of bytes of each chunk. Raises GovrunError (preflight-refused).
    """
    with _open(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _refused("file.regular", f"{path.name} is not a regular file", "another kind", "a regular file")
        state = hashlib.sha256()
        size = 0
        try:
            while chunk := file.read(CHUNK):
                state.update(chunk)
                size += len(chunk)
                if progress is not None:
                    progress(len(chunk))
        except OSError as error:
            raise unreadable(path, error) from error
        if identity_of(os.fstat(file.fileno())) != identity_of(status) or size != status.st_size:
            raise _refused(
                "file.stable", f"{path.name} changed while it was read", "other bytes or times", "a file at rest"
            )
    return FileDigest(size, state.hexdigest())


def _open(path: Path) -> io.FileIO:
    try:
        return open(path, "rb", buffering=0, opener=without_waiting)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def without_waiting(path: str, flags: int) -> int:
    """An opener for `open`: a FIFO that nobody writes to, or a device, must not keep govrun waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def unreadable(path: Path, error: OSError | ValueError) -> GovrunError:
    """The refusal for a file that the system does not open or read; ValueError means a name no file can have."""
    reason = error.strerror if isinstance(error, OSError) else "a name that no file can have"
    return _refused("file.readable", f"{path.name} cannot be read", reason or "an error", "a readable regular file")


def _refused(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.PREFLIGHT_REFUSED, rule, what, found=found, expected=expected)


def field_salt(salt: bytes, field: str) -> bytes:
    """The salt of one field of one receipt; handing it out discloses that field and no other.

    salt is the receipt's 32 random bytes, field a name such as `prompt` or `stdout`.
    """
    return hmac.digest(salt, b"govrun-field-salt:" + field.encode("ascii"), "sha256")


class Commitment:
    """Commit to a byte string while it streams; `hex` is what the receipt shows.

    With a field salt: HMAC-SHA-256 (RFC 2104) of the bytes. Without one: plain SHA-256.
    """

    def __init__(self, salt: bytes | None) -> None:
        self.algorithm = "sha256" if salt is None else "hmacSha256"
        self._state = hashlib.sha256() if salt is None else hmac.new(salt, digestmod="sha256")
        self.size = 0

    def update(self, data: bytes) -> None:
        self._state.update(data)
        self.size += len(data)

    def hex(self) -> str:
        return self._state.hexdigest()


def commit(data: bytes, salt: bytes | None) -> Commitment:
    """The commitment to data, whole."""
    commitment = Commitment(salt)
    commitment.update(data)
    return commitment
