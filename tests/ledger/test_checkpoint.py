"""Checkpoints: one spelling, the log's own key, and nothing changed passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import checkpoint
from govrun.ledger.checkpoint import Checkpoint
from govrun.signing.keys import signer_from_seed
from govrun.signing.note import parse_note, sign_note

# C2SP tlog-checkpoint, the first example; its key is not published.
PUBLISHED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
).encode()

ORIGIN = "example.com/ledger"
LOG = signer_from_seed(ORIGIN, b"l" * 32)
WITNESS = signer_from_seed("witness.example", b"w" * 32)
HEAD = Checkpoint(ORIGIN, 41, hashlib.sha256(b"root").digest())
VALID = checkpoint.sign_checkpoint(HEAD, LOG)


def refused(code: ExitCode, rule: str, call: Callable[..., object], *args: object) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def test_published_checkpoint_is_read_and_written_back() -> None:
    text = parse_note(PUBLISHED).text
    head = checkpoint.parse_checkpoint(text)
    assert (head.origin, head.size, head.root.hex()[:8], head.extensions) == (
        "example.com/behind-the-sofa",
        20_852_163,
        "0ac5186a",
        (),
    )
    assert text == checkpoint.format_checkpoint(head)


def test_signed_checkpoint_verifies() -> None:
    expected = checkpoint.VerifiedCheckpoint(HEAD, (LOG.verifier,), VALID)
    assert expected == checkpoint.verify_checkpoint(VALID, ORIGIN, [LOG.verifier])


def test_usual_note_gives_its_root() -> None:
    assert HEAD.root == checkpoint.verified_root(VALID, 41, LOG.verifier)


def test_a_note_that_is_not_the_usual_one_gives_no_root() -> None:
    text = checkpoint.format_checkpoint(HEAD)
    extended = checkpoint.format_checkpoint(attrs.evolve(HEAD, extensions=("more",)))
    short = text.replace(text.split(b"\n")[2], b"AAAA")
    notes = [sign_note(text, [LOG, WITNESS]), sign_note(text, [WITNESS]), sign_note(extended, [LOG])]
    for note in (*notes, sign_note(short, [LOG]), PUBLISHED, b""):
        assert checkpoint.verified_root(note, 41, LOG.verifier) is None
    for size in (0, 40, 42, -41, 1 << 63):
        assert checkpoint.verified_root(VALID, size, LOG.verifier) is None
    assert checkpoint.verified_root(VALID, 41, WITNESS.verifier) is None


def test_no_changed_byte_and_no_cut_of_the_usual_note_gives_a_root() -> None:
    for at, byte in enumerate(VALID):
        for changed in (byte ^ 1, byte ^ 0x80, ord(" "), ord("=")):
            note = VALID[:at] + bytes([changed]) + VALID[at + 1 :]
            assert note == VALID or checkpoint.verified_root(note, 41, LOG.verifier) is None
        assert checkpoint.verified_root(VALID[:at], 41, LOG.verifier) is None
    assert checkpoint.verified_root(VALID + b"\n", 41, LOG.verifier) is None


def test_witness_may_sign_beside_the_log_but_not_instead() -> None:
    text = checkpoint.format_checkpoint(HEAD)
    known = [LOG.verifier, WITNESS.verifier]
    both = sign_note(text, [LOG, WITNESS])
    assert (LOG.verifier, WITNESS.verifier) == checkpoint.verify_checkpoint(both, ORIGIN, known).verifiers
    alone = sign_note(text, [WITNESS])
    refused(ExitCode.SIGNATURE_UNTRUSTED, "checkpoint.signer", checkpoint.verify_checkpoint, alone, ORIGIN, known)


def test_checkpoint_of_another_log_is_refused() -> None:
    other = signer_from_seed("example.com/other", b"o" * 32)
    note = checkpoint.sign_checkpoint(attrs.evolve(HEAD, origin="example.com/other"), other)
    known = [LOG.verifier, other.verifier]
    error = refused(
        ExitCode.LEDGER_INCONSISTENT, "checkpoint.origin", checkpoint.verify_checkpoint, note, ORIGIN, known
    )
    assert (error.found, error.expected) == ("example.com/other", ORIGIN)


def test_checkpoint_without_a_trusted_key_is_refused() -> None:
    impostor = signer_from_seed(ORIGIN, b"i" * 32)
    note = checkpoint.sign_checkpoint(HEAD, impostor)
    for known in ([LOG.verifier], []):
        refused(ExitCode.SIGNATURE_UNTRUSTED, "note.unknown", checkpoint.verify_checkpoint, note, ORIGIN, known)


def test_log_signs_only_with_its_own_name() -> None:
    refused(ExitCode.CHECKPOINT_FAILED, "checkpoint.signer", checkpoint.sign_checkpoint, HEAD, WITNESS)


def test_no_flipped_bit_and_no_cut_passes() -> None:
    for at in range(len(VALID)):
        flipped = [VALID[:at] + bytes([VALID[at] ^ 1 << bit]) + VALID[at + 1 :] for bit in range(8)]
        for changed in [*flipped, VALID[:at]]:
            with pytest.raises(GovrunError) as caught:
                checkpoint.verify_checkpoint(changed, ORIGIN, [LOG.verifier])
            assert caught.value.code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)


TEXT = checkpoint.format_checkpoint(HEAD)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n\n",
        TEXT[:-1],
        TEXT + b"\n",
        TEXT.replace(b"\n41\n", b"\n041\n"),
        TEXT.replace(b"\n41\n", b"\n+41\n"),
        TEXT.replace(b"\n41\n", b"\n-41\n"),
        TEXT.replace(b"\n41\n", b"\n4_1\n"),
        TEXT.replace(b"\n41\n", "\n\u0664\u0661\n".encode()),
        TEXT.replace(b"\n41\n", b"\n 41\n"),
        TEXT.replace(b"\n41\n", b"\n\n"),
        TEXT.replace(b"\n41\n", b"\n9223372036854775808\n"),
        TEXT.replace(b"\n41\n", b"\n99999999999999999999\n"),
        TEXT.replace(b"\n41\n", b"\n0\n"),
        TEXT.replace(b"\n41\n", b"\n"),
        TEXT.replace(b"=\n", b"\n"),
        TEXT.replace(b"=\n", b"==\n"),
        TEXT.replace(b"=\n", "é\n".encode()),
        b"example.com/ledger\n41\nAAAA\n",
        TEXT.replace(b"example.com", b"example com"),
        TEXT.replace(b"example.com", b"example+com"),
        TEXT.replace(b"example.com", "exämple.com".encode()),
        TEXT.replace(b"example.com", b"example\xff.com"),
        TEXT.replace(b"example.com/ledger", b""),
        TEXT + b"\nextension\n",
    ],
)
def test_text_that_is_no_checkpoint_is_refused(text: bytes) -> None:
    refused(ExitCode.LEDGER_INCONSISTENT, "checkpoint.form", checkpoint.parse_checkpoint, text)


def test_extension_lines_are_kept_verbatim() -> None:
    head = checkpoint.parse_checkpoint(TEXT + "one\nzwei ü\n".encode())
    assert attrs.evolve(HEAD, extensions=("one", "zwei ü")) == head
    assert TEXT + "one\nzwei ü\n".encode() == checkpoint.format_checkpoint(head)
    for bad in ("", "two\nlines"):
        malformed = attrs.evolve(HEAD, extensions=(bad,))
        refused(ExitCode.LEDGER_INCONSISTENT, "checkpoint.form", checkpoint.format_checkpoint, malformed)


def test_empty_tree_has_one_root() -> None:
    empty = Checkpoint(ORIGIN, 0, hashlib.sha256(b"").digest())
    assert empty == checkpoint.parse_checkpoint(checkpoint.format_checkpoint(empty))
    wrong = Checkpoint(ORIGIN, 0, b"x" * 32)
    refused(ExitCode.LEDGER_INCONSISTENT, "checkpoint.form", checkpoint.format_checkpoint, wrong)


origins = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="+:"), min_size=1)


@given(origin=origins, size=st.integers(1, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_checkpoints_survive_writing_and_reading(origin: str, size: int, root: bytes) -> None:
    head = Checkpoint(origin[:255], size, root)
    assert head == checkpoint.parse_checkpoint(checkpoint.format_checkpoint(head))
    signer = signer_from_seed(head.origin, b"s" * 32)
    signed = checkpoint.sign_checkpoint(head, signer)
    assert head == checkpoint.verify_checkpoint(signed, head.origin, [signer.verifier]).checkpoint


@pytest.mark.parametrize("origin", ["a", ORIGIN, "localhost:8080/x", "x" * 255, "govrun.example/a-b_c~d"])
def test_fitting_origins_are_returned(origin: str) -> None:
    assert origin == checkpoint.check_origin(origin)


@pytest.mark.parametrize(
    "origin", ["", "a b", "a+b", "a\n", "a\x7f", "a\x00", "ä", "\ud800", "x" * 256, "https://example.com/x"]
)
def test_unfit_origins_are_refused(origin: str) -> None:
    refused(ExitCode.USAGE, "origin.form", checkpoint.check_origin, origin)
