"""Who may have signed what a sequencer signs for: its own trust file says so, and the key changes that root signed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from govrun.api import open_own_store
from govrun.audit.trust import KeyRing, Keys
from govrun.errors import ExitCode, GovrunError
from govrun.home import Trust, read_trust_files
from govrun.keystate import key_entries
from govrun.ledger.guard import Guard, heads_directory
from govrun.ledger.read import open_ledger
from govrun.ledger.sequence import Sequencer
from govrun.receipt import Statement, parse_statement
from govrun.settings import Settings
from govrun.signers import log_signer
from govrun.signing.dsse import parse_envelope, verify_envelope
from govrun.signing.passphrase import Passphrases
from govrun.world import World

_KEY_KINDS: Final = ("keyAdded", "keyRevoked")


class Judge:
    """What a sequencer asks about each leaf (a `sequence.Judge`), with the ring of keys that count so far."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def __call__(self, index: int, leaf: bytes) -> Statement:
        statement = parse_statement(parse_envelope(leaf).payload)
        if statement.kind in _KEY_KINDS:
            finding = self._ring.apply(index, leaf)
            if finding is not None:
                raise GovrunError(
                    ExitCode.SIGNATURE_UNTRUSTED,
                    finding.rule,
                    finding.what,
                    found=finding.found,
                    expected=finding.expected,
                    effect="nothing was signed",
                )
            return statement
        revoked = {revocation.number for revocation in self._ring.revocations}
        verify_envelope(leaf, [key for number, key in enumerate(self._ring.receipts) if number not in revoked])
        return statement


@contextmanager
def open_sequencer(world: World, settings: Settings, passphrases: Passphrases) -> Iterator[Sequencer]:
    """The sequencer of the ledger that the settings name, under the log key of the home; GovrunError (15, 45)."""
    with closing(open_own_store(world, settings)) as store:
        trust = trusted_for(world, store.origin)
        log = log_signer(world, settings, store.origin, passphrases)
        if log.verifier.public != trust.log.public:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.origin",
                "the log key of the home is not the one that your trust file names",
                found=log.verifier.name,
                expected=trust.log.name,
            )
        ring = KeyRing(Keys(log=(trust.log,), receipt=trust.receipt, root=(trust.root,), from_genesis=()))
        with closing(open_ledger(settings.ledger)) as reader:
            for index, leaf in key_entries(reader):
                ring.apply(index, leaf)
        yield Sequencer(store, log, Guard(heads_directory(world.environ), log.verifier, world), Judge(ring))


def trusted_for(world: World, origin: str) -> Trust:
    """This user's trust file for an origin; GovrunError (could-not-check) if there is none."""
    for trust in read_trust_files(world):
        if trust.origin == origin:
            return trust
    raise GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "trust.missing",
        "no trust file of yours is about this ledger",
        found=origin,
        expected="the trust file that `govrun init` made, copied here",
    )
