"""securesystemslib and govrun read and verify each other's DSSE envelopes."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from govrun.errors import ExitCode, GovrunError
from govrun.signing import dsse
from govrun.signing.keys import Verifier, signer_from_seed, verifier_for

PAYLOAD = '{"_type":"https://in-toto.io/Statement/v1","note":"é"}'.encode()
OURS = signer_from_seed("example.com/receipts", b"1" * 32)
ROOT = signer_from_seed("example.com/root", b"2" * 32)


def their_key(verifier: Verifier) -> SSlibKey:
    return SSlibKey(verifier.keyid, "ed25519", "ed25519", {"public": verifier.public.hex()})


def test_securesystemslib_verifies_our_envelopes() -> None:
    for signers in ([OURS], [ROOT, OURS]):
        theirs = Envelope.from_dict(json.loads(dsse.format_envelope(dsse.sign_envelope(PAYLOAD, signers))))
        expected = {signer.verifier.keyid for signer in signers}
        assert expected == set(theirs.verify([their_key(signer.verifier) for signer in signers], len(signers)))
        assert theirs.payload == PAYLOAD


def test_securesystemslib_refuses_our_envelope_once_changed() -> None:
    document = json.loads(dsse.format_envelope(dsse.sign_envelope(PAYLOAD, [OURS])))
    document["payloadType"] = "application/json"
    with pytest.raises(VerificationError):
        Envelope.from_dict(document).verify([their_key(OURS.verifier)], 1)


def test_we_verify_an_envelope_that_securesystemslib_signed() -> None:
    private = Ed25519PrivateKey.from_private_bytes(b"3" * 32)
    theirs = Envelope(PAYLOAD, dsse.PAYLOAD_TYPE, {})
    signature = theirs.sign(CryptoSigner(private))
    verifier = verifier_for("theirs", private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    # Their keyid is a hash of other bytes than ours: it is only a hint, and this one misses.
    assert signature.keyid != verifier.keyid

    document = theirs.to_dict()
    document["signatures"] = [{"keyid": one["keyid"], "sig": one["sig"]} for one in document["signatures"]]
    data = json.dumps(document, separators=(",", ":")).encode()
    trusted = (OURS.verifier, verifier)
    assert dsse.VerifiedPayload(PAYLOAD, (verifier,)) == dsse.verify_envelope(data, trusted)
    with pytest.raises(GovrunError) as caught:
        dsse.verify_envelope(data, (OURS.verifier,))
    assert caught.value.code is ExitCode.SIGNATURE_UNTRUSTED


def test_both_sign_the_same_bytes() -> None:
    expected = Envelope(PAYLOAD, dsse.PAYLOAD_TYPE, {}).pae()
    assert expected == dsse.pae(dsse.PAYLOAD_TYPE.encode(), PAYLOAD)
