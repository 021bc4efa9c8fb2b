"""How the command line speaks: results on stdout, words on stderr, colour only on a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import orjson

from govrun.errors import GovrunError

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def show_error(error: GovrunError) -> None:
    """The refusal as people read it, on stderr; as JSON on stdout too when `--json` was given."""
    if asked_for_json():
        show_json({"error": error_json(error)})
    head, *rest = error.lines()
    click.secho(printable(head), err=True, fg="red" if sys.stderr.isatty() else None)
    for line in rest:
        click.echo(printable(line), err=True)


def asked_for_json() -> bool:
    """Whether the command in force has `--json` set."""
    context = click.get_current_context(silent=True)
    return bool(context and context.params.get("as_json")) or ("--json" in _own_words())


def _own_words() -> list[str]:
    # An error that ends a command is shown after click has left its context; words after `--` are the child's.
    words = sys.argv[1:]
    return words[: words.index("--")] if "--" in words else words


def error_json(error: GovrunError) -> dict[str, Any]:
    """The error as programs read it."""
    return {
        "code": int(error.code),
        "name": error.code.label,
        "rule": error.rule,
        "what": error.what,
        "found": error.found,
        "expected": error.expected,
        "fix": error.fix,
        "effect": error.effect,
    }


def show_json(value: Any) -> None:
    """One JSON document on stdout, indented, with a line break."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def printable(text: str) -> str:
    """Text that cannot drive a terminal: control and direction characters are shown escaped, tabs and breaks kept."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", safe)


def show_bytes(data: bytes) -> None:
    """A child's bytes on stdout: exactly when a program reads them, escaped when a terminal does."""
    if sys.stdout.isatty():
        click.echo(printable(data.decode("utf-8", "backslashreplace")), nl=not data.endswith(b"\n"))
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def pass_stderr(data: bytes) -> None:
    """A child's stderr as it comes; escaped when a terminal shows it."""
    if sys.stderr.isatty():
        sys.stderr.write(printable(data.decode("utf-8", "backslashreplace")))
        sys.stderr.flush()
        return
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns that line up, two spaces apart; the last one is not padded."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [printable(cell).ljust(widths[n]) for n, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def progress(label: str) -> Callable[[int, int], None] | None:
    """A callback (done, total) that draws a bar on stderr when a terminal is watching, else None."""
    if not sys.stderr.isatty():
        return None
    shown = -1

    def draw(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 if total <= 0 else min(100, done * 100 // total)
        if percent == shown:
            return
        shown = percent
        bar = "#" * (percent // 4)
        click.echo(f"\r{label} [{bar:<25}] {percent:3d}%", err=True, nl=False)
        if percent == 100:
            click.echo("\r\x1b[K", err=True, nl=False)

    return draw
