"""A proof file proves one entry's exact bytes, and nothing changed proves anything."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import merkle
from govrun.ledger.checkpoint import Checkpoint, VerifiedCheckpoint, sign_checkpoint, verify_checkpoint
from govrun.ledger.proof import LogProof, VerifiedInclusion, format_proof, parse_proof, verify_proof
from govrun.signing.keys import signer_from_seed
from govrun.signing.note import sign_note

ORIGIN = "example.com/ledger"
LOG = signer_from_seed(ORIGIN, b"l" * 32)
KNOWN = (LOG.verifier,)
LEAVES = [b"entry %d\n" % n for n in range(21)]


def build() -> Callable[[Sequence[int]], Sequence[bytes]]:
    frontier = merkle.Frontier()
    stored = [one for leaf in LEAVES for one in frontier.append(merkle.leaf_hash(leaf))]
    return lambda indexes: [stored[index] for index in indexes]


READER = build()


def prove(index: int, size: int) -> LogProof:
    note = sign_checkpoint(Checkpoint(ORIGIN, size, merkle.root_hash(size, READER)), LOG)
    return LogProof(LEAVES[index], index, merkle.inclusion_proof(index, size, READER).hashes, note)


VALID = prove(6, 21)


def refused(code: ExitCode, rule: str, call: Callable[..., object], *args: object) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def test_file_is_what_the_specification_says() -> None:
    # C2SP tlog-proof, "Format".
    expected = "c2sp.org/tlog-proof@v1\n"
    expected += f"extra {b64encode(VALID.leaf).decode()}\n"
    expected += "index 6\n"
    expected += "".join(f"{b64encode(one).decode()}\n" for one in VALID.hashes)
    expected += "\n"
    assert expected.encode() + VALID.checkpoint == format_proof(VALID)


def test_every_entry_of_every_tree_is_proved() -> None:
    for size in range(1, len(LEAVES) + 1):
        for index in range(size):
            proof = prove(index, size)
            data = format_proof(proof)
            assert proof == parse_proof(data)
            verified = verify_proof(data, ORIGIN, KNOWN)
            head = verify_checkpoint(proof.checkpoint, ORIGIN, KNOWN)
            assert isinstance(verified.checkpoint, VerifiedCheckpoint)
            assert VerifiedInclusion(LEAVES[index], index, head) == verified
            assert verified == verify_proof(proof, ORIGIN, KNOWN)


@pytest.mark.parametrize("proof", [VALID, prove(0, 1), prove(20, 21)])
def test_no_flipped_bit_and_no_cut_passes(proof: LogProof) -> None:
    data = format_proof(proof)
    for at in range(len(data)):
        flipped = [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for bit in range(8)]
        for changed in [*flipped, data[:at]]:
            with pytest.raises(GovrunError) as caught:
                verify_proof(changed, ORIGIN, KNOWN)
            assert caught.value.code in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)


def test_proof_of_another_entry_is_refused() -> None:
    for other in (
        attrs.evolve(VALID, leaf=LEAVES[7]),
        attrs.evolve(VALID, index=7),
        attrs.evolve(VALID, index=21),
        attrs.evolve(VALID, hashes=VALID.hashes[:-1]),
        attrs.evolve(VALID, hashes=(*VALID.hashes, b"x" * 32)),
        attrs.evolve(VALID, checkpoint=prove(6, 20).checkpoint),
    ):
        refused(ExitCode.LEDGER_INCONSISTENT, "proof.inclusion", verify_proof, other, ORIGIN, KNOWN)


def test_node_passed_off_as_an_entry_is_refused() -> None:
    # Without the 0x00 and 0x01 in front, the bytes of two neighbouring hashes would pass as a leaf.
    left, right = (merkle.leaf_hash(LEAVES[n]) for n in (0, 1))
    note = sign_checkpoint(Checkpoint(ORIGIN, 2, merkle.node_hash(left, right)), LOG)
    for leaf in (left + right, b"\x01" + left + right):
        forged = LogProof(leaf, 0, (), note)
        refused(ExitCode.LEDGER_INCONSISTENT, "proof.inclusion", verify_proof, forged, ORIGIN, KNOWN)


def test_proof_under_an_unknown_key_or_origin_is_refused() -> None:
    impostor = signer_from_seed(ORIGIN, b"i" * 32)
    text = VALID.checkpoint.partition(b"\n\n")[0] + b"\n"
    forged = attrs.evolve(VALID, checkpoint=sign_note(text, [impostor]))
    refused(ExitCode.SIGNATURE_UNTRUSTED, "note.unknown", verify_proof, forged, ORIGIN, KNOWN)
    refused(ExitCode.SIGNATURE_UNTRUSTED, "note.unknown", verify_proof, VALID, ORIGIN, ())
    refused(ExitCode.LEDGER_INCONSISTENT, "checkpoint.origin", verify_proof, VALID, "example.com/other", KNOWN)


DATA = format_proof(VALID)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        DATA.replace(b"@v1", b"@v2"),
        DATA.replace(b"\nindex", b"\n\nindex"),
        DATA.replace(b"index 6", b"index 06"),
        DATA.replace(b"index 6", b"index -6"),
        DATA.replace(b"index 6", b"index 9223372036854775808"),
        DATA.replace(b"index 6", b"index  6"),
        DATA.replace(b"index 6\n", b""),
        DATA.replace(b"extra ", b"other "),
        DATA.replace(b"extra ", b"extra  "),
        DATA.replace(b"extra ", b"extra").replace(b"index", b"extra\nindex"),
        DATA.replace(b"\nextra ", b"\r\nextra "),
        DATA.replace(b64encode(VALID.hashes[0]), b64encode(VALID.hashes[0][:-1])),
        DATA.replace(b64encode(VALID.hashes[0]), b64encode(VALID.hashes[0] + b"x")),
        DATA.replace(b64encode(VALID.hashes[0]), b"!" * 44),
        DATA.replace(b64encode(VALID.hashes[0]), b"\n".join([b64encode(VALID.hashes[0])] * 64)),
        DATA.replace(b64encode(VALID.leaf), b64encode(VALID.leaf).rstrip(b"=") + b"\xff"),
        DATA.replace(b64encode(VALID.leaf), b64encode(b"x" * 65_536)),
        DATA.replace(b64encode(VALID.leaf), b64encode(b"x" * 262_144)),
    ],
)
def test_file_that_is_no_proof_is_refused(data: bytes) -> None:
    refused(ExitCode.LEDGER_INCONSISTENT, "proof.form", parse_proof, data)


def test_proof_whose_checkpoint_is_no_note_is_refused() -> None:
    for note in (b"", b"text\n", VALID.checkpoint[:-1], VALID.checkpoint + b"\n"):
        refused(ExitCode.LEDGER_INCONSISTENT, "note.form", parse_proof, DATA.replace(VALID.checkpoint, note))
        refused(ExitCode.LEDGER_INCONSISTENT, "note.form", format_proof, attrs.evolve(VALID, checkpoint=note))


def test_what_could_not_be_read_back_is_not_written() -> None:
    for bad in (
        attrs.evolve(VALID, index=-1),
        attrs.evolve(VALID, leaf=b"x" * 65_536),
        attrs.evolve(VALID, hashes=(b"x" * 31,)),
        attrs.evolve(VALID, hashes=(b"x" * 32,) * 64),
    ):
        refused(ExitCode.LEDGER_INCONSISTENT, "proof.form", format_proof, bad)


def test_largest_entry_fits() -> None:
    leaf = bytes(range(256)) * 255 + bytes(255)
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, merkle.leaf_hash(leaf)), LOG)
    assert verify_proof(format_proof(LogProof(leaf, 0, (), note)), ORIGIN, KNOWN).leaf == leaf


@given(
    leaf=st.binary(max_size=200),
    index=st.integers(0, 2**63 - 1),
    hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
)
def test_proofs_survive_writing_and_reading(leaf: bytes, index: int, hashes: tuple[bytes, ...]) -> None:
    proof = LogProof(leaf, index, hashes, VALID.checkpoint)
    assert proof == parse_proof(format_proof(proof))
