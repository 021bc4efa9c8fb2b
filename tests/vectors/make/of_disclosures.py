"""Cases about commitments: a document that opens one field of one receipt, and the content that is held against it."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.drafts import Ledger, begun, intent
from tests.vectors.make.spec import ORIGIN, Json, canonical, sha256

CONTENT = b"what was asked"
_SALT = bytes([4]) * 32


def _field_salt(field: str, salt: bytes = _SALT) -> bytes:
    return hmac.digest(salt, b"govrun-field-salt:" + field.encode(), "sha256")


def _commitment(field: str, content: bytes) -> Json:
    digest = hmac.digest(_field_salt(field), content, "sha256").hex()
    return {"algorithm": "hmacSha256", "digest": digest, "size": len(content)}


def _ledger(plain: bool = False) -> Ledger:
    """Entry 1 is an intent with a prompt; both of its commitments are real."""
    ledger = begun()
    prompt = {"algorithm": "sha256", "digest": sha256(CONTENT).hex(), "size": len(CONTENT)}
    request = {"id": None, "commitment": _commitment("request", b"{}")}
    ledger.add("intent", intent(1, prompt=prompt if plain else _commitment("prompt", CONTENT), request=request))
    return ledger


def _document(ledger: Ledger, **changes: Any) -> Json:
    return {
        "format": 1,
        "origin": ORIGIN,
        "index": 1,
        "leafHash": ledger.hash_at(1),
        "field": "prompt",
        "algorithm": "hmacSha256",
        "salt": _field_salt("prompt").hex(),
    } | changes


def cases() -> Iterator[Case]:
    ledger = _ledger()
    plain = _ledger(plain=True)
    unsalted = {"algorithm": "sha256", "salt": None}

    def case(
        name: str, says: str, document: bytes, expected: Json, content: bytes = CONTENT, of: Ledger = ledger
    ) -> Case:
        files = {"disclosure.json": document, "receipt.json": of.leaves[1], "content": content}
        asks = {"disclosure": "disclosure.json", "receipt": "receipt.json", "content": "content"}
        return Case(f"disclosure-{name}", "disclosure", says, asks, files, expected)

    def bytes_of(of: Ledger = ledger, **changes: Any) -> bytes:
        return canonical(_document(of, **changes)) + b"\n"

    good, no = bytes_of(), rejected(40)
    closed = accepted(closed=["request"])
    yield case("prompt", "the prompt that was committed to", good, closed)
    request = bytes_of(field="request", salt=_field_salt("request").hex())
    yield case("request", "the request that was committed to", request, accepted(closed=["prompt"]), b"{}")
    yield case("plain", "a plain digest needs no salt", bytes_of(plain, **unsalted), closed, of=plain)
    yield case("other-content", "one letter is another", good, no, b"what was asKed")
    yield case("longer-content", "a byte more", good, no, CONTENT + b"\n")
    yield case("no-content", "no bytes", good, no, b"")
    yield case("other-salt", "the salt of another field", bytes_of(salt=_field_salt("request").hex()), no)
    yield case("salt-of-invocation", "the salt of the invocation", bytes_of(salt=_SALT.hex()), no)
    yield case("no-salt", "no salt for a salted field", bytes_of(salt=None), no)
    yield case("salt-for-plain", "a salt for a plain digest", bytes_of(plain, algorithm="sha256"), no, of=plain)
    yield case("salted-as-plain", "a salted field said to be plain", bytes_of(**unsalted), no)
    yield case("plain-as-salted", "a plain field said to be salted", bytes_of(plain), no, of=plain)
    yield case("no-such-field", "a field that the receipt does not have", bytes_of(field="text"), no)
    yield case("other-entry", "another leaf hash", bytes_of(leafHash="1" * 64), no)
    yield case("other-index", "another index", bytes_of(index=2), no)
    yield case("other-origin", "another log", bytes_of(origin="example.com/other"), no)
    yield case("next-format", "format 2", bytes_of(format=2), no)
    yield case("unknown-member", "a member of no disclosure", bytes_of(extra=1), no)
    yield case("no-line-break", "no line break at the end", good[:-1], no)
    yield case("indented", "another spelling", good.replace(b":", b": ", 1), no)
