"""`govrun verify` of a file that is the proof of one entry: whose keys count, and how the verdict is shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

import click

from govrun.audit.trust import TrustedKeys
from govrun.cli.output import look, show_bytes
from govrun.cli.reading import pin_of, whom_to_trust
from govrun.digest import without_waiting
from govrun.inclusion import InclusionReport, origin_of, verify_entry
from govrun.ledger.proof import MAX_PROOF_BYTES, is_proof
from govrun.world import real_world


def read_proof(location: str | None) -> bytes | None:
    """The bytes of a proof file, at most one more than a proof may have; None for anything that is no proof."""
    if location is None:
        return None
    try:
        with open(location, "rb", buffering=0, opener=without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            head = file.read(64)
            return head + file.read(MAX_PROOF_BYTES + 1 - len(head)) if is_proof(head) else None
    except (OSError, ValueError):
        # Whatever is wrong with it is said where it is opened as a ledger.
        return None


def examine(data: bytes, options: Mapping[str, Any]) -> InclusionReport:
    """Judge a proof by the keys, the pin and the demands of the command line."""
    if options["at"] is not None or options["home"] is not None:
        raise click.UsageError("--at and --home go with a ledger, and this is a proof of one entry")
    trust, trusted = whom_to_trust(options, origin_of(data), real_world())
    return verify_entry(data, trusted or TrustedKeys(), pin_of(options["checkpoint"], trust), options["require"])


def conclude_proof(report: InclusionReport, form: str) -> int:
    """Show the verdict on stdout; its exit code."""
    if form == "json":
        from govrun.formats import inclusion_json

        show_bytes(inclusion_json.render(report))
    else:
        from govrun.formats import inclusion_text

        click.echo(inclusion_text.render(report, **look()), nl=False)
    return int(report.exit_code)
