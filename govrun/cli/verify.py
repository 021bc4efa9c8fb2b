"""`govrun verify`: are these the bytes that were signed, in this order, and nothing else?"""

from __future__ import annotations

import sys
from typing import Any

import click

from govrun.cli.proof_file import conclude_proof, examine, read_proof
from govrun.cli.reading import audit_options, conclude, open_reading


@click.command("verify")
@audit_options
@click.option("--content", metavar="FILE", help="What a field of a receipt commits to; goes with --disclosure.")
@click.option("--disclosure", metavar="FILE", help="What `govrun ledger disclose` gave for that field.")
@click.option(
    "--json", "as_json", is_flag=True, help="For programs; schemas/report.v1.json, of a proof inclusion.v1.json."
)
def command(as_json: bool, disclosure: str | None, content: str | None, **options: Any) -> None:
    """Verify a ledger: chain, tree, checkpoint, signatures, schemas, open intents; then integrity and assurance.

    LEDGER is a SQLite file, a .govrun, a published directory or its URL, an export, or a PostgreSQL URL (default: the
    home's), or a file that `govrun ledger prove` wrote: then that one entry is verified, without its ledger. Nothing is
    changed, and no file is left beside what is read. Exit code 0 is yes, 40-44 no, 45 no verdict.
    """
    form = "json" if as_json else "text"
    if options["bookmark"] is not None and (disclosure is not None or read_proof(options["ledger"]) is not None):
        raise click.UsageError("--bookmark goes with a ledger, and neither with --disclosure nor with a proof")
    if disclosure is not None or content is not None:
        sys.exit(_disclosed(disclosure, content, options, form))
    if (proof := read_proof(options["ledger"])) is not None:
        sys.exit(conclude_proof(examine(proof, options), form))
    from govrun.audit.verify import verify_ledger

    with open_reading(options) as reading:
        report = verify_ledger(reading.reader, reading.trusted, reading.question)
    sys.exit(conclude(report, form, options["bookmark"]))


def _disclosed(disclosure: str | None, content: str | None, options: dict[str, Any], form: str) -> int:
    from govrun.audit.verify import verify_ledger
    from govrun.cli.disclosed import conclude_disclosed, open_from_ledger, open_from_proof, read_disclosure

    if disclosure is None or content is None:
        raise click.UsageError("--disclosure and --content go together")
    asked = read_disclosure(disclosure)
    if (proof := read_proof(options["ledger"])) is not None:
        included = examine(proof, options)
        return conclude_disclosed(asked, included, open_from_proof(asked, included, proof, content), form)
    with open_reading(options) as reading:
        report = verify_ledger(reading.reader, reading.trusted, reading.question)
        result = open_from_ledger(asked, report, reading.reader, content)
    return conclude_disclosed(asked, report, result, form)
