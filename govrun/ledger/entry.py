"""What a ledger holds at one index: the leaf, and the columns that lists are made from.

The leaf is the evidence. Columns are derived from it and may be thrown away and derived again; whoever can write the
store can change them, so nothing is concluded from a column that the leaf does not say.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.merkle import MAX_ENTRY_BYTES, leaf_hash
from govrun.receipt import Statement

# The member that says when, by kind; every kind has exactly one.
_INSTANT: Final = {
    "genesis": "createdOn",
    "intent": "startedOn",
    "outcome": "finishedOn",
    "denied": "deniedOn",
    "gap": "foundOn",
    "policyAdopted": "adoptedOn",
    "keyAdded": "addedOn",
    "keyRevoked": "revokedOn",
}


@frozen
class Entry:
    """One leaf (an envelope's exact bytes, at most 65,535) at its index from 0, with its hash of 32 bytes."""

    index: int
    leaf: bytes
    leaf_hash: bytes


class IndexColumns(NamedTuple):
    """The query columns of one entry, None where its kind has no such thing; a tuple, as SQLite gives its rows.

    status: of an outcome. reason: the rule of a denial, the reason of a gap or of a revocation. intent: index of the
    intent that an outcome or a gap is about. stated_on: the receipt's own instant, the operator's claim.
    """

    index: int  # type: ignore[assignment] # in the place of the method that tuples have
    kind: str
    invocation_id: str | None
    request_id: str | None
    backend: str | None
    task: str | None
    agent: str | None
    status: str | None
    reason: str | None
    intent: int | None
    stated_on: str


def entry_of(index: int, leaf: bytes) -> Entry:
    """The entry of a leaf; GovrunError (receipt-invalid) if it is empty or larger than a tile entry may be."""
    if not 1 <= len(leaf) <= MAX_ENTRY_BYTES:
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "entry.size",
            "a leaf has no size that an entry may have",
            found=f"{len(leaf)} bytes",
            expected=f"1 to {MAX_ENTRY_BYTES} bytes",
        )
    return Entry(index, leaf, leaf_hash(leaf))


def columns_of(statement: Statement) -> IndexColumns:
    """The query columns of a statement; equal statements give equal columns."""
    predicate = statement.predicate
    get = predicate.get
    backend, request, intent = get("backend"), get("request"), get("intent")
    return IndexColumns(
        statement.position.index,
        statement.kind,
        get("invocationId"),
        None if request is None else request["id"],
        backend["name"] if isinstance(backend, dict) else backend,
        get("task"),
        get("agent"),
        get("status"),
        get("rule", get("reason")),
        None if intent is None else intent["index"],
        predicate[_INSTANT[statement.kind]],
    )
