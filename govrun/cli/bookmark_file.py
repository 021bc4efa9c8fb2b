"""The file that `verify --bookmark` and `audit --bookmark` keep: read as strictly as a trust file, replaced whole."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import NoReturn

from govrun.audit.bookmark import MAX_BYTES, Bookmark, format_bookmark, parse_bookmark
from govrun.digest import without_waiting
from govrun.errors import ExitCode, GovrunError


def read_bookmark(file: str) -> Bookmark | None:
    """What an earlier verification left, None if there is no file; GovrunError (could-not-check) if it is no use.

    Nobody else may have been able to write it: it decides which entries are not read again.
    """
    try:
        with open(file, "rb", opener=without_waiting) as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _refused("bookmark.unreadable", "the bookmark cannot be read", "another kind of file", "a file")
            if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
                raise _refused(
                    "bookmark.writable",
                    "the bookmark can be written by others",
                    f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
                    "a file of yours that only you can write",
                )
            data = source.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else "a name that no file can have"
        raise _refused("bookmark.unreadable", "the bookmark cannot be read", found or "an error", "a file") from error
    return parse_bookmark(data)


def write_bookmark(file: str, bookmark: Bookmark) -> None:
    """Replace the file, durably and whole, with mode 0600; GovrunError (could-not-check) if it cannot be.

    A verdict that cannot be kept is not given: whoever asked for a bookmark would go on believing that the newest
    head is pinned.
    """
    target = Path(file)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.new")
    data = format_bookmark(bookmark)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(target)
        _sync_directory(target.parent)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
        _cannot_write(error)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(error: Exception) -> NoReturn:
    found = error.strerror if isinstance(error, OSError) else "a name that no file can have"
    raise GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "bookmark.write",
        "the ledger verified, but the bookmark cannot be written",
        found=found,
        expected="a directory of yours with room",
        fix="name another file, or verify without --bookmark",
    ) from error


def _refused(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.COULD_NOT_CHECK, rule, what, found=found, expected=expected)
