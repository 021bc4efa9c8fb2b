"""Bring into the ledger what an earlier crash left behind: pending outcomes, then open intents that nobody runs.

Runs at the start of any command that appends. A pending outcome is appended; an open intent whose lease is free gets
a `gap`, once: it may have run, its effects are unknown. An open intent whose lease is held is running and left alone.
A lease is taken while its invocation is settled, and what is already answered is seen inside the append, where no
other process can change it.
"""

from __future__ import annotations

from pathlib import Path

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger import pending
from govrun.ledger.append import Appended, Appender, DraftAt
from govrun.ledger.lease import LEASES_DIRECTORY, sweep
from govrun.receipt import Draft, Position


@frozen
class Recovered:
    """What was appended: outcomes that had been pending, and gaps."""

    outcomes: tuple[Appended, ...] = ()
    gaps: tuple[Appended, ...] = ()


def recover(writer: Appender) -> Recovered:
    """Settle what lies beside the writer's ledger, in `pending/` and `leases/`.

    Calling it again, or from two processes at once, appends nothing twice. GovrunError as `Writer.append`, and
    ledger-unavailable (`recovery.files`) if those directories cannot be used; what was settled before stays settled.
    """
    outcomes: list[Appended] = []
    gaps: list[Appended] = []
    try:
        _settle_pending(writer, outcomes, gaps)
        gaps += orphans(writer)
        sweep(writer.store.directory / LEASES_DIRECTORY)
    except OSError as error:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "recovery.files",
            "what an earlier crash left behind cannot be looked at",
            found=error.strerror,
            expected="directories that their owner can read and write",
        ) from error
    return Recovered(tuple(outcomes), tuple(gaps))


def _settle_pending(writer: Appender, outcomes: list[Appended], gaps: list[Appended]) -> None:
    directory = writer.store.directory / pending.PENDING_DIRECTORY
    for invocation_id in pending.list_pending(directory):
        held = writer.store.leases.seize(invocation_id)
        if held is None:
            continue  # Another process is settling it.
        with held:
            _settle(writer, directory, invocation_id, outcomes, gaps)


def _settle(
    writer: Appender, directory: Path, invocation_id: str, outcomes: list[Appended], gaps: list[Appended]
) -> None:
    try:
        waiting = pending.read_pending(directory, invocation_id)
        if waiting is None:
            return
        outcomes += writer.append([_unless_answered(writer, waiting.draft)], salts=[waiting.salt])
    except GovrunError as error:
        # Unreadable, or about no intent of this ledger: it can never be appended.
        if error.code not in (ExitCode.LEDGER_INCONSISTENT, ExitCode.RECEIPT_INVALID):
            raise
        of = next((index for index, name in writer.store.open_intents() if name == invocation_id), None)
        gaps += writer.append([_gap(writer, "pendingUnreadable", of)])
        pending.set_aside(directory, invocation_id)
    else:
        # Durable in the ledger, or there before.
        pending.remove(directory, invocation_id)


def _unless_answered(writer: Appender, draft: Draft) -> DraftAt:
    def decide(_: Position) -> Draft | None:
        of = draft.predicate["intent"]["index"]
        return None if writer.store.answer_to(of, "outcome") is not None else draft

    return decide


def orphans(writer: Appender) -> tuple[Appended, ...]:
    """Append a gap for each open intent whose lease is free and that has no pending outcome. OSError, GovrunError."""
    appended: list[Appended] = []
    for index, invocation_id in writer.store.open_intents():
        held = writer.store.leases.seize(invocation_id)
        if held is None:
            continue
        with held:
            appended += writer.append([_orphaned(writer, index, invocation_id)])
    return tuple(appended)


def _orphaned(writer: Appender, index: int, invocation_id: str) -> DraftAt:
    directory = writer.store.directory / pending.PENDING_DIRECTORY

    def decide(_: Position) -> Draft | None:
        # Its holder appended the outcome or kept it before letting the lease go, so both can be seen here.
        if (index, invocation_id) not in writer.store.open_intents():
            return None
        if invocation_id in pending.list_pending(directory):
            return None
        return _gap(writer, "orphaned", index)

    return decide


def _gap(writer: Appender, reason: str, intent: int | None) -> Draft:
    about = None if intent is None else {"index": intent, "leafHash": writer.leaf_hash_of(intent)}
    return Draft("gap", {"reason": reason, "intent": about, "foundOn": writer.store.world.now()})
