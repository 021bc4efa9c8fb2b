"""Checkpoints: a log's name, size and root hash as the text of a signed note (C2SP tlog-checkpoint).

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=

Origin, tree size without leading zeros, root hash in base64. govrun writes no further lines; those of other logs
(extensions) are kept as they are. Whoever holds the log key can sign two checkpoints that contradict each other: only
one kept elsewhere shows that.
"""  # noqa: E501 - the example is a real one, whole

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Collection
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from govrun.signing import b64
from govrun.signing.keys import KEY_ID_BYTES, Ed25519Signer, Signer, Verifier
from govrun.signing.note import DASH, sign_note, verify_note

MAX_ORIGIN_BYTES: Final = 255

# Origin, size, root, a blank line, one signature, and what stands behind the last newline: nothing.
_USUAL_LINES: Final = 6

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


@frozen
class Checkpoint:
    """A tree head: origin, size in leaves (0 to 2^63 - 1), root (32 bytes), and other logs' extension lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


@frozen
class VerifiedCheckpoint:
    """A tree head that the log's own key signed, and the exact note.

    Only `verify_checkpoint` and `sign_verified` make one.
    """

    checkpoint: Checkpoint
    verifiers: tuple[Verifier, ...]
    note: bytes


def check_origin(origin: str) -> str:
    """Return origin if it can name a log, else GovrunError (usage).

    A schema-less name in the manner of a URL: 1 to 255 bytes of printable ASCII, no space, no plus, no `://`.
    """
    if problem := _origin_problem(origin):
        raise GovrunError(
            ExitCode.USAGE,
            "origin.form",
            "this cannot be the origin of a ledger",
            found=problem,
            expected="1 to 255 printable ASCII characters such as example.com/ledger",
        )
    return origin


# Asked anew for every checkpoint, about the same few origins.
@functools.lru_cache(maxsize=32)
def _origin_problem(origin: str) -> str | None:
    if not origin:
        return "an empty name"
    if any(not "!" <= c <= "~" for c in origin):
        return "a space, a control character or one that is not ASCII"
    if len(origin) > MAX_ORIGIN_BYTES:
        return f"{len(origin)} bytes"
    if "+" in origin:
        return "a plus"
    if "://" in origin:
        return "a URL with its scheme"
    return None


def format_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The note text that is signed; inverse of `parse_checkpoint`, and refuses what that would not read."""
    if problem := _problem(checkpoint):
        raise _malformed(*problem)
    lines = (checkpoint.origin, str(checkpoint.size), b64.encode(checkpoint.root).decode(), *checkpoint.extensions)
    return "".join(f"{line}\n" for line in lines).encode()


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Read a note's text; `format_checkpoint(parse_checkpoint(t)) == t` or GovrunError (ledger-inconsistent)."""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError:
        raise _malformed("the checkpoint is not UTF-8", None, "UTF-8") from None
    if len(lines) < 4 or lines[-1]:
        raise _malformed("the checkpoint has too few lines", None, "origin, size and root, each with a newline")
    origin, size, root, *extensions = lines[:-1]
    if not _DECIMAL.fullmatch(size):
        raise _malformed("the tree size is malformed", ascii(size[:32]), "a decimal without leading zeros")
    try:
        checkpoint = Checkpoint(origin, int(size), b64.decode(root.encode()), tuple(extensions))
    except ValueError as error:
        raise _malformed("the root hash is not canonical base64", None, "padded standard base64") from error
    if problem := _problem(checkpoint):
        raise _malformed(*problem)
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Sign a tree head with the log's key, whose name is the origin; the note's bytes.

    GovrunError (checkpoint-failed) if signer is another log's key.
    """
    if signer.verifier.name != checkpoint.origin:
        raise GovrunError(
            ExitCode.CHECKPOINT_FAILED,
            "checkpoint.signer",
            "a log signs with the key of its own name",
            found=signer.verifier.name,
            expected=checkpoint.origin,
        )
    return sign_note(format_checkpoint(checkpoint), [signer])


def sign_verified(checkpoint: Checkpoint, signer: Signer) -> VerifiedCheckpoint:
    """Sign a tree head as `sign_checkpoint` does, and verify what a signer elsewhere answered.

    A signature by an agent or a token that does not verify would end the log as surely as a wrong root. One by a key
    in this process's memory is this process's own arithmetic; doing that over would cost twice what signing costs.
    """
    note = sign_checkpoint(checkpoint, signer)
    if isinstance(signer, Ed25519Signer):
        return VerifiedCheckpoint(checkpoint, (signer.verifier,), note)
    return verify_checkpoint(note, checkpoint.origin, [signer.verifier])


def verify_checkpoint(note: bytes, origin: str, verifiers: Collection[Verifier]) -> VerifiedCheckpoint:
    """Verify a checkpoint of the log origin; verifiers are the trusted keys.

    A key of the log's own name must have signed: a witness alone does not make a checkpoint. GovrunError
    (signature-untrusted): no such signature, or a wrong one. ledger-inconsistent: no checkpoint, or another log's.
    """
    verified = verify_note(note, verifiers)
    checkpoint = parse_checkpoint(verified.text)
    if checkpoint.origin != origin:
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "checkpoint.origin",
            "the checkpoint belongs to another log",
            found=checkpoint.origin,
            expected=origin,
        )
    if all(verifier.name != origin for verifier in verified.verifiers):
        raise GovrunError(
            ExitCode.SIGNATURE_UNTRUSTED,
            "checkpoint.signer",
            "the log's own key did not sign the checkpoint",
            found=", ".join(verifier.name for verifier in verified.verifiers),
            expected=origin,
        )
    return VerifiedCheckpoint(checkpoint, verified.verifiers, note)


def verified_root(note: bytes, size: int, log: Verifier) -> bytes | None:
    """The root of the usual note over size entries: of the log that the key is named after, signed by that key alone.

    None for every other note, about which `verify_checkpoint` may think otherwise and says what is wrong. The note is
    written again and compared, which leaves nothing to read but root and signature: an audit meets a checkpoint for
    each commit, and so saves 20 of the 150 microseconds that `verify_checkpoint` takes.
    """
    lines = note.split(b"\n")
    if len(lines) != _USUAL_LINES or _origin_problem(log.name) or not 1 <= size <= MAX_SIZE:
        return None
    try:
        root = binascii.a2b_base64(lines[2])
        signed = binascii.a2b_base64(lines[4].rpartition(b" ")[2])
    except ValueError:
        return None
    name = log.name.encode()
    text = b"%b\n%d\n%b" % (name, size, binascii.b2a_base64(root))
    line = b"%b%b %b" % (DASH, name, binascii.b2a_base64(signed))
    if len(root) != HASH_BYTES or signed[:KEY_ID_BYTES] != log.key_id or text + b"\n" + line != note:
        return None
    return root if log.is_signature(text, signed[KEY_ID_BYTES:]) else None


def _problem(checkpoint: Checkpoint) -> tuple[str, str | None, str] | None:
    """What keeps checkpoint from being one: what, found, expected."""
    if problem := _origin_problem(checkpoint.origin):
        return "the origin is malformed", problem, "1 to 255 printable ASCII characters, no plus"
    if not 0 <= checkpoint.size <= MAX_SIZE:
        return "the tree size is out of range", str(checkpoint.size), f"0 to {MAX_SIZE}"
    if len(checkpoint.root) != HASH_BYTES:
        return "the root hash has the wrong length", f"{len(checkpoint.root)} bytes", f"{HASH_BYTES} bytes"
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        return "the empty tree has another root", checkpoint.root.hex(), EMPTY_ROOT.hex()
    if any(not line or "\n" in line for line in checkpoint.extensions):
        return "an extension line is empty or more than one line", None, "non-empty lines"
    return None


def _malformed(what: str, found: str | None, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, "checkpoint.form", what, found=found, expected=expected)
