"""That the tree of a newer checkpoint begins with the tree of an older one, proved from a ledger's stored hashes.

Stored hashes are not trusted: a proof made from them counts only when it leads to both signed roots.
"""

from __future__ import annotations

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import VerifiedCheckpoint
from govrun.ledger.merkle import ConsistencyProof, consistency_proof, verify_consistency
from govrun.ledger.read import Reader


def prove_extension(reader: Reader, old: VerifiedCheckpoint, new: VerifiedCheckpoint) -> ConsistencyProof:
    """A consistency proof from old to new that was verified against both roots.

    GovrunError: history-diverged when new does not extend old, or the ledger's hashes do not lead to both;
    could-not-check when old is over no entries, which everything extends, or the ledger is shorter than new.
    """
    first, last = old.checkpoint, new.checkpoint
    if first.size == 0:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "consistency.empty",
            "the older checkpoint is over no entries",
            found="size 0",
            expected="at least 1",
        )
    if first.size > last.size:
        raise GovrunError(
            ExitCode.HISTORY_DIVERGED,
            "consistency.size",
            "the newer checkpoint is over fewer entries than the older one",
            found=f"tree size {last.size}",
            expected=f"at least {first.size}",
            fix="name the older checkpoint first; otherwise the ledger was cut or replaced",
        )
    if first.size < last.size > reader.size:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "consistency.ledger",
            "the ledger has fewer entries than the newer checkpoint, so no proof can be made from it",
            found=f"{reader.size} entries",
            expected=f"at least {last.size}",
        )
    proof = consistency_proof(first.size, last.size, reader.hashes)
    verify_consistency(proof, first.root, last.root)
    return proof
