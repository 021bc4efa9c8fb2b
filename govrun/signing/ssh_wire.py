"""SSH's spelling of an Ed25519 public key: blob, fingerprint and public key line.

    blob         string "ssh-ed25519", string of the 32-byte key; a string is its length in 4 bytes, then its bytes
    fingerprint  SHA256:<base64 of SHA-256 of the blob, without padding>, as `ssh-keygen -l` and `ssh-add -l` print it
    line         ssh-ed25519 <base64 of the blob> <comment>

Sources: RFC 4251 section 5, RFC 8709.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Final

from govrun.signing import b64
from govrun.signing.keys import KEY_BYTES

ED25519: Final = b"ssh-ed25519"

_LENGTH_BYTES: Final = 4
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def string(data: bytes) -> bytes:
    """An SSH string: the length in 4 bytes, big-endian, then the bytes."""
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """The SSH string that begins at an offset, and the offset behind it; ValueError if it is cut off."""
    start = at + _LENGTH_BYTES
    end = start + int.from_bytes(data[at:start], "big")
    if len(data) < end or len(data) < start:
        raise ValueError("a string is cut off")
    return data[start:end], end


def read_uint32(data: bytes, at: int) -> tuple[int, int]:
    """The number of 4 bytes at an offset, and the offset behind it; ValueError if it is cut off."""
    end = at + _LENGTH_BYTES
    if len(data) < end:
        raise ValueError("a number is cut off")
    return int.from_bytes(data[at:end], "big"), end


def blob_of(public: bytes) -> bytes:
    """The blob of a 32-byte Ed25519 public key."""
    return string(ED25519) + string(public)


def public_of(blob: bytes) -> bytes | None:
    """The 32-byte public key of a blob; None for a key of another type, or a blob in another spelling."""
    public = blob[-KEY_BYTES:]
    return public if blob == blob_of(public) else None


def fingerprint_of_blob(blob: bytes) -> str:
    """The fingerprint of any key's blob, 50 characters."""
    return "SHA256:" + b64.encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def fingerprint(public: bytes) -> str:
    """The fingerprint of a 32-byte Ed25519 public key, 50 characters."""
    return fingerprint_of_blob(blob_of(public))


def is_fingerprint(text: str) -> bool:
    """Whether text is a fingerprint in its one spelling."""
    if not _FINGERPRINT.fullmatch(text):
        return False
    try:
        b64.decode(text.removeprefix("SHA256:").encode() + b"=")
    except (ValueError, binascii.Error):
        return False
    return True


def public_line(public: bytes, comment: str) -> str:
    """The line that `authorized_keys`, `allowed_signers` and `.pub` files hold, without its line break."""
    return f"{ED25519.decode()} {b64.encode(blob_of(public)).decode()} {comment}"
