"""What a ledger that ended leaves to the one that continues it: its last surviving checkpoint, and what is lost.

A restored backup never goes on under its origin: entries that somebody may have seen would be replaced by others. The
new ledger has an origin and a log key of its own; its genesis names the old one's last surviving checkpoint and states
the loss, which is a claim of the operator. The old ledger stays as it is, readable, and its writers are refused.
"""

from __future__ import annotations

from typing import Literal

from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.home import Trust, load_trust, rewrite_trust, trust_path
from govrun.ledger.checkpoint import VerifiedCheckpoint, parse_checkpoint, verify_checkpoint
from govrun.ledger.guard import Guard, heads_directory
from govrun.signing.keys import Verifier
from govrun.signing.note import parse_note
from govrun.world import World

Loss = Literal["none", "unknown", "known"]


@frozen
class Predecessor:
    """A ledger that ended: its last surviving checkpoint, verified, and what is said to be lost behind it.

    seen: the size of the greatest head of it that this user's guard remembers, None if it remembers none.
    """

    last: VerifiedCheckpoint
    log: Verifier
    loss: Loss
    lost_entries: int | None
    seen: int | None

    @property
    def origin(self) -> str:
        return self.last.checkpoint.origin

    @property
    def missing(self) -> int:
        """How many entries at least are known to have been behind the checkpoint."""
        return max(0, (self.seen or 0) - self.last.checkpoint.size)


def predecessor(world: World, note: bytes, lost: str, log: Verifier | None) -> Predecessor:
    """Verify the last surviving checkpoint of a ledger under its log key, and what is said to be lost behind it.

    lost: `none`, `unknown`, or a number. log: the ledger's log key; None for the one of this user's trust file. Raises
    GovrunError: usage for a loss that cannot be (`continues.lost`, `continues.loss`), could-not-check without a key,
    ledger-inconsistent and signature-untrusted as `verify_checkpoint`, ledger-rolled-back for a checkpoint of another
    history than the one remembered (`continues.fork`), and for a ledger that is continued already.
    """
    origin = parse_checkpoint(parse_note(note).text).origin
    key = log if log is not None else _known(world, origin).log
    last = verify_checkpoint(note, origin, [key])
    if last.checkpoint.size == 0:
        raise GovrunError(
            ExitCode.USAGE, "continues.empty", "the checkpoint is over no entries", expected="a ledger with its genesis"
        )
    seen = Guard(heads_directory(world.environ), key, world).seen()
    if seen is not None and seen.size == last.checkpoint.size and seen.root != last.checkpoint.root:
        raise GovrunError(
            ExitCode.LEDGER_ROLLED_BACK,
            "continues.fork",
            "the checkpoint is of another history than the one seen before",
            found=f"root {last.checkpoint.root.hex()[:16]}... at size {seen.size}",
            expected=f"root {seen.root.hex()[:16]}...",
        )
    loss, count = _parse_loss(lost)
    found = Predecessor(last, key, loss, count, None if seen is None else seen.size)
    if loss != "unknown" and (count or 0) < found.missing:
        raise GovrunError(
            ExitCode.USAGE,
            "continues.loss",
            "more is lost than that: a later head of the ledger was seen here",
            found=f"size {found.seen}, where the checkpoint has {last.checkpoint.size}",
            expected=f"--lost {found.missing} or more, or --lost unknown",
        )
    return found


def _known(world: World, origin: str) -> Trust:
    path = trust_path(world.environ, origin)
    if not path.exists():
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "continues.key",
            "whether the checkpoint is that ledger's cannot be checked",
            found=f"no trust file for {origin}",
            expected="its log key",
            fix="bring it: --continues-key VKEY",
        )
    return load_trust(path)


def _parse_loss(text: str) -> tuple[Loss, int | None]:
    if text == "unknown":
        return "unknown", None
    if text == "none" or text == "0":
        return "none", 0
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return "known", int(text)
    raise GovrunError(
        ExitCode.USAGE,
        "continues.lost",
        "this does not say what is lost",
        found=ascii(text[:40]),
        expected="none, unknown, or a number of entries",
    )


def shown(before: Predecessor) -> JsonObject:
    """The member `continues` of a genesis."""
    return {
        "origin": before.origin,
        "size": before.last.checkpoint.size,
        "rootHash": before.last.checkpoint.root.hex(),
        "loss": before.loss,
        "lostEntries": before.lost_entries,
    }


def close(world: World, before: Predecessor, successor: str) -> None:
    """End the old ledger: its writers are refused from now on, and the user's trust file of it pins the checkpoint.

    GovrunError (ledger-unavailable, could-not-check), OSError.
    """
    Guard(heads_directory(world.environ), before.log, world).end(before.last, successor)
    path = trust_path(world.environ, before.origin)
    if path.exists():
        trust = load_trust(path)
        if trust.log == before.log and _is_later(before, trust):
            rewrite_trust(path, evolve(trust, checkpoint=before.last.note.decode()))


def _is_later(before: Predecessor, trust: Trust) -> bool:
    """Whether the checkpoint says more than the one that the trust file pins."""
    if trust.checkpoint is None:
        return True
    pinned = parse_checkpoint(parse_note(trust.checkpoint.encode()).text)
    return pinned.size < before.last.checkpoint.size
