"""An envelope has one spelling, and verifies only when every signature does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.signing import dsse
from govrun.signing.b64 import encode
from govrun.signing.keys import Signer, signer_from_seed

T = TypeVar("T")

ONE = signer_from_seed("example.com/receipts", b"1" * 32)
TWO = signer_from_seed("example.com/root", b"2" * 32)
STRANGER = signer_from_seed("example.com/receipts", b"3" * 32)
TRUSTED = (ONE.verifier, TWO.verifier)

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1","subject":[]}'
VALID = dsse.format_envelope(dsse.sign_envelope(PAYLOAD, [ONE]))
VALID_TWO = dsse.format_envelope(dsse.sign_envelope(PAYLOAD, [TWO, ONE]))


def refused(code: ExitCode, rule: str, call: object, *args: object) -> GovrunError:
    assert callable(call)
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def attempt(call: Callable[..., T], *args: object) -> T | GovrunError:
    try:
        return call(*args)
    except GovrunError as error:
        return error


def test_published_vector_of_the_encoding() -> None:
    # DSSE protocol.md, "Test Vectors".
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert expected == dsse.pae(b"http://example.com/HelloWorld", b"hello world")


def test_published_signature_verifies_over_our_encoding() -> None:
    # DSSE protocol.md, "Test Vectors": ECDSA over P-256 with SHA-256, r and s of 32 bytes each.
    from base64 import b64decode

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    x = 46950820868899156662930047687818585632848591499744589407958293238635476079160
    y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
    raw = b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    key.verify(signature, dsse.pae(b"http://example.com/HelloWorld", b"hello world"), ec.ECDSA(hashes.SHA256()))


def test_length_is_counted_in_bytes() -> None:
    assert dsse.pae("é".encode(), "ü€".encode()) == "DSSEv1 2 é 5 ü€".encode()


def test_envelope_is_what_json_readers_expect() -> None:
    expected = {
        "payload": encode(PAYLOAD).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [
            {
                "keyid": hashlib.sha256(ONE.verifier.public).hexdigest(),
                "sig": encode(ONE.sign(dsse.pae(b"application/vnd.in-toto+json", PAYLOAD))).decode(),
            }
        ],
    }
    assert expected == json.loads(VALID)
    assert json.dumps(expected, separators=(",", ":")).encode() == VALID


def test_valid_envelopes_verify() -> None:
    assert dsse.VerifiedPayload(PAYLOAD, (ONE.verifier,)) == dsse.verify_envelope(VALID, TRUSTED)
    assert dsse.VerifiedPayload(PAYLOAD, (TWO.verifier, ONE.verifier)) == dsse.verify_envelope(VALID_TWO, TRUSTED, 2)
    by_keyid = {verifier.keyid: verifier for verifier in TRUSTED}
    assert (ONE.verifier,) == dsse.verify_envelope(dsse.parse_envelope(VALID), by_keyid).verifiers


@given(payload=st.binary(max_size=400), both=st.booleans())
def test_envelopes_survive_writing_and_reading(payload: bytes, both: bool) -> None:
    envelope = dsse.sign_envelope(payload, [ONE, TWO] if both else [ONE])
    data = dsse.format_envelope(envelope)
    assert envelope == dsse.parse_envelope(data)
    assert payload == dsse.verify_envelope(data, TRUSTED, 1 + both).payload


@given(data=st.binary(max_size=300) | st.text(alphabet='{}[]",:abcdef0', max_size=80).map(str.encode))
def test_arbitrary_bytes_are_read_back_exactly_or_refused(data: bytes) -> None:
    result = attempt(dsse.parse_envelope, data)
    if isinstance(result, GovrunError):
        assert result.code is ExitCode.LEDGER_INCONSISTENT
    else:
        assert data == dsse.format_envelope(result)


@given(
    payload=st.binary(max_size=9),
    edits=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=3),
    at_the_end=st.booleans(),
)
def test_an_edited_envelope_is_read_back_exactly_or_refused(
    payload: bytes, edits: list[tuple[int, int, bytes]], at_the_end: bool
) -> None:
    # Short payloads, so that edits meet the base64 and its padding; what the quick reader takes must be one spelling.
    data = dsse.format_envelope(dsse.sign_envelope(payload, [ONE]))
    for at, cut, put in edits:
        place = max(0, len(data) - at) if at_the_end else at
        data = data[:place] + put + data[place + cut :]
    if (usual := dsse.read_usual(data)) is not None:
        read, keyid, sig = usual
        again = dsse.Envelope(read, dsse.PAYLOAD_TYPE, (dsse.Signature(keyid, sig),))
        assert data == dsse.format_envelope(again)


def test_an_envelope_whose_parts_share_a_byte_is_none() -> None:
    data = dsse.format_envelope(dsse.sign_envelope(b"", [ONE]))
    assert dsse.read_usual(data) is not None
    # The quote that ends the first part would also begin the next.
    assert dsse.read_usual(data.replace(b'""', b'"', 1)) is None


def test_no_flipped_bit_passes_but_for_the_unsigned_hint() -> None:
    start = VALID.index(b'"keyid":"') + len(b'"keyid":"')
    for at in range(len(VALID)):
        for bit in range(8):
            data = VALID[:at] + bytes([VALID[at] ^ 1 << bit]) + VALID[at + 1 :]
            result = attempt(dsse.verify_envelope, data, TRUSTED)
            if isinstance(result, GovrunError):
                assert result.code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)
            else:
                # DSSE does not sign the keyid: another well-formed one changes neither the payload nor who signed
                # it. It changes the leaf, and with it the tree.
                assert start <= at < start + 64
                assert dsse.VerifiedPayload(PAYLOAD, (ONE.verifier,)) == result


@pytest.mark.parametrize("data", [VALID, VALID_TWO])
def test_no_cut_or_lengthened_envelope_passes(data: bytes) -> None:
    for length in range(len(data)):
        refused(ExitCode.LEDGER_INCONSISTENT, "envelope.bytes", dsse.parse_envelope, data[:length])
    for extra in (b" ", b"\n", b"}", b"\0", b'"'):
        refused(ExitCode.LEDGER_INCONSISTENT, "envelope.bytes", dsse.parse_envelope, data + extra)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"payload"', b'{ "payload"'),
        (b'"payloadType":', b'"payloadType": '),
        (b'{"payload":', b'{"extra":"","payload":'),
        (b'{"payload":"', b'{"payload":"AAAA","payload":"'),
        (b'"payload":', b'"pay\\u006coad":'),
        (b'"keyid":', b'"keyID":'),
        (b"application/vnd", b"application\\/vnd"),
        (b'"}]}', b'","cert":""}]}'),
        (b'"signatures":[', b'"signatures":[],"signatures":['),
        (b"+json", b"+jsom"),
    ],
)
def test_every_other_spelling_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(GovrunError) as caught:
        dsse.parse_envelope(VALID.replace(old, new))
    assert caught.value.code is ExitCode.LEDGER_INCONSISTENT


def test_members_in_another_order_are_refused() -> None:
    parsed = json.loads(VALID)
    reordered = json.dumps({key: parsed[key] for key in reversed(parsed)}, separators=(",", ":")).encode()
    refused(ExitCode.LEDGER_INCONSISTENT, "envelope.bytes", dsse.parse_envelope, reordered)
    signature = parsed["signatures"][0]
    parsed["signatures"] = [{"sig": signature["sig"], "keyid": signature["keyid"]}]
    with pytest.raises(GovrunError):
        dsse.parse_envelope(json.dumps(parsed, separators=(",", ":")).encode())


def test_base64_of_another_alphabet_padding_or_stray_bits_is_refused() -> None:
    data = dsse.format_envelope(dsse.sign_envelope(b"\xfb\xff\xfe\xff", [ONE]))
    assert b'"+//+/w=="' in data
    for spelling in (b"-__-_w==", b"+//+/w=", b"+//+/w", b"+//+/x==", b"+//+/w==\n", b"+//+/w== ", b"+//+\\u002fw=="):
        refused(
            ExitCode.LEDGER_INCONSISTENT,
            "envelope.bytes",
            dsse.parse_envelope,
            data.replace(b'"+//+/w=="', b'"' + spelling + b'"'),
        )


def test_number_of_signatures_is_one_or_two() -> None:
    envelope = dsse.parse_envelope(VALID)
    for count in (0, 3):
        signatures = envelope.signatures * count
        several = dsse.Envelope(envelope.payload, envelope.payload_type, signatures)
        refused(ExitCode.RECEIPT_INVALID, "envelope.signatures", dsse.format_envelope, several)
    head, tail = VALID.split(b'"signatures":[')
    entry = tail.removesuffix(b"]}")
    for entries in (b"", b",".join([entry] * 3)):
        data = head + b'"signatures":[' + entries + b"]}"
        refused(ExitCode.LEDGER_INCONSISTENT, "envelope.bytes", dsse.parse_envelope, data)


def test_malformed_keyid_signature_and_type_are_refused() -> None:
    def envelope(keyid: str = "0" * 64, sig: bytes = b"s" * 64, payload_type: str = dsse.PAYLOAD_TYPE) -> dsse.Envelope:
        return dsse.Envelope(PAYLOAD, payload_type, (dsse.Signature(keyid, sig),))

    assert envelope() == dsse.parse_envelope(dsse.format_envelope(envelope()))
    for rule, bad in [
        ("envelope.keyid", envelope(keyid="")),
        ("envelope.keyid", envelope(keyid="A" * 64)),
        ("envelope.keyid", envelope(keyid="0" * 64 + "\n")),
        ("envelope.sig", envelope(sig=b"s" * 63)),
        ("envelope.sig", envelope(sig=b"s" * 65)),
        ("envelope.type", envelope(payload_type="application/json")),
    ]:
        refused(ExitCode.RECEIPT_INVALID, rule, dsse.format_envelope, bad)
    for rule, old, new in [
        ("envelope.keyid", b'"keyid":"0', b'"keyid":"g'),
        ("envelope.sig", encode(b"s" * 64), encode(b"s" * 63)),
        ("envelope.type", b"vnd.in-toto+json", b"vnd.in-toto"),
    ]:
        data = dsse.format_envelope(envelope())
        refused(ExitCode.LEDGER_INCONSISTENT, rule, dsse.parse_envelope, data.replace(old, new))


def test_payload_and_envelope_have_a_limit() -> None:
    largest = dsse.format_envelope(dsse.sign_envelope(b"x" * 32_768, [ONE, TWO]))
    assert len(largest) <= 65_535
    assert dsse.verify_envelope(largest, TRUSTED, 2).payload == b"x" * 32_768
    error = refused(ExitCode.RECEIPT_INVALID, "envelope.payload", dsse.sign_envelope, b"x" * 32_769, [ONE])
    assert (error.found, error.expected) == ("32769 bytes", "32768 bytes")
    too_large = VALID.replace(encode(PAYLOAD), encode(b"x" * 32_769))
    refused(ExitCode.LEDGER_INCONSISTENT, "envelope.payload", dsse.parse_envelope, too_large)
    refused(ExitCode.LEDGER_INCONSISTENT, "envelope.size", dsse.parse_envelope, b"x" * 65_536)


def test_signers_are_one_or_two_and_distinct() -> None:
    for signers in ([], [ONE, ONE], [ONE, TWO, STRANGER]):
        refused(ExitCode.RECEIPT_INVALID, "envelope.signers", dsse.sign_envelope, PAYLOAD, signers)


def test_unknown_key_is_refused_even_under_a_trusted_keyid() -> None:
    forged = dsse.sign_envelope(PAYLOAD, [STRANGER])
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.untrusted", dsse.verify_envelope, forged, TRUSTED)
    borrowed = dsse.Envelope(
        PAYLOAD, forged.payload_type, (dsse.Signature(ONE.verifier.keyid, forged.signatures[0].sig),)
    )
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.untrusted", dsse.verify_envelope, borrowed, TRUSTED)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.untrusted", dsse.verify_envelope, VALID, ())


def test_keyid_is_only_a_hint() -> None:
    envelope = dsse.parse_envelope(VALID)
    for keyid in ("0" * 64, TWO.verifier.keyid):
        hinted = dsse.Envelope(PAYLOAD, envelope.payload_type, (dsse.Signature(keyid, envelope.signatures[0].sig),))
        assert (ONE.verifier,) == dsse.verify_envelope(hinted, TRUSTED).verifiers


def test_stripped_extra_and_repeated_signatures_are_refused() -> None:
    envelope = dsse.parse_envelope(VALID_TWO)
    stripped = dsse.Envelope(PAYLOAD, envelope.payload_type, envelope.signatures[:1])
    repeated = dsse.Envelope(PAYLOAD, envelope.payload_type, envelope.signatures[:1] * 2)
    with_stranger = dsse.sign_envelope(PAYLOAD, [ONE, STRANGER])
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.count", dsse.verify_envelope, stripped, TRUSTED, 2)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.count", dsse.verify_envelope, envelope, TRUSTED, 1)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.count", dsse.verify_envelope, envelope, TRUSTED, 0)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.twice", dsse.verify_envelope, repeated, TRUSTED, 2)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.untrusted", dsse.verify_envelope, with_stranger, TRUSTED, 2)


def test_one_key_under_two_names_counts_once() -> None:
    alias = signer_from_seed("example.com/alias", ONE.seed)
    signature = dsse.parse_envelope(VALID).signatures[0]
    doubled = dsse.Envelope(PAYLOAD, dsse.PAYLOAD_TYPE, (signature, signature))
    trusted = (ONE.verifier, alias.verifier)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.twice", dsse.verify_envelope, doubled, trusted, 2)


def test_signature_over_another_type_does_not_verify() -> None:
    signature = dsse.Signature(ONE.verifier.keyid, ONE.sign(dsse.pae(b"application/json", PAYLOAD)))
    envelope = dsse.Envelope(PAYLOAD, dsse.PAYLOAD_TYPE, (signature,))
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.untrusted", dsse.verify_envelope, envelope, TRUSTED)
    bare = dsse.Envelope(PAYLOAD, dsse.PAYLOAD_TYPE, (dsse.Signature(ONE.verifier.keyid, ONE.sign(PAYLOAD)),))
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.untrusted", dsse.verify_envelope, bare, TRUSTED)


@given(st.binary(max_size=200), st.sampled_from([[ONE], [TWO], [TWO, ONE]]))
def test_a_leaf_signed_in_one_go_is_the_envelope_written(payload: bytes, signers: list[Signer]) -> None:
    assert dsse.format_envelope(dsse.sign_envelope(payload, signers)) == dsse.signed_leaf(payload, signers)


class Strange:
    """A signer whose answers are no Ed25519 signatures."""

    verifier = ONE.verifier

    def sign(self, message: bytes) -> bytes:
        return b"short"


def test_a_leaf_that_is_no_envelope_is_not_made() -> None:
    refused(ExitCode.RECEIPT_INVALID, "envelope.sig", dsse.signed_leaf, PAYLOAD, [Strange()])
    refused(ExitCode.RECEIPT_INVALID, "envelope.payload", dsse.signed_leaf, bytes(dsse.MAX_PAYLOAD_BYTES + 1), [ONE])
    for signers in ([], [ONE, ONE], [ONE, TWO, STRANGER]):
        refused(ExitCode.RECEIPT_INVALID, "envelope.signers", dsse.signed_leaf, PAYLOAD, signers)
