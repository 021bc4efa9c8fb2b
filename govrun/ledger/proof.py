"""The proof of one entry in one file, checkable without the ledger (C2SP tlog-proof).

    c2sp.org/tlog-proof@v1
    extra <base64 of the entry's exact bytes>
    index 73894
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
    B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

    <the signed checkpoint, verbatim>

The hashes are the siblings from leaf to root. C2SP leaves `extra` to the application and unauthenticated; here it is
the leaf itself, and what counts is that its hash leads to the signed root. A proof says that the entry is in the
ledger: nothing about who signed the entry, or what it says.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.checkpoint import VerifiedCheckpoint, verify_checkpoint
from govrun.ledger.merkle import HASH_BYTES, MAX_ENTRY_BYTES, MAX_SIZE, InclusionProof, leaf_hash, verify_inclusion
from govrun.signing import b64
from govrun.signing.keys import Verifier
from govrun.signing.note import parse_note

MAX_PROOF_BYTES: Final = 262_144
MAX_HASHES: Final = 63

_FORMAT: Final = b"c2sp.org/tlog-proof@"
_FIRST_LINE: Final = _FORMAT + b"v1"
_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})")


@frozen
class LogProof:
    """What a proof file says; nothing in it is verified.

    leaf: the entry's bytes, at most 65,535. index: its place from 0. hashes: siblings of 32 bytes, leaf's first.
    checkpoint: a signed note, verbatim.
    """

    leaf: bytes
    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


@frozen
class VerifiedInclusion:
    """An entry's bytes and place under a verified checkpoint; only `verify_proof` makes one."""

    leaf: bytes
    index: int
    checkpoint: VerifiedCheckpoint


def format_proof(proof: LogProof) -> bytes:
    """The proof file's bytes; inverse of `parse_proof`, and refuses what that would not read."""
    _check(proof)
    lines = [
        _FIRST_LINE,
        b"extra " + b64.encode(proof.leaf),
        b"index %d" % proof.index,
        *map(b64.encode, proof.hashes),
        b"",
    ]
    return b"".join(line + b"\n" for line in lines) + proof.checkpoint


def is_proof(head: bytes) -> bool:
    """Whether a file that begins like this means to be a log proof, of whatever version."""
    return head.startswith(_FORMAT)


def parse_proof(data: bytes) -> LogProof:
    """Read a proof file; `format_proof(parse_proof(b)) == b` or GovrunError (ledger-inconsistent).

    At most 262,144 bytes and 63 hashes.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise _malformed("the proof is too large", f"{len(data)} bytes", f"at most {MAX_PROOF_BYTES} bytes")
    # Neither the lines above the first blank line nor their base64 can hold another.
    head, blank, checkpoint = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if not blank or len(lines) < 3 or lines[0] != _FIRST_LINE:
        raise _malformed("this is not a log proof", None, f"first line {_FIRST_LINE.decode()}, then extra and index")
    _, extra, index, *hashes = lines
    number = _INDEX.fullmatch(index)
    if not extra.startswith(b"extra ") or number is None:
        raise _malformed("the proof lacks its entry or its index", None, "lines `extra <base64>` and `index <number>`")
    try:
        proof = LogProof(
            b64.decode(extra.removeprefix(b"extra ")), int(number[1]), tuple(map(b64.decode, hashes)), checkpoint
        )
    except ValueError as error:
        raise _malformed("a line of the proof is not canonical base64", None, "padded standard base64") from error
    _check(proof)
    return proof


def verify_proof(proof: bytes | LogProof, origin: str, verifiers: Collection[Verifier]) -> VerifiedInclusion:
    """Verify that an entry is in the log origin, under the log's trusted keys.

    GovrunError: ledger-inconsistent if this is no proof, or leads to another root; signature-untrusted if the
    checkpoint is not the log's.
    """
    if isinstance(proof, bytes):
        proof = parse_proof(proof)
    verified = verify_checkpoint(proof.checkpoint, origin, verifiers)
    head = verified.checkpoint
    verify_inclusion(InclusionProof(proof.index, head.size, proof.hashes), leaf_hash(proof.leaf), head.root)
    return VerifiedInclusion(proof.leaf, proof.index, verified)


def _check(proof: LogProof) -> None:
    if len(proof.leaf) > MAX_ENTRY_BYTES:
        raise _malformed("the entry is too large", f"{len(proof.leaf)} bytes", f"at most {MAX_ENTRY_BYTES} bytes")
    if not 0 <= proof.index <= MAX_SIZE:
        raise _malformed("the index is out of range", str(proof.index), f"0 to {MAX_SIZE}")
    if len(proof.hashes) > MAX_HASHES or any(len(one) != HASH_BYTES for one in proof.hashes):
        raise _malformed("the proof has too many hashes, or one malformed", None, f"at most {MAX_HASHES} of 32 bytes")
    parse_note(proof.checkpoint)


def _malformed(what: str, found: str | None, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, "proof.form", what, found=found, expected=expected)
