"""The sequencer: alone it holds the log key of a shared ledger, and signs for what writers have appended.

It believes no writer and no table: behind the last checkpoint it reads every leaf, hashes it, and demands its place,
the chain, the columns and a signature that counts. Only then it signs, one checkpoint over all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import Checkpoint, VerifiedCheckpoint, sign_verified, verify_checkpoint
from govrun.ledger.entry import columns_of
from govrun.ledger.guard import Guard
from govrun.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash, stored_hash_count, stored_hash_index
from govrun.ledger.store import Store
from govrun.receipt import ZERO_HASH, Statement
from govrun.signing.keys import Signer

# Entries that one checkpoint covers more than the last: reading them keeps writers waiting.
MOST_AT_ONCE: Final = 1024

# What judges a leaf at an index: its statement, when who counts there has signed it; GovrunError otherwise.
Judge = Callable[[int, bytes], Statement]


class Sequencer:
    """Signs checkpoints for one store. judge is asked about each leaf, once and in order."""

    def __init__(self, store: Store, log_signer: Signer, guard: Guard, judge: Judge) -> None:
        if log_signer.verifier.name != store.origin:
            raise _refused(
                "ledger.origin", "the log key belongs to another ledger", log_signer.verifier.name, store.origin
            )
        self._store = store
        self._signer = log_signer
        self._guard = guard
        self._judge = judge

    def step(self) -> Checkpoint | None:
        """Sign for what stands behind the last checkpoint, durable when this returns; None if nothing does.

        GovrunError: ledger-inconsistent or signature-untrusted for an entry that nobody should vouch for,
        ledger-rolled-back, and what the store and the signer refuse. Then nothing was signed.
        """
        store = self._store
        ends = store.ends()
        if ends.note is not None and self._verified(ends.note).checkpoint.size == ends.size:
            return None
        with store.hold():
            ends = store.ends()
            head = Checkpoint(store.origin, 0, EMPTY_ROOT)
            if ends.note is not None:
                head = self._verified(ends.note).checkpoint
            if ends.size <= head.size or ends.hashes != stored_hash_count(ends.size):
                raise _refused(
                    "ledger.head", "entries, tree and checkpoint disagree", f"{ends.size} entries", f"{head.size}"
                )
            self._guard.check(head, store.hashes)
            frontier = self._checked(head, min(ends.size, head.size + MOST_AT_ONCE))
            signed = sign_verified(Checkpoint(store.origin, frontier.size, frontier.root()), self._signer)
            store.add_checkpoint(frontier.size, signed.note)
            store.commit()
        self._guard.merge(signed)
        return signed.checkpoint

    def _verified(self, note: bytes) -> VerifiedCheckpoint:
        return verify_checkpoint(note, self._store.origin, [self._signer.verifier])

    def _checked(self, head: Checkpoint, stop: int) -> Frontier:
        """The tree of the first stop entries, grown from the signed one by leaves that were all judged."""
        store = self._store
        frontier = Frontier.at(head.size, store.hashes)
        if frontier.root() != head.root:
            raise _refused("ledger.root", "the stored tree has another root", frontier.root().hex(), head.root.hex())
        previous = ZERO_HASH
        if head.size:
            previous = leaf_hash(store.leaf(head.size - 1) or b"").hex()
            if [bytes.fromhex(previous)] != store.hashes([stored_hash_index(0, head.size - 1)]):
                raise _refused("ledger.leaf", "the last signed entry is another one", "another leaf hash", "the same")
        for index in range(head.size, stop):
            leaf = store.leaf(index) or b""
            statement = self._judge(index, leaf)
            position = statement.position
            if (position.origin, position.index, position.previous) != (store.origin, index, previous):
                raise _refused("sequence.position", f"entry {index} is signed for another place", "another", "its own")
            if columns_of(statement) != store.columns(index):
                raise _refused("sequence.columns", f"entry {index} has columns of another", "others", "its own")
            grown = frontier.append(leaf_hash(leaf))
            at = stored_hash_count(index)
            if store.hashes(range(at, at + len(grown))) != grown:
                raise _refused("sequence.tree", f"the tree is wrong at entry {index}", "another hash", "the leaf's")
            previous = leaf_hash(leaf).hex()
        return frontier


def _refused(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        rule,
        what,
        found=found,
        expected=expected,
        fix="keep the ledger as it is, and see who appended it",
        effect="nothing was signed",
    )
