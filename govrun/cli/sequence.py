"""`govrun ledger sequence`: sign checkpoints for a shared ledger whose writers do not hold the log key."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from govrun.cli.common import ask_passphrase, find_settings
from govrun.cli.output import note
from govrun.errors import ExitCode, GovrunError

_IDLE_S: Final = 0.02
_AWAY_S: Final = 1.0
# What passes by itself: a server that restarts, a writer that holds its turn for too long.
_PASSING: Final = ("ledger.unreachable", "ledger.locked", "ledger.deadline", "ledger.heldTooLong", "ledger.otherHead")


@click.command("sequence")
@click.option("--once", is_flag=True, help="Sign for what is there, then end.")
@click.option(
    "--home", metavar="DIR", help="The .govrun with the log key (default: GOVRUN_HOME, then upward from here)."
)
@click.option("--ledger", metavar="URL", help="Ledger to use instead of the home's.")
def sequence(once: bool, **options: Any) -> None:
    """Sign checkpoints for a shared ledger, until ended.

    Every entry behind the last checkpoint is read and judged first: its place, the chain, the tree, and a signature by
    a key of your trust file, or by one that its root key added. One that fails ends this, and nothing is signed.
    """
    from govrun.sequencing import open_sequencer
    from govrun.signing.passphrase import Passphrases

    world, settings = find_settings(options)
    passphrases = Passphrases(world.environ, ask_passphrase)
    while True:
        try:
            with open_sequencer(world, settings, passphrases) as sequencer:
                while True:
                    signed = sequencer.step()
                    if signed is not None:
                        note(f"signed for {signed.size} entries")
                    elif once:
                        return
                    else:
                        time.sleep(_IDLE_S)
        except GovrunError as error:
            if once or error.code is not ExitCode.LEDGER_UNAVAILABLE or error.rule not in _PASSING:
                raise
            note(f"{error.what} [{error.rule}]; trying again")
            time.sleep(_AWAY_S)
