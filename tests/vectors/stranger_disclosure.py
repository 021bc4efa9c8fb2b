"""Disclosures opened as SPEC alone says; nothing of govrun is imported."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.vectors.make.spec import canonical, leaf_hash
from tests.vectors.stranger_forms import SCHEMAS, Json, NoError, parse_envelope, parse_statement


@functools.cache
def _schema() -> Any:
    return Draft202012Validator(json.loads((SCHEMAS / "disclosure.v1.json").read_bytes()))


def open_field(data: bytes, leaf: bytes, content: bytes) -> list[str]:
    """Hold content against the commitment that a disclosure opens; the receipt's other salted fields."""
    try:
        one = json.loads(data)
    except ValueError as error:
        raise NoError("disclosure") from error
    if canonical(one) + b"\n" != data or not _schema().is_valid(one):
        raise NoError("disclosure")
    _, predicate = parse_statement(parse_envelope(leaf)[0])
    place = predicate["ledger"]
    if (one["origin"], one["index"], one["leafHash"]) != (place["origin"], place["index"], leaf_hash(leaf).hex()):
        raise NoError("disclosure")
    fields = _fields(predicate)
    is_salted = one["algorithm"] == "hmacSha256"
    committed = fields.get(one["field"], {})
    if committed.get("algorithm") != one["algorithm"] or is_salted == (one["salt"] is None):
        raise NoError("disclosure")
    if is_salted:
        digest = hmac.digest(bytes.fromhex(one["salt"]), content, "sha256").hex()
    else:
        digest = hashlib.sha256(content).hexdigest()
    if (committed["size"], committed["digest"]) != (len(content), digest):
        raise NoError("disclosure")
    return [name for name, c in fields.items() if name != one["field"] and c["algorithm"] == "hmacSha256"]


def _fields(predicate: Json) -> dict[str, Json]:
    """The commitments of an intent without hidden arguments; no case has another receipt."""
    assert predicate["template"]["arguments"] == []
    fields = {"request": predicate["request"]["commitment"], "prompt": predicate["prompt"]}
    return {name: one for name, one in fields.items() if one is not None}
