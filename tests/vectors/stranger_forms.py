"""Statements, envelopes and checkpoints read in their one form, as SPEC alone says; nothing of govrun is imported."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jsonschema.validators import extend

from tests.vectors.make.spec import PAYLOAD_TYPE, b64, canonical, pae, subject_of

Json = dict[str, Any]
Finding = tuple[str, int | None, int]

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
KINDS = ("genesis", "intent", "outcome", "denied", "gap", "policyAdopted", "keyAdded", "keyRevoked")


class NoError(Exception):
    """Something is not as SPEC demands, with the exit code that it has."""

    def __init__(self, check: str, code: int = 40, index: int | None = None) -> None:
        self.finding: Finding = (check, index, code)
        super().__init__(self.finding)


def _whole_pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    # `$` is the end of the text; Python's own stands before a last line break too.
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError("another form")


@functools.cache
def schema_of(kind: str) -> Any:
    document = json.loads((SCHEMAS / "receipt.v1.json").read_bytes())
    rooted = {"$schema": document["$schema"], "$ref": f"#/$defs/{kind}", "$defs": document["$defs"]}
    return extend(jsonschema.Draft202012Validator, {"pattern": _whole_pattern})(rooted)


def parse_statement(payload: bytes) -> tuple[str, Json]:
    """Kind and predicate of a payload."""
    if len(payload) > 32_768:
        raise NoError("receipts")
    try:
        value = json.loads(payload)
        spelled = canonical(value)
    except ValueError as error:
        raise NoError("receipts") from error
    match = re.fullmatch(r"urn:govrun:(\w+):v1", str(value.get("predicateType")))
    if spelled != payload or match is None or match[1] not in KINDS or not schema_of(match[1]).is_valid(value):
        raise NoError("receipts")
    if value["subject"] != subject_of(match[1], value["predicate"]):
        raise NoError("receipts")
    return match[1], value["predicate"]


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if b64(data) != text:
        raise ValueError("another spelling")
    return data


def parse_envelope(leaf: bytes) -> tuple[bytes, list[bytes]]:
    """Payload and signatures of a leaf in its one spelling."""
    try:
        value = json.loads(leaf)
        payload = unbase64(value["payload"])
        signatures = [unbase64(one["sig"]) for one in value["signatures"]]
        ordered = {
            "payload": value["payload"],
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": one["keyid"], "sig": one["sig"]} for one in value["signatures"]],
        }
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise NoError("envelopes") from error
    is_form = all(re.fullmatch("[0-9a-f]{64}", one["keyid"]) for one in value["signatures"])
    if json.dumps(ordered, separators=(",", ":")).encode() != leaf or not is_form or len(payload) > 32_768:
        raise NoError("envelopes")
    if not 1 <= len(signatures) <= 2 or any(len(one) != 64 for one in signatures):
        raise NoError("envelopes")
    return payload, signatures


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def signers(payload: bytes, signatures: Sequence[bytes], keys: Sequence[bytes], count: int) -> list[bytes]:
    """The keys that signed, in order: exactly so many, each another of the keys."""
    found = [next((k for k in keys if is_signed(k, pae(payload), one)), None) for one in signatures]
    if len(found) != count or None in found or len(set(found)) != count:
        raise NoError("signatures", 41)
    return [one for one in found if one is not None]


def public_of(vkey: str) -> bytes:
    return unbase64(vkey.split("+", 2)[2])[1:]


def open_checkpoint(data: bytes, origin: str, vkeys: Sequence[str]) -> tuple[int, bytes]:
    """Size and root hash of a checkpoint of that log; NoError with 40 or 41."""
    text, blank, block = data.rpartition(b"\n\n")
    lines = text.decode().split("\n")
    if not blank or len(lines) < 3 or not re.fullmatch("0|[1-9][0-9]*", lines[1]):
        raise NoError("checkpoint")
    known = {"+".join(vkey.split("+", 2)[:2]): public_of(vkey) for vkey in vkeys}
    signed: set[str] = set()
    for line in block.decode().splitlines():
        _, name, encoded = line.split(" ")
        raw = unbase64(encoded)
        key = f"{name}+{raw[:4].hex()}"
        if key in known:
            if key in signed or not is_signed(known[key], text + b"\n", raw[4:]):
                raise NoError("checkpoint", 41)
            signed.add(key)
    if lines[0] != origin:
        raise NoError("checkpoint", 40)
    if not any(key.startswith(f"{origin}+") for key in signed):
        raise NoError("checkpoint", 41)
    return int(lines[1]), unbase64(lines[2])
