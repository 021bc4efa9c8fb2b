"""Which policy is in force in a ledger, and the entry that puts another one in force.

Every intent runs under the policy that the genesis or the last `policyAdopted` before it names. The operator changes
the policy by changing its file; the ledger learns of it in the same commit as the first intent under it.
"""

from __future__ import annotations

from govrun.ledger.append import Appender, DraftAt
from govrun.receipt import Draft, Position, parse_statement
from govrun.signing.dsse import parse_envelope

_TELLING = ("intent", "policyAdopted", "genesis")


def adopt(writer: Appender, policy: str, now: str) -> DraftAt:
    """The draft that puts a policy (sha256 in hex of its bytes) in force; it appends nothing where it is already."""

    def decide(position: Position) -> Draft | None:
        if in_force(writer, position.index) == policy:
            return None
        return Draft("policyAdopted", {"policy": {"sha256": policy}, "adoptedOn": now})

    return decide


def in_force(writer: Appender, size: int) -> str | None:
    """The policy in force after so many entries, None when none of them tells."""
    # An intent ran under the policy in force, so the newest one tells it without a search for its adoption.
    for index in range(size - 1, -1, -1):
        columns = writer.store.columns(index)
        # What is passed over is refusals for the most part; a flood of them is merged, which bounds this search.
        if columns is not None and columns.kind in _TELLING and (leaf := writer.store.leaf(index)) is not None:
            digest: str = parse_statement(parse_envelope(leaf).payload).predicate["policy"]["sha256"]
            return digest
    return None
