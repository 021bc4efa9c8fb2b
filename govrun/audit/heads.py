"""Heads of a ledger that its verifier kept or remembers: the pinned checkpoint, a bookmark's, the rollback guard's.

A kept head shows what was changed or cut below it. It is worth what its place is worth: one that lies where the
ledger's writer cannot reach it stops the writer too, the guard's only stops accidents.
"""

from __future__ import annotations

from typing import Final, Literal

from govrun.audit.question import Question, Remembered
from govrun.audit.report import Finding, Tally, finding_of
from govrun.audit.trust import Keys
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.checkpoint import Checkpoint, verify_checkpoint

Check = Literal["pin", "guard"]

_WHOSE: Final[dict[Check, str]] = {"pin": "the pinned checkpoint", "guard": "the head that was seen from here"}


@frozen
class KeptHead:
    """A head whose signature was verified. may_lag: the ledger may end before it, which is then only told."""

    check: Check
    checkpoint: Checkpoint
    may_lag: bool = False

    def differs(self, found: bytes) -> Finding:
        """The finding that the entries below it are others; found: the root they have."""
        size = self.checkpoint.size
        return Finding(
            self.check,
            f"{self.check}.root",
            "error",
            size - 1,
            f"the first {size} entries are not those of {_WHOSE[self.check]}",
            found.hex()[:16],
            self.checkpoint.root.hex()[:16],
            ExitCode.HISTORY_DIVERGED,
        )

    def is_longer(self, size: int) -> Finding:
        """The finding that a ledger of size entries ends before it."""
        what = f"the ledger ends before {_WHOSE[self.check]} does"
        return Finding(
            self.check,
            f"{self.check}.longer",
            "warning" if self.may_lag else "error",
            size,
            f"{what}; this is a copy, and may be an older one" if self.may_lag else what,
            f"{size} entries",
            f"at least {self.checkpoint.size}",
            None if self.may_lag else ExitCode.HISTORY_DIVERGED,
        )


def kept_heads(question: Question, origin: str, keys: Keys | None, tally: Tally) -> tuple[KeptHead, ...]:
    """Every kept head that a key of the log signed; whatever is wrong with one of them is told in tally.

    keys: those by which the ledger is judged, None if the verifier brought none.
    """
    notes = [] if question.pinned is None else [question.pinned]
    if question.bookmark is not None:
        notes.append(question.bookmark.checkpoint)
    heads = [_pinned(note, origin, keys, tally) for note in notes]
    if question.remembered is not None:
        heads.append(_seen(question.remembered, origin, keys, tally))
    return tuple(head for head in heads if head is not None)


def _pinned(note: bytes, origin: str, keys: Keys | None, tally: Tally) -> KeptHead | None:
    """A pinned checkpoint, under a key that the verifier trusts; its root is compared on the way."""
    tally.judge("pin")
    if keys is None:
        tally.add(_unchecked("pin.unverified", "a pinned checkpoint needs a trusted key", "no key", "the log's key"))
        return None
    try:
        pin = verify_checkpoint(note, origin, keys.log).checkpoint
    except GovrunError as error:
        tally.add(finding_of(error, "pin", None, rule=f"pin.{error.rule}"))
        return None
    if pin.size == 0:
        tally.add(_unchecked("pin.empty", "the pinned checkpoint is over no entries", "size 0", "at least 1"))
        return None
    return KeptHead("pin", pin)


def _unchecked(rule: str, what: str, found: str, expected: str) -> Finding:
    return Finding("pin", rule, "error", None, what, found, expected, ExitCode.COULD_NOT_CHECK)


def _seen(remembered: Remembered, origin: str, keys: Keys | None, tally: Tally) -> KeptHead | None:
    """The greatest head that the guard remembers; what is not usable there is told and demands nothing."""
    if keys is None:
        tally.note("guard", "needs a trusted key")
        return None
    if remembered.problem is not None:
        tally.add(_told("guard.unusable", "the head that was seen from here cannot be read", remembered.problem))
        return None
    seen = []
    for note in remembered.notes:
        try:
            seen.append(verify_checkpoint(note, origin, keys.log).checkpoint)
        except GovrunError:
            # Torn by a power failure, or another log's; one good slot is enough, and none is told below.
            continue
    if not seen:
        tally.add(_told("guard.foreign", "the head remembered for this origin is not by this log's key", "other notes"))
        return None
    tally.judge("guard")
    return KeptHead("guard", max(seen, key=lambda head: head.size), remembered.may_lag)


def _told(rule: str, what: str, found: str) -> Finding:
    return Finding("guard", rule, "warning", None, what, found, "a checkpoint that this log's key signed")
