"""Where a ledger's files lie: whose they are, what is wrong with them, and how their names are made durable.

Whoever else can write the file or its directory could put another ledger in its place. Errors are GovrunError
(ledger-unavailable), each under its own rule.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError

# Its presence is looked for at each start, before anything that reads it is imported.
REFUSALS_FILE: Final = "refusals.json"


def check_directory(path: Path) -> None:
    """Refuse a directory that others could swap files in: not ours, or writable by group or others."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise cannot_use(path, error) from error
    _check_owner(path, status)


def check_file(path: Path) -> None:
    """Refuse a ledger file that is missing, a link, no regular file, not ours, or writable by others."""
    # lstat and no descriptor: closing one would drop the locks that SQLite holds on the file in this process.
    try:
        status = os.lstat(path)
    except OSError as error:
        raise cannot_use(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.regular",
            f"{path.name} is not a regular file",
            found="a symbolic link" if stat.S_ISLNK(status.st_mode) else "something else",
            expected="a regular file",
            fix="name the ledger file itself",
        )
    _check_owner(path, status)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.owner",
            f"{path.name} belongs to another user",
            found=f"user {status.st_uid}",
            expected=f"user {os.geteuid()}",
            fix="use a ledger of your own",
        )
    if status.st_mode & 0o022:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.permissions",
            f"{path.name} can be written by others",
            found=f"mode {stat.S_IMODE(status.st_mode):04o}",
            expected="no write permission for group and others",
            fix=f"chmod go-w {path.name}, and verify the ledger against a checkpoint kept elsewhere",
        )


def exists(path: Path) -> GovrunError:
    """The refusal to make a ledger where there is one."""
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "ledger.exists",
        f"there already is a ledger {path.name}",
        expected="a name that is free",
        fix="use it, or name another place",
    )


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_use(path: Path, error: OSError) -> GovrunError:
    """What an error of the system says about a file or directory of the ledger."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.missing",
            f"there is no {path.name}",
            expected="a ledger made by `govrun init`",
            fix="run `govrun init`, or name the ledger with --ledger",
        )
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "ledger.unwritable",
        f"{path.name} cannot be used",
        found=os.strerror(error.errno or 0),
        expected="a file and a directory that their owner can write",
        fix="make the file and its directory writable for their owner",
    )
