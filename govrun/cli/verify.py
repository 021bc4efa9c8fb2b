"""`govrun verify`: are these the bytes that were signed, in this order, and nothing else?"""

from __future__ import annotations

import sys
from typing import Any

import click

from govrun.cli.proof_file import conclude_proof, examine, read_proof
from govrun.cli.reading import audit_options, conclude, open_reading


@click.command("verify")
@audit_options
@click.option(
    "--json", "as_json", is_flag=True, help="For programs; schemas/report.v1.json, of a proof inclusion.v1.json."
)
def command(as_json: bool, **options: Any) -> None:
    """Verify a ledger: chain, tree, checkpoint, signatures, schemas, open intents; then integrity and assurance.

    LEDGER is a SQLite file, a .govrun directory or a published directory (default: the home's), or a file that
    `govrun ledger prove` wrote: then that one entry is verified, without its ledger. Nothing is changed, and no file is
    left beside what is read. Exit code 0 is yes, 40-44 no, 45 no verdict.
    """
    form = "json" if as_json else "text"
    if (proof := read_proof(options["ledger"])) is not None:
        sys.exit(conclude_proof(examine(proof, options), form))
    from govrun.audit.verify import verify_ledger

    with open_reading(options) as reading:
        report = verify_ledger(reading.reader, reading.trusted, reading.question)
    sys.exit(conclude(report, form))
