"""Bookmarks: what a verifier keeps of a ledger that it found whole, so that it need not read the same entries again.

    {"checkpoint":"example.com/ledger\\n6\\n...","counts":{...},...,"sha256":"..."}
    <16 bytes for each request id that was claimed, ascending>

The first line is canonical JSON (`schemas/bookmark.v1.json`). A bookmark is trust, like a trust file: whoever can write
it decides what the next verification believes about the entries below its checkpoint. Nothing in it comes from
anywhere but entries that were verified. `sha256` finds damage, not forgery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from govrun import canonical, schemas
from govrun.canonical import JsonObject
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.signing.keys import Verifier, format_vkey, parse_vkey

CLAIM_BYTES: Final = 16
# Room for the first line, and for the request ids of 16 million invocations.
MAX_BYTES: Final = canonical.MAX_BYTES + (1 << 28)


@frozen
class Waiting:
    """An intent without an outcome: what its end is held against; the rest is read from its leaf by its hash (hex)."""

    index: int
    leaf_hash: str
    invocation_id: str
    deadline_on: str


@frozen
class Ring:
    """The keys that were brought or named by the genesis, and those that counted behind the last entry.

    from_genesis: roles whose keys the verifier did not bring. counting: receipt keys by number. revoked: the numbers
    of those that no longer count. roots: the root keys that count.
    """

    log: tuple[Verifier, ...]
    receipt: tuple[Verifier, ...]
    root: tuple[Verifier, ...]
    from_genesis: tuple[str, ...]
    counting: tuple[Verifier, ...]
    revoked: tuple[int, ...]
    roots: tuple[Verifier, ...]


@frozen
class Past:
    """What the rules between entries need to know of those below the checkpoint.

    open, gaps: intents without an outcome, those in gaps named by a gap. claims: `CLAIM_BYTES` for each request id,
    ascending. latest: the latest instant. policy: digest of the policy in force. told: (check, how many warnings and
    notes it had).
    """

    open: tuple[Waiting, ...]
    gaps: tuple[Waiting, ...]
    claims: bytes
    latest: str
    policy: str | None
    kinds: tuple[tuple[str, int], ...]
    statuses: tuple[tuple[str, int], ...]
    refusals: int
    told: tuple[tuple[str, int], ...]


@frozen
class JudgedBy:
    """How an audit judged the intents below the checkpoint, every one of them allowed.

    unavailable: (policy digest, how many intents name it) of policies whose bytes were not at hand.
    """

    digest: str
    judged: int
    in_force_judged: int
    unavailable: tuple[tuple[str, int], ...]


@frozen
class Bookmark:
    """A verdict of yes over the size entries below a checkpoint (a signed note), and what the next one needs.

    verifier: the program and version that looked. last_leaf_hash: of entry size - 1, hex. judged_by: None if no policy
    was asked for.
    """

    origin: str
    verifier: str
    checkpoint: bytes
    size: int
    last_leaf_hash: str
    ring: Ring
    past: Past
    judged_by: JudgedBy | None


def claim_of(request_id: str) -> bytes:
    """What is kept of a claimed request id: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(request_id.encode()).digest()[:CLAIM_BYTES]


def holds_claim(claims: bytes, claim: bytes) -> bool:
    """Whether an ascending list of claims has one; about log2 of its length comparisons."""
    at = _place(claims, claim)
    return claims[at : at + CLAIM_BYTES] == claim


def merge_claims(claims: bytes, new: Iterable[bytes]) -> bytes:
    """The ascending list with others put in."""
    parts, start = [], 0
    for claim in sorted(new):
        at = _place(claims, claim)
        parts += [claims[start:at], claim]
        start = at
    return b"".join([*parts, claims[start:]])


def _place(claims: bytes, claim: bytes) -> int:
    low, high = 0, len(claims) // CLAIM_BYTES
    while low < high:
        middle = (low + high) // 2
        if claims[middle * CLAIM_BYTES : (middle + 1) * CLAIM_BYTES] < claim:
            low = middle + 1
        else:
            high = middle
    return low * CLAIM_BYTES


def format_bookmark(bookmark: Bookmark) -> bytes:
    """The file's bytes; inverse of `parse_bookmark`. GovrunError (could-not-check) if it would be too large."""
    ring, past, by = bookmark.ring, bookmark.past, bookmark.judged_by
    head: JsonObject = {
        "format": 1,
        "origin": bookmark.origin,
        "verifier": bookmark.verifier,
        "checkpoint": bookmark.checkpoint.decode(),
        "size": bookmark.size,
        "lastLeafHash": bookmark.last_leaf_hash,
        "keys": {
            "log": _vkeys(ring.log),
            "receipt": _vkeys(ring.receipt),
            "root": _vkeys(ring.root),
            "fromGenesis": list(ring.from_genesis),
            "countingReceipt": _vkeys(ring.counting),
            "revokedReceipt": list(ring.revoked),
            "countingRoot": _vkeys(ring.roots),
        },
        "open": [_waiting(one) for one in past.open],
        "gaps": [_waiting(one) for one in past.gaps],
        "requests": {"count": len(past.claims) // CLAIM_BYTES, "sha256": sha256_hex(past.claims)},
        "latestOn": past.latest,
        "policyInForce": past.policy,
        "counts": {"kinds": dict(past.kinds), "statuses": dict(past.statuses), "refusals": past.refusals},
        "told": dict(past.told),
        "policy": None
        if by is None
        else {
            "sha256": by.digest,
            "judged": by.judged,
            "inForceJudged": by.in_force_judged,
            "unavailable": [{"sha256": digest, "count": count} for digest, count in by.unavailable],
        },
    }
    line = canonical.encode({**head, "sha256": sha256_hex(canonical.encode(head))})
    if len(line) > canonical.MAX_BYTES or len(line) + 1 + len(past.claims) > MAX_BYTES:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "bookmark.size",
            "the bookmark would be too large",
            found=f"{len(past.open) + len(past.gaps)} intents without an outcome, {len(past.claims)} bytes of claims",
            expected=f"at most {canonical.MAX_BYTES} bytes beside the claims, and {MAX_BYTES} in all",
            fix="verify without a bookmark",
        )
    return line + b"\n" + past.claims


def parse_bookmark(data: bytes) -> Bookmark:
    """Read a bookmark; `format_bookmark(parse_bookmark(b)) == b` or GovrunError (could-not-check)."""
    line, _, claims = data.partition(b"\n")
    try:
        head = canonical.decode(line, "bookmark")
        schemas.check(head, "bookmark.v1", None, ExitCode.COULD_NOT_CHECK, "bookmark")
        bookmark = _bookmark(head, claims)
        if format_bookmark(bookmark) != data:
            raise _malformed("other bytes than this bookmark is written with")
    except GovrunError as error:
        raise _malformed(error.found or error.what) from error
    return bookmark


def _bookmark(head: JsonObject, claims: bytes) -> Bookmark:
    keys, counts, by = head["keys"], head["counts"], head["policy"]
    if len(claims) % CLAIM_BYTES:
        raise _malformed(f"{len(claims)} bytes of request ids")
    if any(number >= len(keys["countingReceipt"]) for number in keys["revokedReceipt"]):
        raise _malformed("a revoked key that is not listed")
    return Bookmark(
        origin=head["origin"],
        verifier=head["verifier"],
        checkpoint=head["checkpoint"].encode(),
        size=head["size"],
        last_leaf_hash=head["lastLeafHash"],
        ring=Ring(
            _verifiers(keys["log"]),
            _verifiers(keys["receipt"]),
            _verifiers(keys["root"]),
            tuple(keys["fromGenesis"]),
            _verifiers(keys["countingReceipt"]),
            tuple(keys["revokedReceipt"]),
            _verifiers(keys["countingRoot"]),
        ),
        past=Past(
            tuple(_parse_waiting(one) for one in head["open"]),
            tuple(_parse_waiting(one) for one in head["gaps"]),
            claims,
            head["latestOn"],
            head["policyInForce"],
            tuple(sorted(counts["kinds"].items())),
            tuple(sorted(counts["statuses"].items())),
            counts["refusals"],
            tuple(sorted(head["told"].items())),
        ),
        judged_by=None
        if by is None
        else JudgedBy(
            by["sha256"],
            by["judged"],
            by["inForceJudged"],
            tuple((one["sha256"], one["count"]) for one in by["unavailable"]),
        ),
    )


def _waiting(one: Waiting) -> JsonObject:
    return {
        "index": one.index,
        "leafHash": one.leaf_hash,
        "invocationId": one.invocation_id,
        "deadlineOn": one.deadline_on,
    }


def _parse_waiting(value: dict[str, Any]) -> Waiting:
    return Waiting(value["index"], value["leafHash"], value["invocationId"], value["deadlineOn"])


def _vkeys(verifiers: Sequence[Verifier]) -> list[str]:
    return [format_vkey(verifier) for verifier in verifiers]


def _verifiers(texts: Sequence[str]) -> tuple[Verifier, ...]:
    return tuple(parse_vkey(text) for text in texts)


def _malformed(found: str) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "bookmark.form",
        "the bookmark is damaged, or none of this version",
        found=found,
        expected="a file that `govrun verify --bookmark` wrote",
        fix="remove it, and the next verification reads everything; a checkpoint kept elsewhere still shows a cut",
    )
