"""Receipts: in-toto Statements of closed kinds, bound to their place in a ledger.

A receipt says what these keys signed, in this order. It never means that a claim is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from govrun import canonical, schemas
from govrun.canonical import JsonObject
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_PAYLOAD_BYTES: Final = 32_768
ZERO_HASH: Final = "0" * 64

Kind = Literal["genesis", "intent", "outcome", "denied", "gap", "policyAdopted", "keyAdded", "keyRevoked"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)

# A payload is one of these around its predicate and its kind; the digest in it has a fixed length.
_HEAD: Final = b'{"_type":"%b","predicate":' % STATEMENT_TYPE.encode()
_TAIL: Final = ',"predicateType":"urn:govrun:{}:v1","subject":[{{"digest":{{"sha256":"{}"}},"name":"predicate"}}]}}'
_TAIL_BYTES: Final = {kind: len(_TAIL.format(kind, ZERO_HASH)) for kind in KINDS}
_LEDGER: Final = b'"ledger":'
_KIND_OF: Final = {f"urn:govrun:{kind}:v1": kind for kind in KINDS}


class Position(NamedTuple):
    """Where a receipt stands: the origin, its index, and the leaf hash of the entry before it (hex, zeros at 0)."""

    origin: str
    index: int  # type: ignore[assignment] # in the place of the method that tuples have
    previous: str


@frozen
class Draft:
    """A receipt that has no place yet: its predicate without `ledger`.

    outputs: (name, sha256 hex) of the declared files that its subject must stand for; only a successful outcome has
    them, and the subject spells their names as the predicate does.
    """

    kind: Kind
    predicate: JsonObject
    outputs: tuple[tuple[str, str], ...] = ()


class Statement(NamedTuple):
    """A receipt whose bytes fit the profile, the schema and the subject rule; says nothing about signatures."""

    kind: Kind
    predicate: JsonObject
    position: Position


def format_statement(draft: Draft, position: Position) -> bytes:
    """The canonical payload of a draft at a position.

    Raises GovrunError (receipt-invalid) when it does not fit its schema or is larger than 32 KiB.
    """
    placed = {
        **draft.predicate,
        "ledger": {"origin": position.origin, "index": position.index, "previous": position.previous},
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": _subject(draft.kind, draft.predicate),
        "predicateType": f"urn:govrun:{draft.kind}:v1",
        "predicate": placed,
    }
    schemas.check(statement, "receipt.v1", draft.kind, ExitCode.RECEIPT_INVALID, f"{draft.kind} receipt")
    named = _named_outputs(draft.kind, draft.predicate)
    if draft.outputs and [d for _, d in draft.outputs] != [o["sha256"] for o in named]:
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "receipt.subject",
            f"{draft.kind} receipt cannot name these outputs",
            found=f"{len(draft.outputs)} outputs",
            expected=f"the {len(named)} that its predicate lists as the work of a success",
        )
    payload = canonical.encode_fitting(statement)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "receipt.size",
            f"{draft.kind} receipt is too large",
            found=f"{len(payload)} bytes",
            expected=f"at most {MAX_PAYLOAD_BYTES} bytes",
        )
    return payload


def parse_statement(payload: bytes) -> Statement:
    """Read a payload back; raises GovrunError (ledger-inconsistent) unless bytes, schema and subject all agree."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _inconsistent("receipt.size", "a payload is too large", f"{len(payload)} bytes", "at most 32768 bytes")
    value = canonical.decode(payload, "payload")
    named = value.get("predicateType")
    kind = _KIND_OF.get(named) if isinstance(named, str) else None
    if kind is None:
        raise _inconsistent("receipt.kind", "unknown predicate type", repr(named)[:80], "a known kind")
    schemas.check(value, "receipt.v1", kind, ExitCode.LEDGER_INCONSISTENT, f"{kind} receipt")
    predicate: JsonObject = value["predicate"]
    if value["subject"] != (_subject_in(payload, kind, predicate) or _subject(kind, predicate)):
        raise _inconsistent("receipt.subject", "the subject is not what the predicate says", "another subject", kind)
    at = predicate["ledger"]
    return Statement(kind, predicate, Position(at["origin"], at["index"], at["previous"]))  # type: ignore[arg-type]


def _subject(kind: str, predicate: JsonObject) -> list[JsonObject]:
    if outputs := _named_outputs(kind, predicate):
        return [{"name": o["name"], "digest": {"sha256": o["sha256"]}} for o in outputs]
    bare = {name: value for name, value in predicate.items() if name != "ledger"}
    return [{"name": "predicate", "digest": {"sha256": sha256_hex(canonical.encode_again(bare))}}]


def _subject_in(payload: bytes, kind: str, predicate: JsonObject) -> list[JsonObject] | None:
    """The subject of a receipt that names no outputs, by cutting `ledger` out of its canonical payload; None if unsure.

    A payload that has the subject which is expected has its predicate between head and tail. The predicate's own member
    is among all places where `"ledger":` stands, so if there is one place, it is that. This costs an audit half of
    what writing the predicate again does.
    """
    at = payload.find(_LEDGER)
    if _named_outputs(kind, predicate) or payload.find(_LEDGER, at + 1) >= 0 or payload[at - 1 : at] != b",":
        return None
    behind = at + len(_LEDGER) + len(canonical.encode_again(predicate["ledger"]))
    digest = sha256_hex(payload[len(_HEAD) : at - 1] + payload[behind : -_TAIL_BYTES[kind]])
    return [{"name": "predicate", "digest": {"sha256": digest}}]


def _named_outputs(kind: str, predicate: JsonObject) -> list[JsonObject]:
    # A failed outcome must not name outputs: a generic tool would print "OK" for them.
    outputs = predicate.get("outputs") if kind == "outcome" and predicate.get("status") == "succeeded" else None
    return outputs if isinstance(outputs, list) else []


def _inconsistent(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, rule, what, found=found, expected=expected)


def bounded(items: Sequence[Any], limit: int = 4096) -> list[Any] | JsonObject:
    """A list as it may stand in a receipt: itself, or its length and digest when its bytes exceed the limit."""
    data = canonical.encode(list(items))
    if len(data) <= limit and len(items) <= 64:
        return list(items)
    return {"count": len(items), "sha256": sha256_hex(data)}
