"""`govrun ledger consistency`: does the newer checkpoint continue the history of the older one?"""

from __future__ import annotations

from typing import Any

import click

from govrun.cli.one_ledger import Source, ledger_options, newest_checkpoint, reading
from govrun.cli.output import printable, show_json
from govrun.cli.reading import log_keys, read_checkpoint, trust_options
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.extension import prove_extension


@click.command("consistency")
@click.argument("old")
@click.argument("new", required=False)
@ledger_options
@trust_options
@click.option("--json", "as_json", is_flag=True, help="For programs; with the hashes of the proof.")
def consistency(old: str, new: str | None, source: Source, as_json: bool, **trust: Any) -> None:
    """Prove that checkpoint NEW (default: the ledger's newest) continues the history of checkpoint OLD.

    Both are files that `govrun ledger checkpoint` printed. Both must be signed by a trusted log key; the proof is made
    from the ledger's hashes and verified against both roots. Exit code 0 is yes, 44 no.
    """
    with reading(source) as reader:
        trusted = log_keys(trust, reader.origin, source.own_home)
        origin = trusted.origin or reader.origin
        first, last = (
            verify_checkpoint(note, origin, trusted.log)
            for note in (read_checkpoint(old), newest_checkpoint(reader) if new is None else read_checkpoint(new))
        )
        proof = prove_extension(reader, first, last)
    if as_json:
        heads = {
            name: {"size": one.checkpoint.size, "rootHash": one.checkpoint.root.hex()}
            for name, one in (("old", first), ("new", last))
        }
        hashes = [one.hex() for one in proof.hashes]
        show_json({"format": 1, "verdict": "yes", "origin": origin, **heads, "hashes": hashes})
        return
    click.echo(
        f"yes: the {proof.new_size:,} entries of {printable(origin)} begin with the {proof.old_size:,} of the older"
        f" checkpoint (proof of {len(proof.hashes)} hashes)"
    )
