"""Who signs for a ledger: for each role a key file of the home, or an ssh-agent that the operator named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.keyuse import using
from govrun.ledger.store import Reads
from govrun.settings import AGENT_PREFIX, Settings
from govrun.signing.keyfile import open_key
from govrun.signing.keys import Signer
from govrun.signing.passphrase import Passphrases
from govrun.world import World

KEYS_DIRECTORY: Final = "keys"


@frozen
class Signers:
    """The two keys that every append needs, each under the name of its role."""

    receipt: Signer
    log: Signer


@contextmanager
def open_signers(
    world: World, settings: Settings, store: Reads, passphrases: Passphrases, counts: Callable[[bytes], bool]
) -> Iterator[Signers]:
    """Both signers of a ledger; while this lasts the receipt key is not revoked on this machine.

    counts: whether the ledger names a receipt key (32 bytes) that counts, asked where that is not known yet.
    GovrunError (ledger-unavailable): a key that is missing, unfit, of another ledger, revoked, or that an agent lacks.
    """
    origin = store.origin
    log = log_signer(world, settings, origin, passphrases)
    if log.verifier.name != origin:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.origin",
            "the log key belongs to another ledger",
            found=log.verifier.name,
            expected=origin,
            fix="use the log key that was made with this ledger",
        )
    with open_receipt_signer(world, settings, store, passphrases, counts) as receipt:
        yield Signers(receipt, log)


@contextmanager
def open_receipt_signer(
    world: World, settings: Settings, store: Reads, passphrases: Passphrases, counts: Callable[[bytes], bool]
) -> Iterator[Signer]:
    """The signer of receipts alone, where another signs checkpoints; otherwise as `open_signers`."""
    origin = store.origin
    receipt = one_signer(world, settings, "receipt", origin, passphrases)
    expected = f"{origin}/receipt"
    # What it signed would be trusted by nobody who trusts this ledger.
    if receipt.verifier.name != expected:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.receiptKey",
            "the receipt key belongs to another ledger",
            found=receipt.verifier.name,
            expected=expected,
            fix="use the receipt key that was made with this ledger",
        )
    with using(settings.home / KEYS_DIRECTORY, receipt.verifier, store, lambda: counts(receipt.verifier.public)):
        yield receipt


def log_signer(world: World, settings: Settings, origin: str, passphrases: Passphrases) -> Signer:
    """The signer of checkpoints; whether it is this log's is seen when the newest checkpoint is verified."""
    return one_signer(world, settings, "log", origin, passphrases)


def one_signer(world: World, settings: Settings, role: str, origin: str, passphrases: Passphrases) -> Signer:
    """The signer that the settings name for `receipt` or `log`."""
    named = settings.signer if role == "receipt" else settings.log_signer
    name = origin if role == "log" else f"{origin}/{role}"
    return signer_named(named, role, name, world, passphrases, key_path(settings.home, role))


def signer_named(
    named: str, role: str, name: str, world: World, passphrases: Passphrases, default: Path | None
) -> Signer:
    """The signer that a setting names: `file` for a default file, or `ssh-agent:SHA256:...`."""
    if named.startswith(AGENT_PREFIX):
        from govrun.signing.ssh_agent import agent_signer

        return agent_signer(world.environ, named.removeprefix(AGENT_PREFIX), name, world)
    if default is None:
        raise GovrunError(
            ExitCode.USAGE,
            "signer.none",
            f"no {role} key is named",
            expected=f"a key file, or {AGENT_PREFIX}SHA256:...",
        )
    return open_key(default, role, name, passphrases)


def key_path(home: Path, role: str) -> Path:
    """Where a home keeps the key of a role."""
    return home / KEYS_DIRECTORY / f"{role}.key"
