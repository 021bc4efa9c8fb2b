"""What a verdict rests on: integrity, assurance, the evidence that was asked for, and all that in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from govrun.audit.question import Question, Requirement
from govrun.audit.report import Assurance, Finding, Integrity, Tally
from govrun.audit.trust import Keys, TrustedKeys
from govrun.canonical import JsonObject
from govrun.errors import ExitCode
from govrun.frozen import frozen
from govrun.signing.keys import Verifier


@frozen
class Basis:
    """What words about a verdict depend on.

    pinned: entries below the pinned checkpoint that holds, None for none. checked_from: the first entry that was read.
    tally: what was found, for the guard.
    """

    assurance: Assurance
    integrity: Integrity
    pinned: int | None
    checked_from: int
    tally: Tally

    @property
    def is_guarded(self) -> bool:
        """Whether the ledger continues the head that the guard remembers."""
        return self.tally.judged("guard") > 0 and not self.tally.failed("guard")


def integrity_of(tally: Tally, is_whole: bool) -> Integrity:
    """is_whole: every entry could be read."""
    if tally.is_broken():
        return "broken"
    return "intact" if is_whole else "unusable"


def assurance_of(tally: Tally, trusted: TrustedKeys, integrity: Integrity, pinned: int | None) -> Assurance:
    """The assurance; that no trusted key was given is told in tally."""
    if trusted.is_empty:
        tally.add(
            _missing(
                "assurance.unauthenticated",
                "no trusted key was given",
                "only keys that the ledger names itself",
                "a log or receipt key that you got elsewhere",
                ExitCode.COULD_NOT_CHECK,
            )
        )
        return "unauthenticated"
    # Keys that signed something else than this ledger, whole, vouch for nothing in it.
    if integrity != "intact":
        return "unauthenticated"
    return "keyed" if pinned is None else "pinned"


def require(tally: Tally, required: Collection[Requirement], assurance: Assurance) -> None:
    """Tell in tally which of the demanded assurance is not there."""
    reached = {"unauthenticated": (), "keyed": ("keyed",), "pinned": ("keyed", "pinned")}[assurance]
    for level in ("keyed", "pinned"):
        if level not in required:
            continue
        tally.judge("assurance")
        if level not in reached:
            what = "the evidence that was asked for is not there"
            tally.add(_missing(f"assurance.{level}", what, assurance, level, ExitCode.EVIDENCE_INCOMPLETE))


def _missing(rule: str, what: str, found: str, expected: str, code: ExitCode) -> Finding:
    return Finding("assurance", rule, "error", None, what, found, expected, code)


def reword(tally: Tally, trusted: TrustedKeys) -> None:
    """Without a trusted key the checks are made with the keys that the ledger names itself, and say so."""
    if trusted.is_empty:
        tally.reword("checkpoint", "latest checkpoint signed by the log key that the ledger names itself")
        tally.reword("signatures", "receipts signed by the key that the ledger names itself")
        tally.reword("genesis", "ledger begins with its one genesis")


_SIGNERS: Final = {
    True: "writers-hold-log-key: the database takes checkpoints from whoever appends",
    False: "sequencer-holds-log-key: the database takes checkpoints from its sequencer alone; that no writer has a copy"
    " of the log key, it cannot show",
}


def assurance_lines(
    basis: Basis, trusted: TrustedKeys, keys: Keys, question: Question, told: Iterable[str]
) -> Iterator[str]:
    """What the assurance rests on, for people; told: what the ledger, if it is not broken, says of its own keys."""
    if trusted.is_empty:
        yield "no trusted key was given, and anybody can make up a ledger with keys of its own"
    elif basis.assurance == "unauthenticated":
        yield f"the trusted keys vouch for nothing here, because integrity is {basis.integrity}"
    else:
        yield f"signed by {_names('log', trusted.log)} and {_names('receipt', trusted.receipt)}"
        if "receipt" in keys.from_genesis:
            yield "receipt key: the one that the genesis names, which stands under the trusted log key"
        if "log" in keys.from_genesis:
            yield "log key: the one that the genesis names, which the trusted receipt key signed"
        if basis.pinned is not None:
            yield f"begins with the {basis.pinned} entries of the pinned checkpoint"
        yield from told
        if basis.checked_from:
            yield f"bookmark: vouches for the first {basis.checked_from} entries, which were not read again"
        if basis.is_guarded:
            yield (
                "guard: continues the head that was last seen from here, which stops accidents; whoever can write the"
                " ledger here can write the guard too"
            )
    if question.writers_hold_log_key:
        yield f"writers-hold-log-key: {question.keys_lie} can rewrite whatever is not pinned elsewhere"
    if question.writers_may_sign is not None:
        yield _SIGNERS[question.writers_may_sign]


def continued(genesis: JsonObject | None) -> Iterator[str]:
    """What a genesis says of the ledger before it."""
    before = None if genesis is None else genesis["continues"]
    if before is not None:
        lost = "none" if before["loss"] == "none" else f"{before['lostEntries']}"
        if before["loss"] == "unknown":
            lost = "how many is not known"
        yield (
            f"continues {before['origin']} after its {before['size']} entries, root {before['rootHash'][:16]}...;"
            f" lost behind them, as its genesis claims: {lost}"
        )


def _names(role: str, verifiers: Collection[Verifier]) -> str:
    if not verifiers:
        return f"the {role} key named in the genesis"
    keys = ", ".join(f"{verifier.name}+{verifier.key_id.hex()}" for verifier in verifiers)
    return f"the trusted {role} key{'s' if len(verifiers) > 1 else ''} {keys}"


def not_shown(basis: Basis) -> Iterator[str]:
    """What no such verdict shows."""
    yield "that what a receipt claims is true, or that the model really ran"
    yield "that nothing ran without govrun"
    yield "when anything happened: every time is the operator's claim"
    if basis.checked_from:
        yield f"that the entries before {basis.checked_from} are still stored as they were: they were not read again"
    if basis.assurance == "pinned":
        yield "truncation: not checked behind the pinned checkpoint"
    else:
        yield "truncation: not checked; entries cut off the end would not be missed without a pinned checkpoint"
