"""Every signed format written from SPEC alone, valid or broken on purpose; nothing of govrun is imported here."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Json = dict[str, Any]

ORIGIN = "example.com/vectors"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
ZEROS = "0" * 64


class Key(NamedTuple):
    """An Ed25519 key: its name, 32-byte seed, and 32-byte public key."""

    name: str
    seed: bytes
    public: bytes

    @property
    def key_hash(self) -> bytes:
        return sha256(self.name.encode() + b"\n\x01" + self.public)[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+" + b64(b"\x01" + self.public)

    @property
    def spelled(self) -> Json:
        return {"algorithm": "ed25519", "publicKey": self.public.hex()}

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def key(name: str, fill: int) -> Key:
    """The test key whose seed is 32 times one byte."""
    seed = bytes([fill]) * 32
    return Key(name, seed, Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())


ROOT = key(f"{ORIGIN}/root", 1)
LOG = key(ORIGIN, 2)
RECEIPT = key(f"{ORIGIN}/receipt", 3)
SECOND = key(f"{ORIGIN}/receipt", 4)
WITNESS = key("witness.example/w", 5)
STRANGER = key("stranger.example/s", 6)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(value: Any) -> bytes:
    """The canonical bytes of a value of the signed profile, whose names are ASCII."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def subject_of(kind: str, predicate: Json) -> list[Json]:
    if kind == "outcome" and predicate["status"] == "succeeded":
        outputs = predicate["outputs"]
        if isinstance(outputs, list) and outputs:
            return [{"name": one["name"], "digest": {"sha256": one["sha256"]}} for one in outputs]
    bare = {name: value for name, value in predicate.items() if name != "ledger"}
    return [{"name": "predicate", "digest": {"sha256": sha256(canonical(bare)).hex()}}]


def statement(kind: str, predicate: Json) -> Json:
    """The Statement around a predicate that has its `ledger` member."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject_of(kind, predicate),
        "predicateType": f"urn:govrun:{kind}:v1",
        "predicate": predicate,
    }


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)


def signature(payload: bytes, signer: Key) -> Json:
    return {"keyid": sha256(signer.public).hex(), "sig": b64(signer.sign(pae(payload)))}


def envelope_of(payload: bytes, signatures: Sequence[Json], payload_type: str = PAYLOAD_TYPE) -> bytes:
    document = {"payload": b64(payload), "payloadType": payload_type, "signatures": list(signatures)}
    return json.dumps(document, separators=(",", ":")).encode()


def envelope(payload: bytes, *signers: Key) -> bytes:
    return envelope_of(payload, [signature(payload, signer) for signer in signers])


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def _cut(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def root(hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    cut = _cut(len(hashes))
    return node_hash(root(hashes[:cut]), root(hashes[cut:]))


def inclusion(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 2.1.1, siblings from leaf to root."""
    if len(hashes) == 1:
        return []
    cut = _cut(len(hashes))
    if index < cut:
        return [*inclusion(index, hashes[:cut]), root(hashes[cut:])]
    return [*inclusion(index - cut, hashes[cut:]), root(hashes[:cut])]


def consistency(old: int, hashes: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962 2.1.2."""
    if old == len(hashes):
        return [] if whole else [root(hashes)]
    cut = _cut(len(hashes))
    if old <= cut:
        return [*consistency(old, hashes[:cut], whole), root(hashes[cut:])]
    return [*consistency(old - cut, hashes[cut:], False), root(hashes[:cut])]


def note_line(text: bytes, signer: Key) -> bytes:
    return f"\u2014 {signer.name} {b64(signer.key_hash + signer.sign(text))}\n".encode()


def note(text: bytes, *signers: Key) -> bytes:
    return text + b"\n" + b"".join(note_line(text, signer) for signer in signers)


def head(size: int, root_hash: bytes, origin: str = ORIGIN) -> bytes:
    """The text of a checkpoint."""
    return f"{origin}\n{size}\n{b64(root_hash)}\n".encode()


def bundle(entries: Sequence[bytes]) -> bytes:
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def published(leaves: Sequence[bytes], checkpoint: bytes | None = None, log: Key = LOG) -> dict[str, bytes]:
    """The files of a published ledger of 1 to 255 leaves, by path."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    if checkpoint is None:
        checkpoint = note(head(len(leaves), root(hashes)), log)
    return {
        "checkpoint": checkpoint,
        f"tile/0/000.p/{len(leaves)}": b"".join(hashes),
        f"tile/entries/000.p/{len(leaves)}": bundle(leaves),
    }


def log_proof(leaf: bytes, index: int, hashes: Sequence[bytes], checkpoint: bytes) -> bytes:
    lines = ["c2sp.org/tlog-proof@v1", f"extra {b64(leaf)}", f"index {index}", *map(b64, hashes), ""]
    return "".join(f"{line}\n" for line in lines).encode() + checkpoint
