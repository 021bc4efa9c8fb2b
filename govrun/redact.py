"""Names instead of paths, and a last look for paths and secrets before anything is signed.

The guarantee is the template's typed holes and the receipt's closed vocabularies. The scan here is the last defence:
what it finds refuses an intent, and becomes `<redacted>` in an outcome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

REDACTED: Final = "<redacted>"
MIN_SECRET_BYTES: Final = 8

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:KEY|AUTH|COOKIE|PAT|PASS)(?:$|_)|TOKEN(?:$|_)|_PWD(?:$|_)|SSHPASS"
    r"|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(?:API|ACCESS)KEY",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9 ._:+@,=()%*<>-]{0,160}")
_PATH = re.compile(
    r"""
    (?:^|[^\w./+)\]}-])                         # POSIX: at the start or after a delimiter,
        (?:-+(?:[A-Za-z]|(?-i:[a-z]+))?)?        # perhaps glued to a flag such as -I or -isystem
        /+(?:[^\s/]|$)
    | (?:^|[^\w.~-])~                            # a home
    | (?:^|[^A-Za-z0-9])[A-Za-z]:[\\/]          # Windows
    | \\\\                                      # UNC
    | (?:^|[^A-Za-z0-9])file:                   # file URL
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A web address is none of them, unless it carries a user or a password.
_WEB = re.compile(r"\bhttps?://(?=[A-Za-z0-9.-]+(?::[0-9]+)?(?:[/?\#]|$))", re.IGNORECASE)
_FILE_NAME = re.compile(r"[^/~\x00-\x1f\x7f-\x9f\\\ud800-\udfff][^\x00-\x1f\x7f-\x9f\\\ud800-\udfff]{0,1023}")

# Members that the schema ties to digests, instants, numbers or closed vocabularies, or that name a ledger: nothing
# else can stand there, and a secret that happens to read `succeeded` must not make an outcome unwritable.
TYPED: Final = frozenset(
    (
        *("algorithm", "coverage", "digest", "finishReason", "invocationId", "leafHash", "level", "origin"),
        *("relation", "role", "sha256", "stage", "status"),
        *("deadlineOn", "deniedOn", "finishedOn", "firstOn", "startedOn"),
    )
)
# What stands instead of a name that must not be signed, where the schema would not take `<redacted>`.
_INSTEAD: Final = {"agent": None, "backend": None, "id": None, "task": None, "code": "redacted", "rule": "redacted"}


@frozen
class Scanner:
    """What must not appear in a receipt: paths of any kind, these directories, and these secret values."""

    directories: tuple[str, ...]
    secrets: tuple[str, ...]

    def finds(self, text: str) -> bool:
        """Whether a string holds an absolute path, a `~` path, one of the directories or one of the secrets.

        Percent-encoding hides none of them.
        """
        return self._finds(text) or ("%" in text and self._finds(_unquoted(text)))

    def _finds(self, text: str) -> bool:
        return (
            holds_path(text)
            # `out/build/x` is no trace of a working directory `/build`; glued to a flag it would be.
            or any(d in text and (d.count("/") > 1 or text.startswith("-")) for d in self.directories)
            or any(secret in text for secret in self.secrets)
        )


def _unquoted(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text)


def holds_path(text: str) -> bool:
    """Whether a string holds an absolute path of any kind, or one from somebody's home."""
    return _PATH.search(_WEB.sub("", text)) is not None


def scanner(environ: Mapping[str, str], directories: tuple[str, ...] = (), secrets: tuple[str, ...] = ()) -> Scanner:
    """A scanner that knows home, the named directories, and every secret-named variable of 8 bytes or more.

    Raises GovrunError (template-refused) for a named secret that is shorter: it could not be told from other text.
    """
    if any(len(secret.encode(errors="surrogateescape")) < MIN_SECRET_BYTES for secret in secrets):
        raise GovrunError(
            ExitCode.TEMPLATE_REFUSED,
            "redact.secretSize",
            "a secret is too short to be kept out of a receipt",
            found="a shorter one",
            expected=f"at least {MIN_SECRET_BYTES} bytes",
            fix="use a longer secret, or do not call it one",
        )
    named = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value.encode(errors="surrogateescape")) >= MIN_SECRET_BYTES
    }
    # A directory of one or two characters ("/", "/x") would be found everywhere and is covered by the path rules.
    places = {d.rstrip("/") for d in (environ.get("HOME", ""), *directories) if d.startswith("/")}
    places = {d for d in places if len(d) > 3}
    return Scanner(tuple(sorted(places)), tuple(sorted(named | set(secrets))))


def find(value: Any, look: Scanner, place: str = "") -> str | None:
    """The dotted place of the first string that must not be signed, or None."""
    if isinstance(value, str):
        return place if look.finds(value) else None
    if isinstance(value, dict):
        for name in sorted(value):
            if name not in TYPED and (hit := find(value[name], look, f"{place}.{name}".lstrip("."))):
                return hit
        return None
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if hit := find(item, look, f"{place}.{number}".lstrip(".")):
                return hit
    return None


def scrub(value: Any, look: Scanner) -> Any:
    """The same value with every string that must not be signed replaced, by `<redacted>` where that may stand."""
    if isinstance(value, str):
        return REDACTED if look.finds(value) else value
    if isinstance(value, dict):
        return {name: item if name in TYPED else _scrub_member(name, item, look) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item, look) for item in value]
    return value


def _scrub_member(name: str, item: Any, look: Scanner) -> Any:
    if isinstance(item, str) and name in _INSTEAD:
        return _INSTEAD[name] if look.finds(item) else item
    return scrub(item, look)


def token(text: str | None) -> str | None:
    """A short value as a receipt may show it; anything with a slash, quote, control character or length is withheld."""
    if text is None:
        return None
    return text if _TOKEN.fullmatch(text) else REDACTED


def display_name(path: str, cwd: str) -> str:
    """How a receipt calls a declared file: relative to the working directory when inside it, else its base name.

    In the root directory a relative name would be the whole path, so there it is the base name too.
    """
    whole = PurePosixPath(cwd, path)
    if cwd.strip("/") and ".." not in whole.parts and whole.is_relative_to(cwd) and whole != PurePosixPath(cwd):
        relative = str(whole.relative_to(cwd))
        if _is_presentable(relative):
            return relative
    return base_name(str(whole))


def base_name(path: str) -> str:
    """The last component of a path, which is all that a receipt shows of it; `<redacted>` for one that it cannot show.

    That is one which would read as a path itself, such as `~` or `..`, or has control characters or undecodable bytes.
    """
    name = PurePosixPath(path).name
    return name if _is_presentable(name) else REDACTED


def file_word(path: str) -> str:
    """What stands in a command instead of a path: `<basename>`."""
    name = base_name(path)
    return name if name == REDACTED else f"<{name}>"


def _is_presentable(name: str) -> bool:
    return (
        name != ".."
        and _FILE_NAME.fullmatch(name) is not None
        and not holds_path(name)
        and not ("%" in name and holds_path(_unquoted(name)))
    )
