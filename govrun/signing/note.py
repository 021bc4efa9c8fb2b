"""Signed notes: a text and, below a blank line, one line per signature (C2SP signed-note).

    This is an example message.

    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=

The text ends in a newline, which is signed; the blank line is not. Behind the key's name stands the base64 of the
4-byte key hash and the signature. Anybody can add lines under names of their own, so signatures of unknown keys say
nothing and are passed over; a line that claims a known key and does not verify refuses the whole note.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.signing import b64
from govrun.signing.keys import KEY_ID_BYTES, Signer, Verifier, name_problem

MAX_NOTE_BYTES: Final = 65_536
MAX_SIGNATURES: Final = 16

DASH: Final = "— ".encode()
_CONTROLS: Final = bytes(set(range(0x20)) - {0x0A})


@frozen
class NoteSignature:
    """One signature line: key name, key_id (4 bytes), signature (bytes as long as the algorithm makes them)."""

    name: str
    key_id: bytes
    signature: bytes


@frozen
class Note:
    """What a signed note's bytes say; nothing in it is verified. text ends in a newline."""

    text: bytes
    signatures: tuple[NoteSignature, ...]


@frozen
class VerifiedNote:
    """A text under the known keys that signed it, in the order of their lines; only `verify_note` makes one."""

    text: bytes
    verifiers: tuple[Verifier, ...]


def parse_note(data: bytes) -> Note:
    """Read a signed note; `format_note(parse_note(b)) == b` or GovrunError (ledger-inconsistent).

    At most 65,536 bytes and 16 signature lines, valid UTF-8, no control character but newline. The last blank line
    parts text and signatures.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise _malformed("the note is too large", f"{len(data)} bytes", f"at most {MAX_NOTE_BYTES} bytes")
    _check_text(data)
    text, blank, block = data.rpartition(b"\n\n")
    if not blank or not block.endswith(b"\n"):
        raise _malformed("the note has no signature lines", None, "text, a blank line, signature lines")
    lines = block[:-1].split(b"\n")
    if len(lines) > MAX_SIGNATURES:
        raise _malformed("the note has too many signature lines", str(len(lines)), f"at most {MAX_SIGNATURES}")
    return Note(text + b"\n", tuple(_parse_signature(line) for line in lines))


def _parse_signature(line: bytes) -> NoteSignature:
    name, space, encoded = line.removeprefix(DASH).decode().partition(" ")
    if not line.startswith(DASH) or not space:
        raise _malformed("a signature line is malformed", None, "em dash, space, key name, space, base64")
    try:
        raw = b64.decode(encoded.encode())
    except ValueError as error:
        raise _malformed("a signature is not canonical base64", None, "padded standard base64") from error
    return _checked(NoteSignature(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:]))


def format_note(note: Note) -> bytes:
    """Write a signed note; inverse of `parse_note`. GovrunError (ledger-inconsistent) for what it would not read."""
    if not note.text.endswith(b"\n"):
        raise _malformed("the text does not end in a newline", None, "text that ends in a newline")
    if not 1 <= len(note.signatures) <= MAX_SIGNATURES:
        raise _malformed("the note has the wrong number of signatures", str(len(note.signatures)), "1 to 16")
    _check_text(note.text)
    lines = [
        b"%b%b %b\n" % (DASH, signature.name.encode(), b64.encode(signature.key_id + signature.signature))
        for signature in map(_checked, note.signatures)
    ]
    data = note.text + b"\n" + b"".join(lines)
    if len(data) > MAX_NOTE_BYTES:
        raise _malformed("the note is too large", f"{len(data)} bytes", f"at most {MAX_NOTE_BYTES} bytes")
    return data


def _checked(signature: NoteSignature) -> NoteSignature:
    if problem := name_problem(signature.name):
        raise _malformed("a signature line has no key name", problem, "a name without space or plus")
    if len(signature.key_id) != KEY_ID_BYTES or not signature.signature:
        raise _malformed("a signature is too short", None, "a 4-byte key hash and a signature")
    return signature


def _check_text(data: bytes) -> None:
    # translate runs in C and leaves the length alone unless there is something to find.
    if len(data.translate(None, _CONTROLS)) != len(data):
        raise _malformed("the note holds control characters", None, "text and newlines")
    try:
        data.decode()
    except UnicodeDecodeError:
        raise _malformed("the note is not UTF-8", None, "UTF-8") from None


def sign_note(text: bytes, signers: Sequence[Signer]) -> bytes:
    """Sign text with each signer in order; the note's bytes. text must end in a newline."""
    return format_note(
        Note(
            text,
            tuple(NoteSignature(signer.verifier.name, signer.verifier.key_id, signer.sign(text)) for signer in signers),
        )
    )


def verify_note(data: bytes, verifiers: Collection[Verifier]) -> VerifiedNote:
    """Verify a signed note under the known keys; at least one of them must have signed.

    Lines of unknown keys (another name or key hash) are passed over. GovrunError (signature-untrusted): a known key's
    line that does not verify, a known key's second line, or no line of a known key. Bytes that are no note:
    ledger-inconsistent. Two different keys of the same name and hash among verifiers: could-not-check.
    """
    note = parse_note(data)
    known = _by_name(verifiers)
    signed: list[Verifier] = []
    for signature in note.signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            continue
        verifier.verify(note.text, signature.signature)
        if verifier in signed:
            raise GovrunError(
                ExitCode.SIGNATURE_UNTRUSTED, "note.twice", "one key signed the note twice", found=verifier.name
            )
        signed.append(verifier)
    if not signed:
        raise GovrunError(
            ExitCode.SIGNATURE_UNTRUSTED,
            "note.unknown",
            "no known key signed the note",
            found=", ".join(f"{ascii(s.name)[1:-1]}+{s.key_id.hex()}" for s in note.signatures),
            expected=" or ".join(f"{v.name}+{v.key_id.hex()}" for v in verifiers) or "a known key; none was given",
        )
    return VerifiedNote(note.text, tuple(signed))


def _by_name(verifiers: Collection[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "note.ambiguous",
                "two different keys share name and key hash",
                found=f"{verifier.name}+{verifier.key_id.hex()}",
            )
    return known


def _malformed(what: str, found: str | None, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, "note.form", what, found=found, expected=expected)
