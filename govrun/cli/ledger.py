"""`govrun ledger`: list and show entries, print the checkpoint; what else there is stands beside."""

from __future__ import annotations

import sys
from typing import Any

import click

from govrun.cli.consistency import consistency
from govrun.cli.disclose import disclose
from govrun.cli.erase import erase
from govrun.cli.export import export
from govrun.cli.migrate import migrate
from govrun.cli.one_ledger import Source, leaf_at, ledger_options, newest_checkpoint, reading
from govrun.cli.output import show_json, table
from govrun.cli.prepare import prepare
from govrun.cli.prove import prove
from govrun.cli.publish import publish
from govrun.cli.sequence import sequence
from govrun.ledger.entry import IndexColumns, columns_of
from govrun.ledger.read import Reader
from govrun.receipt import KINDS, parse_statement
from govrun.signing.dsse import parse_envelope


@click.group("ledger")
def command() -> None:
    """Read, prove and publish a ledger. What is shown is read, not verified: that is `govrun verify`."""


for one in (prove, consistency, disclose, erase, publish, export, migrate, prepare, sequence):
    command.add_command(one)


@command.command("list")
@ledger_options
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only entries of this kind.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="How many entries, from the end.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_entries(source: Source, kinds: tuple[str, ...], last: int, as_json: bool) -> None:
    """List the newest entries, oldest of them first."""
    with reading(source) as reader:
        rows = _newest(reader, kinds, last)
        size = reader.size
    if as_json:
        show_json([_json(row) for row in rows])
        return
    head = ["entry", "on", "kind", "backend", "agent", "status", "about"]
    click.echo(table(head, [_cells(row) for row in rows]))
    if len(rows) < size:
        click.echo(f"{len(rows)} of {size} entries", err=True)


def _newest(reader: Reader, kinds: tuple[str, ...], last: int) -> list[IndexColumns]:
    found: list[IndexColumns] = []
    stop = reader.size
    while stop > 0 and len(found) < last:
        start = max(0, stop - max(last, 256))
        rows = [_columns(leaf) for batch in reader.leaves(start, stop) for leaf in batch]
        found = [row for row in rows if not kinds or row.kind in kinds] + found
        stop = start
    return found[-last:]


def _columns(leaf: bytes) -> IndexColumns:
    return columns_of(parse_statement(parse_envelope(leaf).payload))


def _cells(row: IndexColumns) -> list[str]:
    about = "" if row.intent is None else f"entry {row.intent}"
    return [
        str(row.index),
        row.stated_on,
        row.kind,
        row.backend or "",
        row.agent or "",
        row.status or row.reason or "",
        about,
    ]


def _json(row: IndexColumns) -> dict[str, Any]:
    return {
        "index": row.index,
        "statedOn": row.stated_on,
        "kind": row.kind,
        "invocationId": row.invocation_id,
        "requestId": row.request_id,
        "backend": row.backend,
        "task": row.task,
        "agent": row.agent,
        "status": row.status,
        "reason": row.reason,
        "intent": row.intent,
    }


@command.command("show")
@click.argument("index", type=click.IntRange(0))
@ledger_options
@click.option("--raw", is_flag=True, help="The leaf: the envelope's exact bytes.")
def show(index: int, source: Source, raw: bool) -> None:
    """Show one entry: its receipt as JSON, or with --raw the exact bytes of its envelope."""
    with reading(source) as reader:
        leaf = leaf_at(reader, index)
    if raw:
        sys.stdout.buffer.write(leaf)
        sys.stdout.buffer.flush()
        return
    import orjson

    show_json(orjson.loads(parse_envelope(leaf).payload))


@command.command("checkpoint")
@ledger_options
def checkpoint(source: Source) -> None:
    """Print the newest checkpoint. Keep it elsewhere: `verify --checkpoint` shows that nothing below it changed."""
    with reading(source) as reader:
        note = newest_checkpoint(reader)
    sys.stdout.buffer.write(note)
    sys.stdout.buffer.flush()
