"""How the command line speaks: results on stdout, words on stderr, colour only on a terminal."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypedDict

import click
import orjson

from govrun.errors import GovrunError

# Hashing less than this is over before anybody wonders.
SLOW_TO_HASH: Final = 256 << 20

_COLUMNS: Final = 100

# A pattern, and not compiled: most commands show nothing that could need it.
_CONTROL: Final = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"


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


def note(text: str) -> None:
    """A word to the person, on stderr."""
    click.echo(printable(text), err=True)


def show_json(value: Any) -> None:
    """One JSON document on stdout, indented, with a line break; what is no Unicode text is shown escaped."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        data = orjson.dumps(value, option=options)
    except TypeError:
        data = orjson.dumps(_escaped(value), option=options)
    if sys.stdout.isatty():
        # JSON's own escapes: what a terminal shows is still the same document.
        data = re.sub(_CONTROL, lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()
    _write_stdout(data)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


def _write_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What the ledger holds stands; only the answer did not arrive, and no exit code of the table says that.
        sys.stderr.write(f"govrun: stdout cannot be written: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(1)


def printable(text: str) -> str:
    """Text that cannot drive a terminal: control and direction characters are shown escaped, tabs and breaks kept."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(_CONTROL, lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", safe)


def show_bytes(data: bytes) -> None:
    """A child's bytes on stdout: exactly when a program reads them, escaped when a terminal does."""
    if sys.stdout.isatty():
        shown = printable(data.decode("utf-8", "backslashreplace"))
        _write_stdout((shown if shown.endswith("\n") or not shown else shown + "\n").encode())
        return
    _write_stdout(data)


class StderrPass:
    """Passes a child's stderr on as it comes, escaped when a terminal shows it, and never waits for its reader.

    A run is watched by whoever passes its stderr on: a reader that stopped reading must not suspend a time limit. What
    the reader has not taken is kept, and handed over by `finish`, which does wait.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stderr.fileno()
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace") if sys.stderr.isatty() else None
        self._kept = bytearray()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)

    def __call__(self, data: bytes) -> None:
        self._kept += data if self._decode is None else printable(self._decode.decode(data)).encode()
        # A pipe that polls as writable has room for so many bytes.
        while self._kept and (ready := self._poll.poll(0)):
            if ready[0][1] & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                return self._kept.clear()
            if not self._write(select.PIPE_BUF):
                return None
        return None

    def finish(self) -> None:
        """Hand over what is left; for after the outcome is durable."""
        if self._decode is not None:
            self._kept += printable(self._decode.decode(b"", final=True)).encode()
        while self._kept and self._write(len(self._kept)):
            pass

    def _write(self, size: int) -> bool:
        try:
            del self._kept[: os.write(self._descriptor, self._kept[:size])]
        except BlockingIOError:
            return False
        except OSError:
            # Nobody reads any more; the receipt holds the commitment all the same.
            self._kept.clear()
        return True


class Look(TypedDict, total=False):
    """How a report is laid out: whether it has colours, and how many columns."""

    colour: bool
    width: int


def look() -> Look:
    """The look for a terminal that shows stdout; nothing else has one, so reports look the same everywhere."""
    if not sys.stdout.isatty():
        return {}
    # A terminal that does not tell its width says 0.
    columns = os.get_terminal_size(sys.stdout.fileno()).columns or _COLUMNS
    return {"colour": not os.environ.get("NO_COLOR"), "width": columns}


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


def hashing() -> Callable[[str, int, int], None] | None:
    """A callback (name, total, done) that draws a bar for each large file, when a terminal is watching."""
    bars: dict[str, Callable[[int, int], None] | None] = {}

    def draw(name: str, total: int, done: int) -> None:
        if name not in bars:
            bars[name] = progress(f"hashing {printable(name)}") if total >= SLOW_TO_HASH else None
        if (bar := bars[name]) is not None:
            bar(done, total)

    return draw if sys.stderr.isatty() else None
