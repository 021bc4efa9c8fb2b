"""`govrun ledger consistency`: does the newer checkpoint continue the history of the older one?"""

from __future__ import annotations

from typing import Any

import click

from govrun.cli.common import find_settings
from govrun.cli.one_ledger import ledger_options, newest_checkpoint, reading
from govrun.cli.output import printable, show_json
from govrun.cli.reading import read_checkpoint, trust_options, whom_to_trust
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.extension import prove_extension
from govrun.world import real_world


@click.command("consistency")
@click.argument("old")
@click.argument("new", required=False)
@ledger_options
@trust_options
@click.option("--json", "as_json", is_flag=True, help="For programs; with the hashes of the proof.")
def consistency(old: str, new: str | None, ledger: str | None, home: str | None, as_json: bool, **trust: Any) -> None:
    """Prove that checkpoint NEW (default: the ledger's newest) continues the history of checkpoint OLD.

    Both are files that `govrun ledger checkpoint` printed. Both must be signed by a trusted log key; the proof is made
    from the ledger's hashes and verified against both roots. Exit code 0 is yes, 44 no.
    """
    own = find_settings({"home": home})[1].home if ledger is None else None
    with reading(ledger, home) as reader:
        _, trusted = whom_to_trust(trust, reader.origin, real_world(), own)
        if trusted is None or not trusted.log:
            raise _no_key()
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


def _no_key() -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "assurance.unauthenticated",
        "no trusted log key was given",
        found="only keys that the ledger names itself",
        expected="--key, --trust, or a trust file of yours for this origin",
    )
