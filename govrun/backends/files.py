"""What a file must be before a command may use it: named outright, regular, and not anybody's to change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from govrun.errors import ExitCode, GovrunError


def explicit_path(rule: str, what: str, text: str, fix: str) -> Path:
    """The path that text means on every machine and in every directory: absolute, no `~`, no `..`, no URL.

    Raises GovrunError (preflight-refused) under rule.
    """
    found = _vagueness(text)
    if found is not None:
        raise refusal(rule, f"{what} is not an explicit local path", found, "an explicit absolute path", fix)
    return Path(text)


def _vagueness(text: str) -> str | None:
    if not text:
        return "nothing"
    if "\0" in text:
        return "NUL"
    if "://" in text:
        return "a URL"
    if text.startswith("~"):
        return "a path that begins with a tilde"
    if not text.startswith("/"):
        return "a relative path"
    return "a path with parent steps" if ".." in text.split("/") else None


def regular_file(rule: str, what: str, path: Path, fix: str) -> os.stat_result:
    """The status of a regular file, symbolic links followed. Raises GovrunError (preflight-refused) under rule."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise refusal(rule, f"{what} is not there", _reason(error), "a regular file", fix) from error
    if not stat.S_ISREG(status.st_mode):
        raise refusal(rule, f"{what} is not a regular file", kind_of(status), "a regular file", fix)
    return status


def readable_file(rule: str, what: str, path: Path, fix: str) -> os.stat_result:
    """The status of a regular file that this user can read. Raises GovrunError (preflight-refused) under rule."""
    status = regular_file(rule, what, path, fix)
    if not os.access(path, os.R_OK):
        raise refusal(rule, f"{what} cannot be read", "no permission to read", "a readable file", fix)
    return status


def program_file(rule: str, what: str, path: Path, fix: str) -> os.stat_result:
    """The status of a regular file that this user can execute. Raises GovrunError (preflight-refused) under rule."""
    status = regular_file(rule, what, path, fix)
    if not os.access(path, os.X_OK):
        mode = f"mode {stat.S_IMODE(status.st_mode):o}"
        raise refusal(rule, f"{what} is not executable", mode, "an executable file", fix)
    return status


def not_writable_by_others(rule: str, what: str, path: Path) -> None:
    """Refuse a file that users outside its owner and group may rewrite, or replace in its directory.

    A symbolic link is judged with its target: both directories count. A directory with the sticky bit protects its
    entries from everybody but their owners, so `/tmp` itself passes. Raises GovrunError (preflight-refused) under rule.
    """
    mode = _mode(rule, what, path)
    if mode & stat.S_IWOTH:
        raise refusal(rule, f"{what} can be changed by others", f"mode {mode:o}", "no write for others", "chmod o-w")
    real = Path(os.path.realpath(path))
    for folder in (path.parent, real.parent):
        mode_bits = _mode(rule, what, folder)
        if mode_bits & stat.S_IWOTH and not mode_bits & stat.S_ISVTX:
            raise refusal(
                rule,
                f"the directory of {what} can be changed by others",
                f"mode {mode_bits:o}",
                "no write for others, or the sticky bit",
                "chmod o-w",
            )


def owned_by_user_or_root(rule: str, what: str, path: Path) -> None:
    """Refuse a file that belongs to another user, who may rewrite it at any time.

    Raises GovrunError (preflight-refused) under rule.
    """
    owner = regular_file(rule, what, path, "use a file that exists").st_uid
    if owner not in (0, os.geteuid()):
        raise refusal(
            rule,
            f"{what} belongs to another user",
            f"owner {owner}",
            f"owner {os.geteuid()} or 0",
            "use a copy that belongs to you or to root",
        )


def _mode(rule: str, what: str, path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise refusal(rule, f"{what} is not there", _reason(error), "a regular file") from error


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "no such name"


def kind_of(status: os.stat_result) -> str:
    """What a file is, for a refusal: `a directory`, `a FIFO`."""
    names = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISLNK, "a symbolic link"),
    )
    return next((name for test, name in names if test(status.st_mode)), "a regular file")


def refusal(rule: str, what: str, found: str, expected: str, fix: str | None = None) -> GovrunError:
    """A preflight refusal, ready to be raised."""
    return GovrunError(ExitCode.PREFLIGHT_REFUSED, rule, what, found=found, expected=expected, fix=fix)
