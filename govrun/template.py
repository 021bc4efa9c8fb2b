"""Deterministic commands: typed holes in a fixed order, no shell, one receipt spelling."""

from __future__ import annotations

import re
from typing import Final, Literal

from govrun import canonical
from govrun.digest import Commitment, commit, field_salt, sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.redact import file_word

HoleKind = Literal["path", "secret", "prompt", "text", "number", "flag", "url", "free"]

# Holes whose values a receipt commits to, and what it commits to under names of its own.
COMMITTED: Final = ("text", "free", "url")
RECEIPT_FIELDS: Final = ("request", "prompt", "stdout", "stderr", "text")

MAX_WORD_BYTES: Final = 131_071  # Linux MAX_ARG_STRLEN less the closing NUL
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,9})?")
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9-]{0,62}")
_HOLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")


@frozen
class Word:
    """One element of argv that the backend's author wrote: the same for every request."""

    text: str


@frozen
class Hole:
    """One element of argv that depends on the request or the machine: prefix, then value, nothing after.

    prefix is the author's (`--prompt=`) or empty. A value can never leave its element. kind decides what the value may
    be and what the receipt shows instead of it.
    """

    kind: HoleKind
    name: str
    value: str
    prefix: str = ""


Argument = Word | Hole


@frozen
class Template:
    """A command as words and holes, program first. name is stable, such as `bitnet.run-inference`."""

    name: str
    arguments: tuple[Argument, ...]


def render(template: Template) -> tuple[str, ...]:
    """The argv to run: one element per argument, in order. Raises GovrunError (template-refused)."""
    if not template.arguments:
        raise _refused("template.empty", "the command is empty", "no arguments", "a program")
    return tuple(_render(argument) for argument in template.arguments)


def _check_committed_names(template: Template) -> None:
    # A commitment's salt follows from its name: two values under one name would be disclosed together.
    names = [a.name for a in template.arguments if isinstance(a, Hole) and a.kind in COMMITTED]
    twice = next((name for name in names if names.count(name) > 1 or name in RECEIPT_FIELDS), None)
    if twice is not None:
        raise _refused("template.holeName", "the name of a hole is taken", twice, "a name of its own")


def _render(argument: Argument) -> str:
    if isinstance(argument, Word):
        _check_bytes("word", argument.text)
        return argument.text
    if _HOLE_NAME.fullmatch(argument.name) is None:
        raise _refused("template.holeName", "a hole has a malformed name", repr(argument.name[:32]), "a short name")
    _CHECKS[argument.kind](argument)
    text = argument.prefix + argument.value
    _check_bytes(argument.name, text)
    return text


def _check_bytes(name: str, text: str) -> None:
    if "\0" in text:
        raise _refused("template.nul", f"{name} contains NUL", "NUL", "no program can be given one")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _refused("template.utf8", f"{name} is not UTF-8", "undecodable bytes", "UTF-8") from error
    if size > MAX_WORD_BYTES:
        raise _refused(
            "template.size",
            f"{name} does not fit into one argument",
            f"{size} bytes",
            f"at most {MAX_WORD_BYTES} bytes",
        )


def _check_value(hole: Hole) -> None:
    # A value that stands alone and begins with a dash would be read as a flag.
    if not hole.prefix and hole.value.startswith("-"):
        raise _refused("template.dash", f"{hole.name} would be read as a flag", "a leading dash", "a value")


def _check_number(hole: Hole) -> None:
    if _NUMBER.fullmatch(hole.value) is None:
        raise _refused("template.number", f"{hole.name} is not a number", repr(hole.value[:32]), "a plain number")
    _check_value(hole)


def _check_flag(hole: Hole) -> None:
    if hole.prefix or _FLAG.fullmatch(hole.value) is None:
        raise _refused("template.flag", f"{hole.name} is not a flag", repr(hole.value[:32]), "--name")


def _check_path(hole: Hole) -> None:
    if not hole.value.startswith("/"):
        raise _refused("template.path", f"{hole.name} is not an absolute path", "a relative path", "an absolute path")


def _check_url(hole: Hole) -> None:
    if not hole.value.startswith(("http://", "https://")):
        raise _refused("template.url", f"{hole.name} is not an http URL", "another scheme", "http:// or https://")


def _check_secret(hole: Hole) -> None:
    # Every process of the machine may read a command line.
    raise _refused(
        "template.secret", f"secret {hole.name} stands in argv", "a secret in argv", "an environment variable"
    )


def _check_free(hole: Hole) -> None:
    # The caller wrote the whole command; any word, a flag included, is what was asked for.
    if hole.prefix:
        raise _refused("template.free", f"{hole.name} has a prefix", "a prefix", "the caller's word alone")


_CHECKS: Final = {
    "path": _check_path,
    "secret": _check_secret,
    "prompt": _check_value,
    "text": _check_value,
    "number": _check_number,
    "flag": _check_flag,
    "url": _check_url,
    "free": _check_free,
}


def redacted(template: Template) -> tuple[str, ...]:
    """The command as a receipt shows it: `<basename>`, `{prompt}`, `{arg.N}`; words, numbers and flags as they are.

    An author's word that is an absolute path, such as `/dev/fd/64`, is shown by its base name like any other path.
    """
    return tuple(_redact(argument) for argument in template.arguments)


def _redact(argument: Argument) -> str:
    if isinstance(argument, Word):
        return file_word(argument.text) if argument.text.startswith("/") else argument.text
    if argument.kind in ("number", "flag"):
        return argument.prefix + argument.value
    if argument.kind == "path":
        return f"{argument.prefix}{file_word(argument.value)}"
    if argument.kind == "secret":
        return f"{argument.prefix}{{secret:{argument.name}}}"
    return f"{argument.prefix}{{{argument.name}}}"


def template_digest(template: Template) -> str:
    """sha256, in hex, of the canonical redacted command: equal for equal commands on every machine."""
    return sha256_hex(canonical.encode({"name": template.name, "argv": list(redacted(template))}))


def commitments(template: Template, salt: bytes | None) -> tuple[tuple[str, Commitment], ...]:
    """(name, commitment) of every hole whose value the receipt does not show, in order; see `digest.Commitment`.

    Raises GovrunError (template-refused) for a name that two values would share.
    """
    _check_committed_names(template)
    return tuple(
        (a.name, commit(a.value.encode(), None if salt is None else field_salt(salt, a.name)))
        for a in template.arguments
        if isinstance(a, Hole) and a.kind in COMMITTED
    )


def _refused(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.TEMPLATE_REFUSED, rule, what, found=found, expected=expected)
