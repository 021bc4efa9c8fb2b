"""Cases about DSSE envelopes: their one spelling, and who signed them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.curve import ORDER
from tests.vectors.make.spec import (
    PAYLOAD_TYPE,
    RECEIPT,
    ROOT,
    SECOND,
    STRANGER,
    Json,
    Key,
    b64,
    envelope,
    envelope_of,
    pae,
    sha256,
    signature,
)

# Its base64 has both letters that the alphabets spell differently, and padding.
PAYLOAD = b'{"text":"???>>>\xc3\xbf!"}'
_GOOD = envelope(PAYLOAD, RECEIPT)
_ONE = signature(PAYLOAD, RECEIPT)
_SIG = _ONE["sig"].encode()


def _case(
    name: str, says: str, data: bytes, expected: Json, keys: Sequence[Key] = (RECEIPT,), required: int = 1
) -> Case:
    asks = {"file": "envelope.json", "keys": [key.public.hex() for key in keys], "signatures": required}
    return Case(f"envelope-{name}", "envelope", says, asks, {"envelope.json": data}, expected)


def cases() -> Iterator[Case]:
    yes = accepted(payloadSha256=sha256(PAYLOAD).hex())
    yield _case("one-signature", "one signature by the trusted key", _GOOD, yes)
    yield _case("several-keys", "one signature, by one of two trusted keys", _GOOD, yes, (SECOND, RECEIPT))
    both = envelope(PAYLOAD, SECOND, ROOT)
    yield _case("two-signatures", "two signatures, as a key change has", both, yes, (SECOND, ROOT), 2)
    hint = _ONE | {"keyid": sha256(ROOT.public).hex()}
    yield _case("other-keyid", "a keyid of another key: it is a hint", envelope_of(PAYLOAD, [hint]), yes)
    largest = b"x" * 32_768
    yield _case(
        "largest-payload",
        "a payload of 32,768 bytes",
        envelope(largest, RECEIPT),
        accepted(payloadSha256=sha256(largest).hex()),
    )
    for name, (says, data) in _spellings().items():
        yield _case(name, says, data, rejected(40))
    yield from _signers()


def _spellings() -> dict[str, tuple[str, bytes]]:
    """Envelopes whose signature a lenient reader accepts, in another spelling than the one."""
    document = json.loads(_GOOD)
    members = list(document.items())
    payload = b64(PAYLOAD).encode()
    assert {*b"+/="} <= {*payload}
    stray = payload[:-2] + bytes([payload[-2] + 1]) + b"="
    signed = _GOOD[_GOOD.index(b'{"keyid"') : -2]

    def spelled(order: Sequence[tuple[str, object]]) -> bytes:
        return json.dumps(dict(order), separators=(",", ":")).encode()

    return {
        "url-alphabet": (
            "base64 of the URL alphabet",
            _GOOD.replace(payload, payload.replace(b"+", b"-").replace(b"/", b"_")),
        ),
        "no-padding": ("base64 without its padding", _GOOD.replace(payload, payload.rstrip(b"="))),
        "stray-bits": ("base64 with bits behind the last byte", _GOOD.replace(payload, stray)),
        "line-break-in-base64": (
            "an escaped line break in base64",
            _GOOD.replace(payload, payload[:8] + rb"\n" + payload[8:]),
        ),
        "space": ("a space between tokens", _GOOD.replace(b'":', b'": ', 1)),
        "line-break": ("a line break at the end", _GOOD + b"\n"),
        "indented": ("line breaks and indentation", json.dumps(document, indent=2).encode()),
        "order": ("members in another order", spelled([members[1], members[0], members[2]])),
        "order-in-signature": (
            "sig before keyid",
            envelope_of(PAYLOAD, [{"sig": _ONE["sig"], "keyid": _ONE["keyid"]}]),
        ),
        "duplicate-payload": ("the payload twice", _GOOD.replace(b'{"payload"', b'{"payload":"e30=","payload"', 1)),
        "unknown-member": ("a member that nobody asked for", _GOOD[:-1] + b',"extra":1}'),
        "unknown-in-signature": ("a member beside keyid and sig", envelope_of(PAYLOAD, [{**_ONE, "cert": ""}])),
        "no-keyid": ("a signature without keyid", envelope_of(PAYLOAD, [{"sig": _ONE["sig"]}])),
        "capital-keyid": ("a keyid in capitals", envelope_of(PAYLOAD, [_ONE | {"keyid": _ONE["keyid"].upper()}])),
        "short-keyid": ("a keyid of 63 digits", envelope_of(PAYLOAD, [_ONE | {"keyid": _ONE["keyid"][1:]}])),
        "escaped-type": ("a solidus with an escape", _GOOD.replace(b"application/", rb"application\/")),
        "escaped-letter": ("a letter with an escape", _GOOD.replace(b'"payloadType"', rb'"payload\u0054ype"')),
        "short-signature": (
            "a signature of 63 bytes",
            envelope_of(PAYLOAD, [_ONE | {"sig": b64(RECEIPT.sign(pae(PAYLOAD))[:63])}]),
        ),
        "other-type": (
            "another payloadType, which the signature is over",
            envelope_of(
                PAYLOAD,
                [_ONE | {"sig": b64(RECEIPT.sign(pae(PAYLOAD, "application/json")))}],
                "application/json",
            ),
        ),
        "no-signature": ("no signature at all", envelope_of(PAYLOAD, [])),
        "three-signatures": ("three signatures", envelope(PAYLOAD, RECEIPT, SECOND, ROOT)),
        "signature-without-list": (
            "one signature object in the place of the list",
            _GOOD.replace(b"[" + signed + b"]", signed),
        ),
        "too-large-payload": ("a payload of 32,769 bytes", envelope(b"x" * 32_769, RECEIPT)),
        "not-json": ("bytes that are no JSON", PAYLOAD),
        "empty-file": ("no bytes", b""),
    }


def _signers() -> Iterator[Case]:
    wrong = PAYLOAD.replace(b"text", b"test")
    no = rejected(41)
    yield _case("other-payload", "a payload that was not signed", envelope_of(wrong, [_ONE]), no)
    yield _case("other-key", "signed by a key that is not trusted", envelope(PAYLOAD, STRANGER), no)
    claimed = signature(PAYLOAD, STRANGER) | {"keyid": _ONE["keyid"]}
    yield _case("claimed-keyid", "another key's signature under the trusted keyid", envelope_of(PAYLOAD, [claimed]), no)
    bare = _ONE | {"sig": b64(RECEIPT.sign(PAYLOAD))}
    yield _case("signed-payload", "a signature over the payload alone", envelope_of(PAYLOAD, [bare]), no)
    encoded = _ONE | {"sig": b64(RECEIPT.sign(b64(PAYLOAD).encode()))}
    yield _case("signed-base64", "a signature over the payload's base64", envelope_of(PAYLOAD, [encoded]), no)
    counted = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(PAYLOAD.decode()), PAYLOAD)
    characters = _ONE | {"sig": b64(RECEIPT.sign(counted))}
    yield _case("counted-characters", "a length in characters", envelope_of(PAYLOAD, [characters]), no)
    sig = RECEIPT.sign(pae(PAYLOAD))
    high = sig[:32] + (int.from_bytes(sig[32:], "little") + ORDER).to_bytes(32, "little")
    yield _case("scalar-not-reduced", "S plus the group's order", envelope_of(PAYLOAD, [_ONE | {"sig": b64(high)}]), no)
    both = envelope(PAYLOAD, RECEIPT, SECOND)
    yield _case("one-too-many", "two signatures where one is demanded", both, no, (RECEIPT, SECOND))
    yield _case("one-too-few", "one signature where two are demanded", _GOOD, no, (RECEIPT, SECOND), 2)
    yield _case(
        "same-key-twice", "one key's signature twice", envelope_of(PAYLOAD, [_ONE, _ONE]), no, (RECEIPT, ROOT), 2
    )
    yield _case(
        "second-unknown",
        "the second of two keys is not trusted",
        envelope(PAYLOAD, RECEIPT, STRANGER),
        no,
        (RECEIPT, ROOT),
        2,
    )
    yield _case("no-trusted-key", "nobody is trusted", _GOOD, no, ())
