"""Whose signatures count: the keys that the verifier brought, and what the root key changed since.

Keys inside the ledger are never trust. A genesis that stands under a trusted key vouches for the keys it names: under
a trusted log key for the receipt key, and the other way round. Without any trusted key the ledger is checked against
the keys that it names itself, which shows that it fits together and nothing about who wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from govrun.audit.bookmark import Ring
from govrun.audit.report import Finding, finding_of
from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.home import Trust
from govrun.receipt import Statement, parse_statement
from govrun.signing.dsse import parse_envelope, verify_envelope
from govrun.signing.keys import Verifier, verifier_for

Role = Literal["root", "log", "receipt"]
ROLES: tuple[Role, ...] = ("root", "log", "receipt")


@frozen
class TrustedKeys:
    """What a verifier trusts about one ledger, by role; a role without keys is empty. origin: None for any."""

    log: tuple[Verifier, ...] = ()
    receipt: tuple[Verifier, ...] = ()
    root: tuple[Verifier, ...] = ()
    origin: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.log or self.receipt)


def trusted_by(trust: Trust) -> TrustedKeys:
    """The keys of a trust file."""
    return TrustedKeys((trust.log,), trust.receipt, (trust.root,), trust.origin)


@frozen
class Keys:
    """The keys that an audit begins with, and the roles whose keys come from the ledger's own genesis."""

    log: tuple[Verifier, ...]
    receipt: tuple[Verifier, ...]
    root: tuple[Verifier, ...]
    from_genesis: tuple[Role, ...]


def first_keys(origin: str, trusted: TrustedKeys, genesis: JsonObject | None) -> Keys:
    """Fill the roles that were not given from an unverified genesis predicate; it is verified as entry 0 later."""
    given = {"root": trusted.root, "log": trusted.log, "receipt": trusted.receipt}
    borrowed = tuple(role for role in ROLES if not given[role])
    for role in borrowed:
        given[role] = _named(origin, role, genesis)
    return Keys(given["log"], given["receipt"], given["root"], borrowed)


def _named(origin: str, role: Role, genesis: JsonObject | None) -> tuple[Verifier, ...]:
    if genesis is None:
        return ()
    name = origin if role == "log" else f"{origin}/{role}"
    try:
        return (verifier_for(name[:255], bytes.fromhex(genesis["keys"][role]["publicKey"])),)
    except GovrunError:
        # A key that nobody could verify with: whatever it signed is then reported as untrusted.
        return ()


def genesis_findings(genesis: JsonObject, trusted: TrustedKeys) -> tuple[Finding, ...]:
    """Where the genesis names other keys than the verifier trusts."""
    given = {"root": trusted.root, "log": trusted.log, "receipt": trusted.receipt}
    findings = []
    for role in ROLES:
        named = genesis["keys"][role]["publicKey"]
        trusted_here = [verifier.public.hex() for verifier in given[role]]
        if trusted_here and named not in trusted_here:
            findings.append(
                Finding(
                    "genesis",
                    "genesis.keys",
                    "error",
                    0,
                    f"the genesis names another {role} key than the trusted one",
                    named[:16],
                    " or ".join(key[:16] for key in trusted_here),
                    ExitCode.SIGNATURE_UNTRUSTED,
                )
            )
    return tuple(findings)


@frozen
class Revocation:
    """A receipt key that the entry at index revoked; receipts from suspect_from on are suspect, None for none."""

    number: int
    index: int
    suspect_from: int | None
    reason: str = ""


_BEFORE = -1


class KeyRing:
    """Which receipt keys count at the index that was reached; they are numbered and never forgotten.

    Only key changes that the root key signed alter it, in the order of the ledger.
    """

    def __init__(self, keys: Keys, since: Ring | None = None) -> None:
        """since: what a bookmark says of the keys that the entries before left, None to begin with the first."""
        if since is None:
            self.receipts = tuple({verifier.public: verifier for verifier in keys.receipt}.values())
            self.revocations: list[Revocation] = []
            self._roots = list(keys.root)
        else:
            self.receipts = since.counting
            # What they signed lies below the bookmark's checkpoint, where nothing is suspect.
            self.revocations = [Revocation(number, _BEFORE, None) for number in since.revoked]
            self._roots = list(since.roots)
        first = {verifier.public for verifier in keys.receipt}
        self._added = [(_BEFORE, verifier) for verifier in self.receipts if verifier.public not in first]

    def apply(self, index: int, leaf: bytes) -> Finding | None:
        """Take over a key change, or say why it does not count; its own form and place are judged elsewhere.

        keyAdded: the new key, which so proves that somebody holds it, then the root key. keyRevoked: the root key.
        """
        statement = parse_statement(parse_envelope(leaf).payload)
        try:
            if statement.kind == "keyAdded":
                self._add(statement, leaf, index)
            else:
                verify_envelope(leaf, self._roots, 1)
                self._revoke(statement, index)
        except GovrunError as error:
            return finding_of(error, "keyChanges", index, rule=f"key.{error.rule}")
        return None

    def _add(self, statement: Statement, leaf: bytes, index: int) -> None:
        predicate = statement.predicate
        role = predicate["role"]
        name = f"{statement.position.origin}/{role}"[:255]
        new = verifier_for(name, bytes.fromhex(predicate["key"]["publicKey"]))
        verified = verify_envelope(leaf, [new, *(root for root in self._roots if root.public != new.public)], 2)
        if verified.verifiers[0] != new:
            raise GovrunError(
                ExitCode.SIGNATURE_UNTRUSTED,
                "order",
                "the new key must sign first, then the root key",
                found=verified.verifiers[0].name,
                expected=new.name,
            )
        if role == "root":
            self._roots.append(new)
        elif self.number_of(new.public) is None:
            self.receipts = (*self.receipts, new)
            self._added.append((index, new))

    def _revoke(self, statement: Statement, index: int) -> None:
        predicate = statement.predicate
        public = bytes.fromhex(predicate["key"]["publicKey"])
        suspect_from = predicate["suspectFromIndex"]
        if suspect_from is not None and suspect_from > index:
            raise GovrunError(
                ExitCode.LEDGER_INCONSISTENT,
                "suspectFrom",
                "a key is suspect from a later entry than the one that revokes it",
                found=f"entry {suspect_from}",
                expected=f"at most {index}",
            )
        if predicate["role"] == "root":
            left = [root for root in self._roots if root.public != public]
            if not left:
                raise GovrunError(
                    ExitCode.LEDGER_INCONSISTENT,
                    "lastRoot",
                    "the last root key that counts is revoked",
                    found=public.hex()[:16],
                    expected="another root key that counts",
                )
            self._roots = left
        elif (number := self.number_of(public)) is not None:
            self.revocations.append(Revocation(number, index, predicate["suspectFromIndex"], str(predicate["reason"])))

    def lines(self) -> Iterator[str]:
        """What the root key changed, for people: receipt keys that it added to the trusted ones, and revoked ones."""
        for index, added in self._added:
            where = "before" if index == _BEFORE else f"in entry {index}"
            yield f"receipt key {_spelled(added)} counts because the root key added it {where}"
        for revocation in self.revocations:
            if revocation.index == _BEFORE:
                yield f"receipt key {_spelled(self.receipts[revocation.number])} was revoked before"
                continue
            suspect = "" if revocation.suspect_from is None else f"; suspect from entry {revocation.suspect_from} on"
            yield (
                f"receipt key {_spelled(self.receipts[revocation.number])} was revoked in entry {revocation.index}"
                f" ({revocation.reason}){suspect}"
            )

    def state(self, keys: Keys) -> Ring:
        """What a bookmark keeps of it; keys: those it began with."""
        revoked = tuple(sorted({revocation.number for revocation in self.revocations}))
        first = (keys.log, keys.receipt, keys.root, keys.from_genesis)
        return Ring(*first, self.receipts, revoked, tuple(self._roots))

    def number_of(self, public: bytes) -> int | None:
        """The number of a receipt key, None if it never counted."""
        return next((n for n, verifier in enumerate(self.receipts) if verifier.public == public), None)

    def is_revoked(self, number: int, index: int) -> bool:
        """Whether a receipt key no longer counted at an index."""
        return any(r.number == number and r.index < index for r in self.revocations)

    def signer_of(self, leaf: bytes) -> int | None:
        """The number of the key that signed a leaf, of all that count so far; None if none did."""
        try:
            verified = verify_envelope(leaf, self.receipts, 1)
        except GovrunError:
            return None
        return self.number_of(verified.verifiers[0].public)


def _spelled(verifier: Verifier) -> str:
    return f"{verifier.name}+{verifier.key_id.hex()}"
