"""Which ledger a `ledger` command reads, and what lies beside it: the one that is named, or the home's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from govrun.cli.common import find_settings
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.read import KINDS, Reader, kind_of, open_ledger
from govrun.ledger.salts import SALTS_FILE, Salts

Command = TypeVar("Command", bound=Callable[..., Any])


@frozen
class Source:
    """The ledger that the options of a command name."""

    ledger: str | None
    home: str | None
    allow_http: bool = False

    @property
    def location(self) -> str:
        """Where it is; that of the home when none is named."""
        return self.ledger if self.ledger is not None else str(find_settings({"home": self.home})[1].ledger)

    @property
    def own_home(self) -> Path | None:
        """The home whose own ledger it is, None for a ledger that was named."""
        return find_settings({"home": self.home})[1].home if self.ledger is None else None


def ledger_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--ledger, --home and --allow-http, which reach the command as one source."""

    @functools.wraps(command)
    def gathered(*, ledger: str | None, home: str | None, allow_http: bool, **options: Any) -> Any:
        return command(source=Source(ledger, home, allow_http), **options)

    wrapped: Callable[..., Any] = gathered
    for option in (
        allow_http_option,
        click.option("--home", metavar="DIR", help="The .govrun whose ledger to read when none is named."),
        click.option("--ledger", metavar="LEDGER", help=f"{KINDS[0].upper()}{KINDS[1:]}."),
    ):
        wrapped = option(wrapped)
    return wrapped


def allow_http_option(command: Command) -> Command:
    """--allow-http."""
    return click.option(
        "--allow-http", is_flag=True, help="Read a URL of another machine over plain http: others see what is read."
    )(command)


@contextmanager
def reading(source: Source) -> Iterator[Reader]:
    """The ledger that the options name, open for reading."""
    reader = open_ledger(source.location, allow_http=source.allow_http)
    try:
        yield reader
    finally:
        reader.close()


def beside(location: str) -> Path | None:
    """The directory of this machine in which salts, policies and leases of a ledger lie; None where there is none."""
    kind = kind_of(location)
    if kind in ("url", "export", "postgres"):
        return None
    return Path(location) if kind == "directory" else Path(location).parent


def leaf_at(reader: Reader, index: int) -> bytes:
    """The exact bytes of one entry; GovrunError (could-not-check) if there is no such entry."""
    if index >= reader.size:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "ledger.index",
            "there is no such entry",
            found=f"entry {index}",
            expected=f"0 to {reader.size - 1}",
        )
    return next(iter(reader.leaves(index, index + 1)))[0]


def newest_checkpoint(reader: Reader) -> bytes:
    """The note of the head; GovrunError (could-not-check) if the ledger has none."""
    note = reader.checkpoint()
    if note is None:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "checkpoint.none",
            "the ledger has no checkpoint",
            expected="a ledger with entries",
        )
    return note


def directory_of(source: Source) -> Path:
    """Where on this machine salts and pending outcomes of the ledger lie; of a database, in the home that uses it.

    GovrunError (could-not-check) for a ledger that cannot have any here.
    """
    place = beside(source.location)
    if place is None and kind_of(source.location) == "postgres":
        is_told = source.ledger is None or source.home is not None
        place = find_settings({"home": source.home})[1].home if is_told else None
    if place is None:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "salts.place",
            "salts never leave the machine of a run, so there are none here",
            found="a URL or an export",
            expected="the ledger of the .govrun that made the commitments",
        )
    return place


def salts_of(source: Source) -> Salts:
    """The salts of the ledger that the options name; GovrunError (could-not-check) as `directory_of`."""
    return Salts(directory_of(source) / SALTS_FILE)
