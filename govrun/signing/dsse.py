"""DSSE v1 envelopes in the one spelling the ledger takes as a leaf.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<hex>","sig":"<base64>"}]}

Compact, members in this order, one signature (two for key entries). What is signed is not the payload but its
pre-authentication encoding, `PAE`, lengths in bytes. The keyid is a hint: it is not signed, and nobody who changes it
gains more than a slower verification. Source: DSSE protocol.md and envelope.md, v1.0.2.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.signing import b64
from govrun.signing.keys import SIGNATURE_BYTES, Signer, Verifier

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES: Final = 65_535
MAX_PAYLOAD_BYTES: Final = 32_768
MAX_SIGNATURES: Final = 2

_KEYID = re.compile(r"[0-9a-f]{64}")

# A leaf has no quote and no escape inside its strings, so its quotes stand at fixed places: cut at the quotes, the
# payload is piece 3, the type piece 7, and each signature's keyid and sig follow, 8 pieces apart.
_PIECES_OF_ONE: Final = 19
_PIECES_EACH: Final = 8


@frozen
class Signature:
    """One signature of an envelope: keyid (64 lower-case hex digits, a hint) and sig (64 bytes, Ed25519)."""

    keyid: str
    sig: bytes


@frozen
class Envelope:
    """What an envelope's bytes say; nothing in it is verified."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


@frozen
class VerifiedPayload:
    """A payload under the keys that signed it, in the order of the signatures; only `verify_envelope` makes one."""

    payload: bytes
    verifiers: tuple[Verifier, ...]


def pae(payload_type: bytes, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed."""
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type, len(payload), payload)


TYPE_BYTES: Final = PAYLOAD_TYPE.encode()

# The fixed parts of the usual leaf, which has one signature: all that stands behind its payload has one length.
_HEAD: Final = b'{"payload":"'
_TO_KEYID: Final = b'","payloadType":"%b","signatures":[{"keyid":"' % TYPE_BYTES
_TO_SIG: Final = b'","sig":"'
_END: Final = b'"}]}'
_KEYID_BYTES: Final = 64
_HEX: Final = b"0123456789abcdef"
_SIG_AT: Final = len(_END) + len(b64.encode(bytes(SIGNATURE_BYTES)))
_KEYID_AT: Final = _SIG_AT + len(_TO_SIG) + _KEYID_BYTES
_PAYLOAD_END: Final = _KEYID_AT + len(_TO_KEYID)


def read_usual(data: bytes) -> tuple[bytes, str, bytes] | None:
    """Payload, keyid and sig of an envelope with one signature, or None for all that `parse_envelope` must look at.

    The same bytes as there are accepted, without writing them again; an audit reads its leaves here.
    """
    payload = _decoded(data[len(_HEAD) : -_PAYLOAD_END])
    sig = _decoded(data[-_SIG_AT : -len(_END)])
    keyid = data[-_KEYID_AT : _KEYID_BYTES - _KEYID_AT]
    if (
        payload is None
        or sig is None
        or len(data) < len(_HEAD) + _PAYLOAD_END
        or len(payload) > MAX_PAYLOAD_BYTES
        or len(sig) != SIGNATURE_BYTES
        or not data.startswith(_HEAD)
        or data[-_PAYLOAD_END:-_KEYID_AT] != _TO_KEYID
        or keyid.translate(None, _HEX)
        or data[_KEYID_BYTES - _KEYID_AT : -_SIG_AT] != _TO_SIG
        or not data.endswith(_END)
    ):
        return None
    return payload, keyid.decode("ascii"), sig


def _decoded(text: bytes) -> bytes | None:
    """What the one base64 spelling stands for, None if text is not that spelling.

    The decoder skips what is not of the alphabet, so it gives as many bytes as so many characters can only when each
    of them was one. Then nothing but the bits that the last characters have too many can differ: those are compared.
    """
    try:
        data = binascii.a2b_base64(text)
    except ValueError:
        return None
    padding = 2 if text.endswith(b"==") else text.endswith(b"=")
    if len(text) % 4 or len(data) != len(text) // 4 * 3 - padding:
        return None
    if padding and binascii.b2a_base64(data[padding - 3 :], newline=False) != text[-4:]:
        return None
    return data


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope; `format_envelope(parse_envelope(b)) == b` or GovrunError (ledger-inconsistent).

    At most 65,535 bytes, the payload at most 32,768. There is no JSON parser here on purpose: two of them may read
    the same bytes differently, one comparison may not.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _broken("envelope.size", "an envelope is too large", f"{len(data)} bytes", f"{MAX_ENVELOPE_BYTES} bytes")
    if usual := read_usual(data):
        payload, keyid, sig = usual
        return Envelope(payload, PAYLOAD_TYPE, (Signature(keyid, sig),))
    pieces = data.split(b'"')
    count, rest = divmod(len(pieces) - (_PIECES_OF_ONE - _PIECES_EACH), _PIECES_EACH)
    if rest or not 1 <= count <= MAX_SIGNATURES:
        raise _not_a_leaf("other members or another number of them")
    try:
        # Any spelling of the base64 will do here: writing it again, below, refuses all but one.
        envelope = Envelope(
            binascii.a2b_base64(pieces[3]),
            pieces[7].decode("ascii"),
            tuple(
                Signature(pieces[at].decode("ascii"), binascii.a2b_base64(pieces[at + 4]))
                for at in range(13, 13 + count * _PIECES_EACH, _PIECES_EACH)
            ),
        )
    except ValueError as error:
        raise _not_a_leaf("base64 or text that is not canonical") from error
    if problem := _problem(envelope):
        raise _broken(*problem)
    if _write(envelope) != data:
        raise _not_a_leaf("another spelling")
    return envelope


def format_envelope(envelope: Envelope) -> bytes:
    """Write an envelope; inverse of `parse_envelope`. GovrunError (receipt-invalid) for what it would not read."""
    if problem := _problem(envelope):
        rule, what, found, expected = problem
        raise GovrunError(ExitCode.RECEIPT_INVALID, rule, what, found=found, expected=expected)
    return _write(envelope)


def sign_envelope(payload: bytes, signers: Sequence[Signer]) -> Envelope:
    """Sign payload with each signer in order (one, or two for key entries).

    GovrunError: receipt-invalid if the payload is too large or the signers are none, too many or the same twice;
    signing-failed if a signer fails.
    """
    _check_signers(signers)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "envelope.payload",
            "a payload is too large",
            found=f"{len(payload)} bytes",
            expected=f"{MAX_PAYLOAD_BYTES} bytes",
        )
    message = pae(TYPE_BYTES, payload)
    return Envelope(
        payload, PAYLOAD_TYPE, tuple(Signature(signer.verifier.keyid, signer.sign(message)) for signer in signers)
    )


def signed_leaf(payload: bytes, signers: Sequence[Signer]) -> bytes:
    """The leaf of a payload: `format_envelope(sign_envelope(...))`, with their errors.

    The usual leaf, of one signer, is written as `read_usual` reads it, without the values on the way.
    """
    if len(signers) == 1 and len(payload) <= MAX_PAYLOAD_BYTES:
        keyid = signers[0].verifier.keyid
        sig = signers[0].sign(pae(TYPE_BYTES, payload))
        if len(sig) == SIGNATURE_BYTES and _KEYID.fullmatch(keyid):
            return _usual(payload, keyid, sig)
        return format_envelope(Envelope(payload, PAYLOAD_TYPE, (Signature(keyid, sig),)))
    return format_envelope(sign_envelope(payload, signers))


def _usual(payload: bytes, keyid: str, sig: bytes) -> bytes:
    return b"".join(
        (
            _HEAD,
            binascii.b2a_base64(payload, newline=False),
            _TO_KEYID,
            keyid.encode(),
            _TO_SIG,
            binascii.b2a_base64(sig, newline=False),
            _END,
        )
    )


def verify_envelope(
    envelope: bytes | Envelope, verifiers: Mapping[str, Verifier] | Collection[Verifier], required: int = 1
) -> VerifiedPayload:
    """Verify every signature of an envelope, exactly `required` of them, each under another trusted key.

    verifiers: the trusted keys (of a mapping, its values). The keyid only decides which is tried first. A signature
    by an unknown key, one key twice, one signature more or fewer than required: GovrunError (signature-untrusted).
    Bytes that are no envelope: ledger-inconsistent.
    """
    if isinstance(envelope, bytes):
        envelope = parse_envelope(envelope)
    if required < 1 or len(envelope.signatures) != required:
        raise _untrusted(
            "signature.count",
            "another number of signatures than required",
            str(len(envelope.signatures)),
            str(required),
        )
    trusted = verifiers.values() if isinstance(verifiers, Mapping) else verifiers
    message = pae(envelope.payload_type.encode(), envelope.payload)
    found: list[Verifier] = []
    for signature in envelope.signatures:
        verifier = _find(message, signature, trusted)
        if any(verifier.public == other.public for other in found):
            raise _untrusted("signature.twice", "one key signed twice", verifier.name, "distinct keys")
        found.append(verifier)
    return VerifiedPayload(envelope.payload, tuple(found))


def _find(message: bytes, signature: Signature, trusted: Collection[Verifier]) -> Verifier:
    hint = signature.keyid
    for verifier in trusted:
        if verifier.keyid == hint and verifier.is_signature(message, signature.sig):
            return verifier
    for verifier in trusted:
        if verifier.keyid != hint and verifier.is_signature(message, signature.sig):
            return verifier
    raise _untrusted(
        "signature.untrusted",
        "a signature belongs to none of the trusted keys",
        f"keyid {hint[:16]}...",
        f"one of {len(trusted)} trusted keys",
    )


def _write(envelope: Envelope) -> bytes:
    signatures = b",".join(
        b'{"keyid":"%b","sig":"%b"}' % (signature.keyid.encode(), b64.encode(signature.sig))
        for signature in envelope.signatures
    )
    return b'{"payload":"%b","payloadType":"%b","signatures":[%b]}' % (
        b64.encode(envelope.payload),
        envelope.payload_type.encode(),
        signatures,
    )


def _problem(envelope: Envelope) -> tuple[str, str, str, str] | None:
    """What keeps envelope from being one of ours: rule, what, found, expected."""
    if envelope.payload_type != PAYLOAD_TYPE:
        return "envelope.type", "an envelope's payload is of another type", ascii(envelope.payload_type), PAYLOAD_TYPE
    if len(envelope.payload) > MAX_PAYLOAD_BYTES:
        return (
            "envelope.payload",
            "a payload is too large",
            f"{len(envelope.payload)} bytes",
            f"{MAX_PAYLOAD_BYTES} bytes",
        )
    if not 1 <= len(envelope.signatures) <= MAX_SIGNATURES:
        return (
            "envelope.signatures",
            "an envelope has the wrong number of signatures",
            str(len(envelope.signatures)),
            f"1 to {MAX_SIGNATURES}",
        )
    for signature in envelope.signatures:
        if not _KEYID.fullmatch(signature.keyid):
            return "envelope.keyid", "a keyid is malformed", ascii(signature.keyid[:64]), "64 lower-case hex digits"
        if len(signature.sig) != SIGNATURE_BYTES:
            return (
                "envelope.sig",
                "a signature has the wrong length",
                f"{len(signature.sig)} bytes",
                f"{SIGNATURE_BYTES} bytes",
            )
    return None


def _check_signers(signers: Sequence[Signer]) -> None:
    keys = {signer.verifier.public for signer in signers}
    if not 1 <= len(signers) <= MAX_SIGNATURES or len(keys) != len(signers):
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "envelope.signers",
            "an envelope needs one signer, or two that differ",
            found=f"{len(signers)} signers, {len(keys)} keys",
            expected=f"1 to {MAX_SIGNATURES} distinct keys",
        )


def _broken(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, rule, what, found=found, expected=expected)


def _not_a_leaf(found: str) -> GovrunError:
    return _broken(
        "envelope.bytes",
        "an envelope is not in its canonical form",
        found,
        "compact payload, payloadType, signatures with keyid and sig, padded base64",
    )


def _untrusted(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.SIGNATURE_UNTRUSTED, rule, what, found=found, expected=expected)
