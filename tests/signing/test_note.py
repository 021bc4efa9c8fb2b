"""Signed notes: published examples, one spelling, and no trust without a known key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.signing import note
from govrun.signing.b64 import encode
from govrun.signing.keys import parse_skey, parse_vkey, signer_from_seed

# C2SP signed-note, "Example".
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
# C2SP signed-note, the first example; its key is not published.
VERSE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()
# The Go note package, documentation of Sign: Ed25519 is deterministic, so our signature must be this one.
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz\n"
GO_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

ONE = signer_from_seed("example.com/one", b"1" * 32)
TWO = signer_from_seed("witness.example/ü", b"2" * 32)
STRANGER = signer_from_seed("example.com/one", b"3" * 32)
TEXT = b"first\n\nlast\n"
VALID = note.sign_note(TEXT, [ONE])


def refused(code: ExitCode, rule: str, call: object, *args: object) -> GovrunError:
    assert callable(call)
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def malformed(data: bytes) -> None:
    refused(ExitCode.LEDGER_INCONSISTENT, "note.form", note.parse_note, data)


def test_published_note_verifies() -> None:
    verifier = parse_vkey(C2SP_VKEY)
    expected = note.VerifiedNote(b"This is an example message.\n", (verifier,))
    assert expected == note.verify_note(C2SP_NOTE, [verifier])


def test_published_note_with_an_empty_line_is_read_and_written_back() -> None:
    parsed = note.parse_note(VERSE)
    assert parsed.text.endswith("sole:\n\ned è subito sera.\n".encode())
    assert [(s.name, s.key_id.hex(), len(s.signature)) for s in parsed.signatures] == [
        ("quasimodo.example/salvatore", "367ba04b", 64)
    ]
    assert note.format_note(parsed) == VERSE


def test_published_private_key_gives_the_published_signature() -> None:
    expected = GO_TEXT + b"\n" + GO_SIGNATURE.encode()
    assert expected == note.sign_note(GO_TEXT, [parse_skey(GO_SKEY)])


def test_known_keys_are_reported_in_the_order_of_their_lines() -> None:
    both = note.sign_note(TEXT, [TWO, ONE])
    assert (TWO.verifier, ONE.verifier) == note.verify_note(both, [ONE.verifier, TWO.verifier]).verifiers


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    both = note.sign_note(TEXT, [STRANGER, ONE])
    assert (ONE.verifier,) == note.verify_note(both, {ONE.verifier, TWO.verifier}).verifiers
    line = b"\xe2\x80\x94 elsewhere.example " + encode(b"some other algorithm, some other length") + b"\n"
    assert (ONE.verifier,) == note.verify_note(VALID + line, [ONE.verifier]).verifiers


def test_note_without_a_known_signature_is_untrusted() -> None:
    error = refused(ExitCode.SIGNATURE_UNTRUSTED, "note.unknown", note.verify_note, VALID, [TWO.verifier])
    assert "example.com/one+" in str(error.found)
    assert str(error.expected).startswith("witness.example/ü+")
    error = refused(ExitCode.SIGNATURE_UNTRUSTED, "note.unknown", note.verify_note, VALID, [])
    assert error.expected == "a known key; none was given"
    refused(ExitCode.SIGNATURE_UNTRUSTED, "note.unknown", note.verify_note, VALID, [STRANGER.verifier])


def test_one_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    good = note.parse_note(note.sign_note(TEXT, [ONE, TWO]))
    wrong = note.NoteSignature(TWO.verifier.name, TWO.verifier.key_id, b"x" * 64)
    data = note.format_note(note.Note(TEXT, (good.signatures[0], wrong)))
    known = [ONE.verifier, TWO.verifier]
    refused(ExitCode.SIGNATURE_UNTRUSTED, "signature.wrong", note.verify_note, data, known)


def test_one_key_that_signed_twice_refuses_the_note() -> None:
    twice = note.sign_note(TEXT, [ONE, ONE])
    refused(ExitCode.SIGNATURE_UNTRUSTED, "note.twice", note.verify_note, twice, [ONE.verifier])


def test_keys_that_share_name_and_hash_cannot_be_told_apart() -> None:
    twin = parse_vkey(C2SP_VKEY)
    object.__setattr__(twin, "public", ONE.verifier.public)  # a real collision takes 2^32 tries
    known = [parse_vkey(C2SP_VKEY), twin]
    refused(ExitCode.COULD_NOT_CHECK, "note.ambiguous", note.verify_note, C2SP_NOTE, known)
    assert note.verify_note(C2SP_NOTE, [parse_vkey(C2SP_VKEY)] * 2).verifiers == (parse_vkey(C2SP_VKEY),)


@pytest.mark.parametrize(
    ("data", "verifier"),
    [(C2SP_NOTE, parse_vkey(C2SP_VKEY)), (VALID, ONE.verifier), (note.sign_note(TEXT, [TWO]), TWO.verifier)],
)
def test_no_flipped_bit_and_no_cut_passes(data: bytes, verifier: object) -> None:
    for at in range(len(data)):
        flipped = [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for bit in range(8)]
        for changed in [*flipped, data[:at]]:
            with pytest.raises(GovrunError) as caught:
                note.verify_note(changed, [verifier])  # type: ignore[list-item]
            assert caught.value.code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)


def test_everything_that_is_no_note_is_refused() -> None:
    line = VALID.split(b"\n\n")[-1]
    malformed(b"")
    malformed(b"\n")
    malformed(b"\n\n")
    malformed(TEXT)
    malformed(line)
    malformed(b"\n" + line)
    malformed(VALID[:-1])
    malformed(VALID + b"\n")
    malformed(VALID + b"x\n")
    malformed(VALID.replace("—".encode(), b"-"))
    malformed(VALID.replace("— ".encode(), "—".encode()))
    malformed(VALID.replace(b"one ", b"one"))
    malformed(VALID.replace(b"one ", b"one  "))
    malformed(VALID.replace(b"/one ", b"+one "))
    malformed(VALID.replace(b"example.com/one ", b" "))
    malformed(VALID.replace(b"=\n", b"\n"))
    malformed(VALID.replace(b"first", b"fi\trst"))
    malformed(VALID.replace(b"first\n", b"first\r\n"))
    malformed(VALID.replace(b"first", b"fi\x00rst"))
    malformed(VALID.replace(b"first", b"fi\xffrst"))
    malformed(TEXT + b"\n\xe2\x80\x94 n " + encode(b"hash") + b"\n")
    malformed(TEXT + b"\n\xe2\x80\x94 n " + encode(b"has") + b"\n")


def test_text_of_empty_lines_alone_can_be_signed() -> None:
    assert note.verify_note(note.sign_note(b"\n", [ONE]), [ONE.verifier]).text == b"\n"
    assert note.verify_note(note.sign_note(b"\n\n\n", [ONE]), [ONE.verifier]).text == b"\n\n\n"


def test_number_of_signatures_and_size_have_a_limit() -> None:
    sixteen = [signer_from_seed(f"w{n}.example", bytes([n]) * 32) for n in range(16)]
    data = note.sign_note(TEXT, sixteen)
    assert len(note.verify_note(data, [s.verifier for s in sixteen]).verifiers) == 16
    malformed(data + VALID.split(b"\n\n")[-1])
    refused(ExitCode.LEDGER_INCONSISTENT, "note.form", note.sign_note, TEXT, [*sixteen, ONE])
    refused(ExitCode.LEDGER_INCONSISTENT, "note.form", note.sign_note, TEXT, [])
    room = 65_536 - (len(VALID) - len(TEXT))
    fits = b"x" * (room - 1) + b"\n"
    assert fits == note.verify_note(note.sign_note(fits, [ONE]), [ONE.verifier]).text
    refused(ExitCode.LEDGER_INCONSISTENT, "note.form", note.sign_note, b"x" + fits, [ONE])
    malformed(b"x" + note.sign_note(fits, [ONE]))


def test_what_could_not_be_read_back_is_not_written() -> None:
    for text in (b"", b"no newline", b"control\x07\n", b"\xff\n"):
        refused(ExitCode.LEDGER_INCONSISTENT, "note.form", note.sign_note, text, [ONE])
    for bad in (
        note.NoteSignature("a b", b"hash", b"sig"),
        note.NoteSignature("name", b"has", b"sig"),
        note.NoteSignature("name", b"hash", b""),
    ):
        refused(ExitCode.LEDGER_INCONSISTENT, "note.form", note.format_note, note.Note(TEXT, (bad,)))


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"), max_size=80)


@given(text=texts, both=st.booleans())
def test_notes_survive_signing_and_reading(text: str, both: bool) -> None:
    signed = note.sign_note(f"{text}\n".encode(), [ONE, TWO] if both else [ONE])
    assert signed == note.format_note(note.parse_note(signed))
    assert note.verify_note(signed, [ONE.verifier]).text == f"{text}\n".encode()


@given(data=st.binary(max_size=200) | st.text(alphabet="—\n A=b+\t", max_size=60).map(str.encode))
def test_arbitrary_bytes_are_read_back_exactly_or_refused(data: bytes) -> None:
    try:
        parsed = note.parse_note(data)
    except GovrunError as error:
        refused(ExitCode.LEDGER_INCONSISTENT, error.rule, note.parse_note, data)
    else:
        assert data == note.format_note(parsed)
