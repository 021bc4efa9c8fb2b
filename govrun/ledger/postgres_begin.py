"""How a shared ledger begins: its first entry, in a database that was made ready for it."""

from __future__ import annotations

from pathlib import Path

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Appended, Writer
from govrun.ledger.guard import Guard
from govrun.ledger.postgres import WAIT_MS, open_store
from govrun.receipt import Draft
from govrun.signing.keys import Signer
from govrun.world import World


def begin_ledger(
    url: str,
    directory: Path,
    genesis: Draft,
    receipt_signer: Signer,
    log_signer: Signer,
    guard: Guard,
    world: World,
    wait_ms: int = WAIT_MS,
) -> Appended:
    """Append entry 0 to the empty ledger of a database; its origin is the log key's name.

    The URL's role must be one that may sign. GovrunError (ledger-unavailable): another ledger has begun there
    (`ledger.exists`); otherwise as `Writer.append`.
    """
    with open_store(url, directory, world, wait_ms) as store:
        if store.origin or store.size():
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.exists",
                "a ledger has begun in this database",
                found=store.origin,
                expected="a database that `govrun ledger prepare` has just made ready",
                fix="name another database, or use the keys and the trust file of that ledger",
            )
        store.begin(log_signer.verifier.name)
        return Writer(store, receipt_signer, log_signer, guard).append([genesis])[0]
