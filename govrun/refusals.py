"""Refusals without end: the first few are entries of their own, further ones are counted and become one entry.

    refusals.json    {"kinds":[{"beganMs":1795348800000,"kind":[11,"policy.backend","bitnet",null,null],"recorded":8,
                     "since":41,"waiting":{...}}],"origin":"example.com/ledger"}

Refusals are of one kind when exit code, rule, backend, task and agent are the same. The file lies beside the ledger,
is read and replaced under a lock, and is durable before a refusal is said to be counted. It is not signed and no
evidence: whoever can write it can change it, until its counts are an entry.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from govrun import canonical
from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.ledger import lock
from govrun.ledger.append import Appender, DraftAt
from govrun.ledger.pending import NOT_OURS, move_aside
from govrun.ledger.place import REFUSALS_FILE, sync_directory
from govrun.receipt import ZERO_HASH, Draft, Position, format_statement
from govrun.world import format_instant

LOCK_FILE: Final = "refusals.lock"

# A minute: whoever looks at the ledger because something was just refused finds it there, or soon.
WINDOW_MS: Final = 60_000
# Somebody who tries, reads the refusal and tries again finds each try in the ledger; only a program is faster.
RECORDED_EACH: Final = 8
# For a caller who takes another name each time: of all kinds together no more become entries in one window.
RECORDED_IN_ALL: Final = 32
# Beyond that many kinds only exit code and stage are told apart, which keeps the file below a hundred kilobytes.
MAX_KINDS: Final = 32
MAX_BYTES: Final = 1 << 18

_VARIOUS: Final = "various."
_MAY_DIFFER: Final = ("request", "backend", "task", "agent", "policy", "found", "expected")

Kind = tuple[int, str, str | None, str | None, str | None]


@frozen
class Window:
    """What was refused of one kind since began_ms, by the operator's clock.

    recorded: how many became entries of their own. waiting: the predicate of the entry for those that were counted,
    None when there are none. since: how many entries the ledger had when counting began; that entry is not before it.
    """

    kind: Kind
    began_ms: int
    recorded: int = 0
    since: int = 0
    waiting: JsonObject | None = None

    def is_over(self, now_ms: int) -> bool:
        """Whether the window is over; a clock that went back ends it too."""
        return not 0 <= now_ms - self.began_ms < WINDOW_MS


@frozen
class Counted:
    """A refusal that was counted: with how many others, and the instant from which on they can become an entry."""

    others: int
    after: str


def settle(writer: Appender) -> None:
    """Append what was counted in windows that are over; does nothing while another process is at it.

    Calling it again, from two processes at once, or after being killed at any instant, appends nothing twice.
    GovrunError as `Writer.append`, and ledger-unavailable (`refusals.files`) if the file cannot be used.
    """
    with _held(writer, 0) as is_held:
        if is_held:
            windows = _read(writer)
            left = _without_ended(writer, windows)
            if left != windows:
                _write(writer, left)


def take(writer: Appender, refusal: Draft, wait_ms: int) -> Counted | None:
    """Count a refusal, durable when this returns; None when it is to become an entry of its own.

    Settles first. GovrunError as `settle`, or when others hold the lock for wait_ms (`refusals.locked`): not counted.
    """
    with _held(writer, wait_ms) as is_held:
        if not is_held:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "refusals.locked",
                "another process keeps the count of refusals locked",
                found=f"locked for {wait_ms} ms",
                expected="a lock that is released within the deadline",
                fix=f"find its holder with `fuser {LOCK_FILE}`",
            )
        windows = _without_ended(writer, _read(writer))
        counted = _count(windows, refusal.predicate, writer)
        _write(writer, windows)
        return counted


def _count(windows: dict[Kind, Window], refused: JsonObject, writer: Appender) -> Counted | None:
    kind = _kind_of(refused)
    if kind not in windows and len(windows) >= MAX_KINDS:
        refused = {**refused, "rule": f"{_VARIOUS}{refused['stage']}"}
        kind = (refused["exitCode"], refused["rule"], None, None, None)
    window = windows.get(kind) or Window(kind, writer.store.world.now_ms())
    in_all = sum(one.recorded for one in windows.values())
    if window.waiting is None and window.recorded < RECORDED_EACH and in_all < RECORDED_IN_ALL:
        windows[kind] = evolve(window, recorded=window.recorded + 1)
        return None
    refused = _without_salt(refused)
    if window.waiting is None:
        # The entry's id is chosen now, so that it is known again if we are killed after appending it.
        window = evolve(window, since=writer.store.size(), waiting=refused)
    else:
        window = evolve(window, waiting=_merged(window.waiting, refused))
    windows[kind] = window
    assert window.waiting is not None  # noqa: S101 - set just above
    return Counted(window.waiting["count"] - 1, format_instant(window.began_ms + WINDOW_MS))


def _kind_of(refused: JsonObject) -> Kind:
    return (refused["exitCode"], refused["rule"], refused["backend"], refused["task"], refused["agent"])


def _without_salt(refused: JsonObject) -> JsonObject:
    # A merged entry has no salt, and a commitment that nobody can ever check says nothing.
    request = refused["request"]
    is_plain = request is not None and request["commitment"]["algorithm"] == "sha256"
    return refused if is_plain else {**refused, "request": None}


def _merged(waiting: JsonObject, refused: JsonObject) -> JsonObject:
    """One predicate for all so far and one more: null is what they do not have in common."""
    common = {name: waiting[name] if waiting[name] == refused[name] else None for name in _MAY_DIFFER}
    return {**waiting, **common, "count": waiting["count"] + 1, "deniedOn": refused["deniedOn"]}


def _without_ended(writer: Appender, windows: dict[Kind, Window]) -> dict[Kind, Window]:
    """The windows that are not over, once what the others counted is in the ledger."""
    now_ms = writer.store.world.now_ms()
    ended = [window for window in windows.values() if window.is_over(now_ms)]
    drafts = [_unless_there(writer, one.since, one.waiting) for one in ended if one.waiting is not None]
    if drafts:
        writer.append(drafts)
    # From here on the counts are durable entries; until the file is replaced they are in both.
    return {kind: window for kind, window in windows.items() if window not in ended}


def _unless_there(writer: Appender, since: int, waiting: JsonObject) -> DraftAt:
    def decide(position: Position) -> Draft | None:
        for index in range(since, position.index):
            columns = writer.store.columns(index)
            if columns is not None and columns.invocation_id == waiting["invocationId"]:
                return None
        return Draft("denied", waiting)

    return decide


@contextlib.contextmanager
def _held(writer: Appender, wait_ms: int) -> Iterator[bool]:
    """Keep others from the file, if that can be had in time."""
    try:
        descriptor = lock.open_lock_file(writer.store.directory / LOCK_FILE)
        try:
            yield lock.lock_within(descriptor, writer.store.world, wait_ms)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "refusals.files",
            "the count of refusals cannot be kept",
            found=os.strerror(error.errno or 0),
            expected=f"room for {REFUSALS_FILE}, in a directory that its owner can write",
            fix="free some space, or make the directory of the ledger writable",
        ) from error


def _read(writer: Appender) -> dict[Kind, Window]:
    """The windows in the file; one that cannot be used is set aside, told by a gap, and not believed in any part."""
    path = writer.store.directory / REFUSALS_FILE
    try:
        return parse_windows(_read_own(path), writer.store.origin)
    except FileNotFoundError:
        return {}
    except (OSError, GovrunError) as error:
        if isinstance(error, OSError) and error.errno not in NOT_OURS:
            # The disk does not give it now, which takes no count away.
            raise
    found_on = writer.store.world.now()
    writer.append([Draft("gap", {"reason": "pendingUnreadable", "intent": None, "foundOn": found_on})])
    move_aside(path)
    return {}


def _read_own(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise _malformed()
        return file.read(MAX_BYTES + 1)


def _write(writer: Appender, windows: dict[Kind, Window]) -> None:
    """Replace the file, durable when this returns; with nothing left there is no file. OSError."""
    path = writer.store.directory / REFUSALS_FILE
    if not windows:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(format_windows(windows, writer.store.origin))
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    sync_directory(path.parent)


def format_windows(windows: dict[Kind, Window], origin: str) -> bytes:
    """The bytes of the file for the ledger of an origin; inverse of `parse_windows`."""
    kinds = [
        {"kind": list(w.kind), "beganMs": w.began_ms, "recorded": w.recorded, "since": w.since, "waiting": w.waiting}
        for w in windows.values()
    ]
    return canonical.encode({"origin": origin, "kinds": kinds})


def parse_windows(data: bytes, origin: str) -> dict[Kind, Window]:
    """Read the file; GovrunError (ledger-inconsistent) for anything that `format_windows` did not write."""
    if len(data) > MAX_BYTES:
        raise _malformed()
    value = canonical.decode(data, REFUSALS_FILE)
    try:
        windows = {window.kind: window for window in map(_window, value["kinds"])}
        for one in windows.values():
            if one.waiting is not None:
                format_statement(Draft("denied", one.waiting), Position(origin, 0, ZERO_HASH))
    except (ValueError, TypeError, KeyError, GovrunError) as error:
        raise _malformed() from error
    # Of another ledger, with a member more, or with a kind twice.
    if format_windows(windows, origin) != data:
        raise _malformed()
    return windows


def _window(value: Any) -> Window:
    code, rule, backend, task, agent = value["kind"]
    numbers = code, value["beganMs"], value["recorded"], value["since"]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError
    return Window((code, rule, backend, task, agent), *numbers[1:], value["waiting"])


def _malformed() -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "refusals.form",
        "this is no count of refusals of this ledger",
        expected="what govrun wrote, in a file of our own that nobody else can write",
    )
