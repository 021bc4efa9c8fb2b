"""How reports for people are spelled: marks, fields, findings, verdicts; nothing in them can drive a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from govrun.audit.report import Finding, Status
from govrun.errors import ExitCode

_MOST_CHARACTERS: Final = 300

_MARKS: Final[dict[Status, tuple[str, str]]] = {
    "passed": ("ok", "\x1b[32m"),
    "warned": ("warn", "\x1b[33m"),
    "failed": ("FAIL", "\x1b[31m"),
    "notChecked": ("-", "\x1b[2m"),
}
_RESET: Final = "\x1b[0m"
_VERDICT_COLOURS: Final = {"yes": "\x1b[32m", "no": "\x1b[31m", "none": "\x1b[33m"}

# Columns of a report that no terminal shows.
WIDTH: Final = 100
_NARROWEST: Final = 60
_FIELD_INDENT: Final = 12
# Found and expected stand on one line when they are no longer than this together.
_SHORT: Final = 86


def mark(status: Status, colour: bool) -> str:
    """The word before a check, four wide."""
    word, start = _MARKS[status]
    return f"{start}{word:<4}{_RESET}" if colour else f"{word:<4}"


def finding_lines(finding: Finding) -> Iterator[str]:
    """One finding, below its check: what and rule, then found and expected."""
    where = "" if finding.index is None else f"entry {finding.index:,}: "
    yield f"          {where}{plain(finding.what)} [{plain(finding.rule)}]"
    values = [
        f"{name} {plain(value)}"
        for name, value in (("found", finding.found), ("expected", finding.expected))
        if value is not None
    ]
    short = "; ".join(values)
    yield from [f"            {line}" for line in ([short] if len(short) <= _SHORT else values) if line]


def verdict(code: ExitCode) -> str:
    """Yes, no, or none, with the exit code."""
    if code is ExitCode.SUCCESS:
        return "yes"
    return f"{'none' if code is ExitCode.COULD_NOT_CHECK else 'no'} ({int(code)} {code.label})"


def verdict_line(code: ExitCode, colour: bool) -> str:
    """The last line of a report."""
    text = verdict(code)
    return field("verdict", f"{_VERDICT_COLOURS[verdict_word(code)]}{text}{_RESET}" if colour else text)


def verdict_word(code: ExitCode) -> str:
    """The verdict as programs read it: `yes`, `no` or `none`."""
    return verdict(code).partition(" ")[0]


def fields(name: str, values: Iterable[str]) -> Iterator[str]:
    """Lines under one name, which stands before the first of them."""
    for number, value in enumerate(values):
        yield field(name if number == 0 else "", value)


def field(name: str, value: str) -> str:
    """One line of a report: a name, and what it is."""
    return f"{name:<10}  {value}".rstrip()


def wrapped(lines: Iterable[str], width: int) -> Iterator[str]:
    """The lines, long fields and findings continued below where their text begins; checks are columns and stay."""
    import textwrap

    width = max(width, _NARROWEST)
    for line in lines:
        spaces = len(line) - len(line.lstrip(" "))
        if len(line) <= width or spaces == 2:
            yield line
            continue
        behind = " " * (_FIELD_INDENT if spaces in (0, _FIELD_INDENT) else spaces + 2)
        yield from textwrap.wrap(
            line,
            width,
            subsequent_indent=behind,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )


def plain(text: str) -> str:
    """The text on one line: nothing in it can move the cursor, and its length is bounded."""
    if len(text) > _MOST_CHARACTERS:
        text = text[:_MOST_CHARACTERS] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
