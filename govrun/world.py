"""What differs between two runs of the same request: clock, random bytes, environment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from govrun.frozen import frozen


@frozen
class World:
    """Everything that is not an input; nothing below `cli` reads a clock or makes an id without it.

    now_ms: milliseconds since 1970-01-01T00:00:00Z by the operator's clock (a claim, never an order).
    monotonic_ns: nanoseconds of a clock that does not jump; only differences mean anything.
    random_bytes: n bytes from a cryptographic source.
    environ: the environment that settings are read from.
    """

    now_ms: Callable[[], int]
    monotonic_ns: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    environ: Mapping[str, str]

    def now(self) -> str:
        """The present instant, RFC 3339 in UTC with milliseconds."""
        return format_instant(self.now_ms())

    def new_id(self) -> str:
        """A fresh random id: 32 lower-case hex digits."""
        return self.random_bytes(16).hex()


def real_world(environ: Mapping[str, str] | None = None) -> World:
    """The machine's own clock, randomness and environment."""
    return World(
        now_ms=lambda: time.time_ns() // 1_000_000,
        monotonic_ns=time.monotonic_ns,
        random_bytes=os.urandom,
        environ=dict(os.environ if environ is None else environ),
    )


def format_instant(milliseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds, such as `2026-11-22T12:00:00.000Z`; inverse of `parse_instant`."""
    seconds, rest = divmod(milliseconds, 1000)
    parts = time.gmtime(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', parts)}.{rest:03d}Z"


def parse_instant(text: str) -> int:
    """Milliseconds since 1970 of an instant as `format_instant` writes it; ValueError on anything else."""
    import calendar

    if len(text) != 24 or text[19] != "." or text[23] != "Z":
        raise ValueError(f"instant {text!r}, expected YYYY-MM-DDTHH:MM:SS.mmmZ")
    seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    milliseconds = seconds * 1000 + int(text[20:23])
    if format_instant(milliseconds) != text:
        raise ValueError(f"instant {text!r}, expected YYYY-MM-DDTHH:MM:SS.mmmZ")
    return milliseconds
