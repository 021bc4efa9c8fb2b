"""Private keys in the OpenSSH form, under a passphrase: what `ssh-keygen`, `ssh-add` and govrun read alike.

The form, its bcrypt derivation and its cipher are those of `cryptography` and `bcrypt`; only the part that is not
encrypted is read here, to know the public key without a passphrase and to bound the work of a hostile file. The file
holds no name: role and origin give it. Whoever has the file can try passphrases offline, as fast as 24 rounds allow.
Source: PROTOCOL.key of OpenSSH.
"""

from __future__ import annotations

import binascii
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.signing.keys import Ed25519Signer, signer_from_seed
from govrun.signing.ssh_wire import public_of, read_string, read_uint32

BEGIN: Final = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
END: Final = "-----END OPENSSH PRIVATE KEY-----\n"

# What newer versions of ssh-keygen take; 0.2 s of CPU on a common machine, once for each key that is opened.
ROUNDS: Final = 24
# A file may ask for billions.
MAX_ROUNDS: Final = 1024

_MAGIC: Final = b"openssh-key-v1\0"
_CIPHERS: Final = ("none", "aes256-ctr", "aes256-gcm@openssh.com", "aes256-cbc")


@frozen
class Sealed:
    """What a file tells without its passphrase; unsigned, so it is true only once the key was opened."""

    public: bytes
    is_encrypted: bool


def parse_sealed(text: str, file: str) -> Sealed:
    """Read the open part of a key file's text; GovrunError (ledger-unavailable) for what is not one Ed25519 key."""
    if not text.endswith(END):
        raise _malformed(file, "no end line, as in a file that was cut off")
    try:
        data = binascii.a2b_base64(text[len(BEGIN) : -len(END)].replace("\n", "").encode(), strict_mode=True)
        if not data.startswith(_MAGIC):
            raise ValueError("another magic")
        cipher, at = read_string(data, len(_MAGIC))
        kdf, at = read_string(data, at)
        options, at = read_string(data, at)
        count, at = read_uint32(data, at)
        blob, at = read_string(data, at)
        _, at = read_string(data, at)
        # An authenticated cipher leaves its tag behind the encrypted part.
        if count != 1 or len(data) - at != (16 if b"gcm" in cipher else 0):
            raise ValueError("not one key and nothing else")
        rounds = _rounds(kdf, options)
    except ValueError as error:
        raise _malformed(file, str(error)) from error
    if cipher.decode("ascii", "replace") not in _CIPHERS:
        raise _refused("key.type", f"the key file {file} is under a cipher that is not used here", ascii(cipher)[2:-1])
    if rounds > MAX_ROUNDS:
        raise _refused(
            "key.kdf", f"the key file {file} asks for too much work", f"{rounds} rounds", f"at most {MAX_ROUNDS} rounds"
        )
    public = public_of(blob)
    if public is None:
        raise _refused("key.type", f"the key file {file} holds a key of another type", None, "one Ed25519 key")
    return Sealed(public, cipher != b"none")


def _rounds(kdf: bytes, options: bytes) -> int:
    if kdf == b"none":
        return 0
    if kdf != b"bcrypt":
        raise ValueError("another key derivation")
    _, at = read_string(options, 0)
    rounds, _ = read_uint32(options, at)
    return rounds


def open_private(text: str, name: str, passphrase: bytes | None, file: str) -> Ed25519Signer:
    """The signer of a key file's text under a name; passphrase None for a file that has none.

    GovrunError (ledger-unavailable): what `parse_sealed` refuses, a wrong passphrase (`key.passphrase`), no bcrypt
    (`key.bcrypt`). Errors show neither passphrase nor key.
    """
    sealed = parse_sealed(text, file)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key

    try:
        key = load_ssh_private_key(text.encode(), passphrase if sealed.is_encrypted else None)
    except UnsupportedAlgorithm as error:
        raise _no_bcrypt(file) from error
    except Exception as error:
        # Which of many exceptions a wrong passphrase becomes depends on the cipher.
        raise _refused(
            "key.passphrase",
            f"the key file {file} does not open",
            "a wrong passphrase, or a damaged file" if sealed.is_encrypted else "a damaged file",
            "the passphrase that it was encrypted with" if sealed.is_encrypted else "a whole file",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _refused("key.type", f"the key file {file} holds a key of another type", None, "one Ed25519 key")
    signer = signer_from_seed(name, key.private_bytes_raw())
    if signer.verifier.public != sealed.public:
        raise _refused(
            "key.hash", f"the public key in {file} does not belong to its private key", sealed.public.hex()[:16]
        )
    return signer


def format_private(signer: Ed25519Signer, passphrase: bytes) -> bytes:
    """The bytes of an encrypted key file; inverse of `open_private`. Secret. An empty passphrase is refused."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

    if not passphrase:
        raise _refused("key.passphrase", "a key cannot be encrypted under nothing", "an empty passphrase", "some bytes")
    key = Ed25519PrivateKey.from_private_bytes(signer.seed)
    try:
        how = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(ROUNDS).build(passphrase)
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, how)
    except UnsupportedAlgorithm as error:
        raise _no_bcrypt("the key file") from error


def _malformed(file: str, found: str) -> GovrunError:
    return _refused("key.form", f"the key file {file} is no OpenSSH private key", found, "a whole file with one key")


def _no_bcrypt(file: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "key.bcrypt",
        f"{file} is encrypted, and bcrypt is not installed",
        expected="the package bcrypt",
        fix="pip install 'govrun[encrypted]'",
    )


def _refused(rule: str, what: str, found: str | None, expected: str | None = None) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        rule,
        what,
        found=found,
        expected=expected,
        fix="restore the key file from its backup, or make a new key",
    )
