"""`govrun ledger export`: one file for an auditor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from govrun.cli.kept_policies import policy_by_digest
from govrun.cli.one_ledger import Source, ledger_options, reading
from govrun.cli.output import note, progress, show_json
from govrun.cli.reading import head_key, log_keys, trust_options
from govrun.world import real_world


@click.command("export")
@click.argument("file")
@ledger_options
@trust_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def export(file: str, source: Source, as_json: bool, **trust: Any) -> None:
    """Export the ledger as one new zip FILE for an auditor: entries, tree, checkpoint, policies, schemas.

    Every command that reads a ledger reads it, and unpacked it is a published ledger. Keys and salts are not in it:
    whom to trust is told elsewhere. Equal ledgers give equal bytes.
    """
    from govrun.ledger.export import export as write

    with reading(source) as reader:
        verifier = head_key(log_keys(trust, reader.origin, source.own_home), reader)
        policies = policy_by_digest(source.location, source.own_home)
        done = write(reader, Path(file), verifier, policies, real_world(), progress("exporting"))
    if as_json:
        show_json(
            {
                "file": file,
                "size": done.size,
                "members": done.members,
                "bytes": done.byte_count,
                "policiesMissing": list(done.missing),
            }
        )
        return
    note(f"exported {done.size} entries: {done.members} files, {done.byte_count} bytes in {file}")
    if done.missing:
        note(f"not in it, because they are not kept here: {len(done.missing)} policies that the entries name")
