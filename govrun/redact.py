"""Names instead of paths, and a last look for paths and secrets before anything is signed.

The guarantee is the template's typed holes and the receipt's closed vocabularies. The scan here is the last defence:
what it finds refuses an intent, and becomes `<redacted>` in an outcome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import attrs

REDACTED: Final = "<redacted>"
MIN_SECRET_BYTES: Final = 8

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|COOKIE|PAT)(?:$|_)|APIKEY", re.IGNORECASE
)
_TOKEN = re.compile(r"[A-Za-z0-9 ._:+@,=()%*<>-]{0,160}")
_PATH = re.compile(
    r"""
    (?:^|[^A-Za-z0-9._/-]|^-[A-Za-z])/+[^\s/]   # POSIX: at the start, after a delimiter, or glued to a short flag
    | (?:^|[^A-Za-z0-9_])~                      # a home
    | (?:^|[^A-Za-z0-9])[A-Za-z]:[\\/]          # Windows
    | \\\\                                      # UNC
    | (?:^|[^A-Za-z0-9])file:                   # file URL
    """,
    re.VERBOSE | re.IGNORECASE,
)


@attrs.frozen
class Scanner:
    """What must not appear in a receipt: paths of any kind, these directories, and these secret values."""

    directories: tuple[str, ...]
    secrets: tuple[str, ...]

    def finds(self, text: str) -> bool:
        """Whether a string holds an absolute path, a `~` path, one of the directories or one of the secrets."""
        return (
            _PATH.search(text) is not None
            or any(directory in text for directory in self.directories)
            or any(secret in text for secret in self.secrets)
        )


def scanner(environ: Mapping[str, str], directories: tuple[str, ...] = (), secrets: tuple[str, ...] = ()) -> Scanner:
    """A scanner that knows home, the named directories, and every secret-named variable of 8 bytes or more."""
    named = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value.encode(errors="surrogateescape")) >= MIN_SECRET_BYTES
    }
    # A directory of one or two characters ("/", "/x") would be found everywhere and is covered by the path rules.
    places = {d for d in (environ.get("HOME", ""), *directories) if len(d) > 3}
    return Scanner(tuple(sorted(places)), tuple(sorted(named | set(secrets))))


def find(value: Any, look: Scanner, place: str = "") -> str | None:
    """The dotted place of the first string that must not be signed, or None. Origins are names, not paths."""
    if isinstance(value, str):
        return place if look.finds(value) else None
    if isinstance(value, dict):
        for name in sorted(value):
            if name != "origin" and (hit := find(value[name], look, f"{place}.{name}".lstrip("."))):
                return hit
        return None
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if hit := find(item, look, f"{place}.{number}"):
                return hit
    return None


def scrub(value: Any, look: Scanner) -> Any:
    """The same value with every string that must not be signed replaced by `<redacted>`."""
    if isinstance(value, str):
        return REDACTED if look.finds(value) else value
    if isinstance(value, dict):
        return {name: item if name == "origin" else scrub(item, look) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item, look) for item in value]
    return value


def token(text: str | None) -> str | None:
    """A short value as a receipt may show it; anything with a slash, quote, control character or length is withheld."""
    if text is None:
        return None
    return text if _TOKEN.fullmatch(text) else REDACTED


def display_name(path: str, cwd: str) -> str:
    """How a receipt calls a declared file: relative to the working directory when inside it, else its base name."""
    whole = PurePosixPath(cwd, path)
    if ".." not in whole.parts and whole.is_relative_to(cwd) and whole != PurePosixPath(cwd):
        return str(whole.relative_to(cwd))
    return whole.name or REDACTED


def base_name(path: str) -> str:
    """The last component of a path, which is all that a receipt shows of it."""
    return PurePosixPath(path).name or REDACTED
