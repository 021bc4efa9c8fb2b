"""Which ledger a `ledger` command reads: the one that is named, or the home's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from govrun.cli.common import find_settings
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.read import Reader, open_ledger
from govrun.ledger.salts import SALTS_FILE, Salts

Command = TypeVar("Command", bound=Callable[..., Any])


def ledger_options(command: Command) -> Command:
    """--ledger and --home."""
    for option in (
        click.option("--home", metavar="DIR", help="The .govrun whose ledger to read when none is named."),
        click.option("--ledger", metavar="LEDGER", help="SQLite file, .govrun or published directory."),
    ):
        command = option(command)
    return command


def location_of(ledger: str | None, home: str | None) -> str:
    """Where the ledger is that the options name."""
    if ledger is not None:
        return ledger
    _, settings = find_settings({"home": home})
    return str(settings.ledger)


@contextmanager
def reading(ledger: str | None, home: str | None) -> Iterator[Reader]:
    """The ledger that the options name, open for reading."""
    reader = open_ledger(location_of(ledger, home))
    try:
        yield reader
    finally:
        reader.close()


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


def salts_beside(location: str) -> Salts:
    """The salts of the ledger at a location."""
    place = Path(location)
    return Salts((place if place.is_dir() else place.parent) / SALTS_FILE)
