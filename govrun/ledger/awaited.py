"""Append without the log key: what is appended is durable at once, and counts once a sequencer has signed for it.

Entries behind the newest checkpoint are other writers' entries that wait for the sequencer too. They are taken as they
stand: the sequencer checks each of them before it signs, and nothing is acknowledged before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from govrun.ledger.append import Appended, Submission, Writer, _Prepared
from govrun.ledger.checkpoint import Checkpoint, VerifiedCheckpoint, verify_checkpoint
from govrun.ledger.entry import Entry
from govrun.ledger.guard import Guard
from govrun.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    stored_hash_count,
    verify_consistency,
)
from govrun.ledger.store import Store
from govrun.signing.keys import Signer, Verifier

_PAUSE_S: Final = 0.01


class _Absent:
    """A log key that lies elsewhere: it can be verified under, and signs nothing here."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def sign(self, message: bytes) -> bytes:
        raise GovrunError(ExitCode.CHECKPOINT_FAILED, "checkpoint.signing", f"no log key for {len(message)} bytes")


class AwaitingWriter(Writer):
    """A `Writer` whose checkpoints a sequencer signs; wait_ms is how long an append waits for one."""

    def __init__(self, store: Store, receipt_signer: Signer, log: Verifier, guard: Guard, wait_ms: int) -> None:
        super().__init__(store, receipt_signer, _Absent(log), guard)
        self._wait_ms = wait_ms
        self._written: tuple[Frontier, int] | None = None

    def append_each(self, submissions: Sequence[Submission]) -> list[tuple[Appended, ...] | Exception]:
        """As `Writer.append_each`, and under a checkpoint that the sequencer has signed meanwhile.

        GovrunError (checkpoint-failed, `checkpoint.awaited`) when none came in time: the entries are in the ledger, and
        nobody has vouched for them yet; the effect says so.
        """
        self._written = None
        appended = self._append(submissions)
        if self._written is None:
            return appended
        head = self._awaited(*self._written)
        try:
            self._guard.merge(head)
            self.warning = None
        except GovrunError as error:
            # The entry is durable and signed for: refusing now would say that it is not.
            self.warning = error
        return [
            one if isinstance(one, Exception) else tuple(evolve(entry, checkpoint=head.note) for entry in one)
            for one in appended
        ]

    def _finish(self, frontier: Frontier, entries: Sequence[Entry], done: Sequence[_Prepared]) -> bytes:
        self._read_back(entries, [one for prepared in done for one in prepared.hashes])
        self.salts.write(entries[0].index, [salt for prepared in done for salt in prepared.salts])
        self._commit(entries)
        self._written = frontier.copy(), entries[0].index
        return b""

    def _checked_frontier(self) -> tuple[Frontier, str]:
        store = self.store
        ends = store.ends()
        head = Checkpoint(store.origin, 0, EMPTY_ROOT)
        if ends.note is not None:
            head = verify_checkpoint(ends.note, store.origin, [self._log_signer.verifier]).checkpoint
        # What waits for the sequencer stands behind the head; nothing may be missing before it.
        if head.size > ends.size or stored_hash_count(ends.size) != ends.hashes:
            self._check_sizes(head, ends)
        frontier = Frontier.at(ends.size, store.hashes)
        self._check_extends(head, frontier.size, frontier.root())
        self._guard.check(head, store.hashes)
        return frontier, self._checked_last(ends.size)

    def _check_extends(self, head: Checkpoint, size: int, root: bytes) -> None:
        if head.size:
            verify_consistency(consistency_proof(head.size, size, self.store.hashes), head.root, root)

    def _awaited(self, frontier: Frontier, first: int) -> VerifiedCheckpoint:
        """A checkpoint that covers what was appended, verified to be over exactly these entries."""
        world = self.store.world
        until_ns = world.monotonic_ns() + self._wait_ms * 1_000_000
        while True:
            try:
                note = self.store.head()
                if note is not None:
                    head = verify_checkpoint(note, self.store.origin, [self._log_signer.verifier])
                    if head.checkpoint.size >= frontier.size:
                        ours = Checkpoint(self.store.origin, frontier.size, frontier.root())
                        self._check_extends(ours, head.checkpoint.size, head.checkpoint.root)
                        return head
                found = f"none within {self._wait_ms} ms"
            except GovrunError as error:
                found = error.rule
            if world.monotonic_ns() >= until_ns:
                raise GovrunError(
                    ExitCode.CHECKPOINT_FAILED,
                    "checkpoint.awaited",
                    "no checkpoint of the sequencer covers what was appended",
                    found=found,
                    expected=f"a checkpoint over at least {frontier.size} entries",
                    fix="look whether `govrun ledger sequence` runs",
                    effect=f"appended as entry {first}, which no checkpoint covers yet",
                )
            time.sleep(_PAUSE_S)
