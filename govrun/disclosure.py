"""Opening one commitment: the salt of one field of one receipt, and whether given content is what was committed to.

    {"algorithm":"hmacSha256","field":"prompt","format":1,"index":1,"leafHash":"9c...","origin":"...","salt":"c2..."}

A field's salt follows from the invocation's salt in one direction only. Whoever has it can test guesses about that
field, and about no other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from govrun import canonical, schemas
from govrun.canonical import JsonObject
from govrun.digest import Commitment, field_salt
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.merkle import leaf_hash
from govrun.receipt import Statement

MAX_DISCLOSURE_BYTES: Final = 4096

_SALTED: Final = "hmacSha256"


@frozen
class Disclosure:
    """What opens one field of the receipt at an index: leaf_hash in hex, salt of 32 bytes; None for a plain digest."""

    origin: str
    index: int
    leaf_hash: str
    field: str
    algorithm: str
    salt: bytes | None


@frozen
class Opened:
    """Content of size bytes that is what a field commits to; closed: the receipt's other salted fields."""

    disclosure: Disclosure
    size: int
    closed: tuple[str, ...]


def format_disclosure(disclosure: Disclosure) -> bytes:
    """The document's bytes, canonical JSON and a line break; inverse of `parse_disclosure`."""
    document = {
        "format": 1,
        "origin": disclosure.origin,
        "index": disclosure.index,
        "leafHash": disclosure.leaf_hash,
        "field": disclosure.field,
        "algorithm": disclosure.algorithm,
        "salt": None if disclosure.salt is None else disclosure.salt.hex(),
    }
    return canonical.encode(document) + b"\n"


def parse_disclosure(data: bytes) -> Disclosure:
    """Read a disclosure; `format_disclosure(parse_disclosure(b)) == b` or GovrunError (ledger-inconsistent)."""
    if len(data) > MAX_DISCLOSURE_BYTES or not data.endswith(b"\n"):
        raise _no("form", "this is no disclosure", f"{len(data)} bytes", "canonical JSON and a line break")
    document = canonical.decode(data[:-1], "disclosure")
    schemas.check(document, "disclosure.v1", None, ExitCode.LEDGER_INCONSISTENT, "the disclosure")
    salt = document["salt"]
    if (salt is None) == (document["algorithm"] == _SALTED):
        raise _no(
            "form", "the salt does not go with the algorithm", document["algorithm"], f"a salt for {_SALTED} only"
        )
    return Disclosure(
        document["origin"],
        document["index"],
        document["leafHash"],
        document["field"],
        document["algorithm"],
        None if salt is None else bytes.fromhex(salt),
    )


def commitments_of(statement: Statement) -> dict[str, JsonObject]:
    """Every commitment that a receipt shows, by field."""
    predicate = statement.predicate
    arguments = _at(predicate, "template", "arguments")
    found = {
        "request": _at(predicate, "request", "commitment"),
        "prompt": predicate.get("prompt"),
        "stdout": _at(predicate, "byproducts", "stdout", "commitment"),
        "stderr": _at(predicate, "byproducts", "stderr", "commitment"),
        "text": _at(predicate, "facts", "text"),
        # A list that was too long stands there as its digest, and shows no commitment.
        **{one["name"]: one["commitment"] for one in (arguments if isinstance(arguments, list) else ())},
    }
    return {field: commitment for field, commitment in found.items() if commitment is not None}


def _at(value: Any, *members: str) -> Any:
    for member in members:
        value = value.get(member) if isinstance(value, dict) else None
    return value


def disclose(statement: Statement, leaf: bytes, field: str, salt: bytes | None) -> Disclosure:
    """What opens a field of a receipt; salt: the 32 bytes of its invocation, None when there is none any more.

    GovrunError (could-not-check): the receipt has no such field, or its salt is not there.
    """
    commitments = commitments_of(statement)
    if field not in commitments:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "disclosure.field",
            f"this {statement.kind} commits to no such field",
            found=field,
            expected=", ".join(commitments) or "a receipt with commitments",
        )
    at, algorithm = statement.position, commitments[field]["algorithm"]
    if algorithm != _SALTED:
        return Disclosure(at.origin, at.index, leaf_hash(leaf).hex(), field, algorithm, None)
    if salt is None:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "disclosure.salt",
            "there is no salt for this entry",
            found="erased, or never beside this ledger",
            expected="the salts of the ledger that was written",
        )
    return Disclosure(at.origin, at.index, leaf_hash(leaf).hex(), field, algorithm, field_salt(salt, field))


def open_commitment(disclosure: Disclosure, statement: Statement, leaf: bytes, content: Iterable[bytes]) -> Opened:
    """Check content, in pieces, against the commitment of a receipt that was verified.

    GovrunError (ledger-inconsistent): the disclosure is about another entry, the receipt has no such field, or the
    bytes are not the ones.
    """
    at, one = statement.position, disclosure
    if (one.origin, one.index, one.leaf_hash) != (at.origin, at.index, leaf_hash(leaf).hex()):
        raise _no(
            "entry",
            "the disclosure is about another entry",
            f"entry {one.index} of {one.origin}, leaf hash {one.leaf_hash[:16]}",
            f"entry {at.index} of {at.origin}, leaf hash {leaf_hash(leaf).hex()[:16]}",
        )
    commitments = commitments_of(statement)
    committed = commitments.get(one.field)
    if committed is None or committed["algorithm"] != one.algorithm:
        found = "no such field" if committed is None else committed["algorithm"]
        raise _no("field", "the receipt has no such commitment", found, f"{one.field}, {one.algorithm}")
    state = Commitment(one.salt)
    for piece in content:
        state.update(piece)
    if state.size != committed["size"]:
        raise _no("content", "the content has another size", f"{state.size} bytes", f"{committed['size']} bytes")
    if state.hex() != committed["digest"]:
        raise _no("content", "this salt and this content do not give the commitment", state.hex(), committed["digest"])
    closed = [name for name, other in commitments.items() if name != one.field and other["algorithm"] == _SALTED]
    return Opened(one, state.size, tuple(closed))


def _no(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, f"disclosure.{rule}", what, found=found, expected=expected)
