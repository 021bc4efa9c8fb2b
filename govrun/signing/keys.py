"""Ed25519 signers and verifiers, in the key spelling of C2SP signed notes.

A verifier key (vkey) names a key and carries it:

    example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k

that is `<name>+<hash>+<base64 of 0x01 || 32-byte public key>`, where hash is the first four bytes of
SHA-256(name || 0x0A || 0x01 || public key) in lower-case hex. A private key file holds one line,
`PRIVATE+KEY+<name>+<hash>+<base64 of 0x01 || 32-byte seed>`, as the Go note package writes it.

Whoever can read the private key file can sign anything as that key; nothing here defends against that.
`cryptography` is imported on first use: most commands never need it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.signing import b64
from govrun.world import World

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_ID_BYTES: Final = 4
MAX_NAME_BYTES: Final = 255
MAX_KEY_FILE_BYTES: Final = 4096

_ED25519: Final = b"\x01"
_PRIVATE: Final = "PRIVATE+KEY+"

# Points of small order, sign bit cleared: under such a "public key" one signature fits many messages.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
# The modulus of RFC 8032, below which the y of a key must be: a key has one spelling.
_FIELD: Final = 2**255 - 19


@frozen
class Verifier:
    """A named Ed25519 public key; `verifier_for` and `parse_vkey` make one.

    name: 1 to 255 bytes of UTF-8, no white space, control character or plus.
    key_id: 4 bytes, the note hash of name and key; a mismatch is refused (could-not-check).
    public: 32 bytes as RFC 8032 encodes them.
    """

    name: str
    key_id: bytes
    public: bytes

    def __attrs_post_init__(self) -> None:
        if problem := name_problem(self.name):
            raise _unusable("vkey.name", "the key's name is not a key name", problem, "no space, control or plus")
        if len(self.public) != KEY_BYTES:
            raise _unusable(
                "vkey.length", "the public key has the wrong length", f"{len(self.public)} bytes", f"{KEY_BYTES} bytes"
            )
        unsigned = self.public[:-1] + bytes([self.public[-1] & 0x7F])
        if int.from_bytes(unsigned, "little") >= _FIELD:
            raise _unusable("vkey.encoding", "the public key is spelled in another way than the one", None, "y below p")
        if unsigned in _SMALL_ORDER:
            raise _unusable("vkey.weak", "the public key accepts forged signatures", "a point of small order", None)
        expected = note_key_id(self.name, self.public)
        if self.key_id != expected:
            raise _unusable(
                "vkey.hash", "the key hash does not belong to name and key", self.key_id.hex(), expected.hex()
            )

    @functools.cached_property
    def keyid(self) -> str:
        """The DSSE keyid: lower-case hex of SHA-256 of the 32-byte public key. A hint, never a decision."""
        return hashlib.sha256(self.public).hexdigest()

    @functools.cached_property
    def _key(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self.public)

    def is_signature(self, message: bytes, signature: bytes) -> bool:
        """Tell whether signature is this key's Ed25519 signature over message (RFC 8032, pure).

        For callers that search for the signing key; everybody else wants `verify`.
        """
        try:
            self._key.verify(signature, message)
        except _invalid_signature():  # looked up only once something was raised
            return False
        return True

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return if signature (64 bytes) is this key's over message; else GovrunError (signature-untrusted)."""
        if not self.is_signature(message, signature):
            raise GovrunError(
                ExitCode.SIGNATURE_UNTRUSTED,
                "signature.wrong",
                "the signature does not belong to the message and the key",
                expected=f"a signature by {self.name}+{self.key_id.hex()}",
            )


def _invalid_signature() -> type[Exception]:
    from cryptography.exceptions import InvalidSignature

    return InvalidSignature


class Signer(Protocol):
    """Whatever can sign as one key; the key itself may live elsewhere."""

    @property
    def verifier(self) -> Verifier: ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature over message; GovrunError (signing-failed) if there is none."""
        ...


@frozen
class Ed25519Signer:
    """A signer that holds its 32-byte seed in memory; neither repr nor errors show it."""

    verifier: Verifier
    seed: bytes = attrs.field(repr=False, eq=False)

    @functools.cached_property
    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


# Asked anew for every note, about the same few names.
@functools.lru_cache(maxsize=32)
def name_problem(name: str) -> str | None:
    """Say what keeps name from being a key name (C2SP signed-note), or None; at most 255 bytes of UTF-8."""
    if not name:
        return "an empty name"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "a name that is not Unicode text"
    if size > MAX_NAME_BYTES:
        return f"a name of {size} bytes"
    if "+" in name:
        return "a name with a plus"
    if any(c.isspace() or c < " " for c in name):
        return "a name with white space or a control character"
    return None


def note_key_id(name: str, public: bytes) -> bytes:
    """The 4-byte key hash of an Ed25519 note key (C2SP signed-note, signature type 0x01)."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:KEY_ID_BYTES]


def verifier_for(name: str, public: bytes) -> Verifier:
    """The verifier of a 32-byte public key under name; GovrunError (could-not-check) if either is unfit."""
    if problem := name_problem(name):
        raise _unusable("vkey.name", "the key's name is not a key name", problem, "no space, control or plus")
    return Verifier(name, note_key_id(name, public), public)


def format_vkey(verifier: Verifier) -> str:
    """`<name>+<hash>+<base64>`; inverse of `parse_vkey`."""
    return f"{verifier.name}+{verifier.key_id.hex()}+{b64.encode(_ED25519 + verifier.public).decode()}"


def parse_vkey(text: str) -> Verifier:
    """Read a vkey; `format_vkey(parse_vkey(t)) == t` or GovrunError (could-not-check).

    Only Ed25519 (type 0x01) is read. Source: C2SP signed-note, "Verifier keys".
    """
    name, key_id, material = _split_key(text, "vkey.form", ExitCode.COULD_NOT_CHECK)
    if material[:1] != _ED25519:
        raise _unusable("vkey.type", "the key is of a type govrun does not read", _type_name(material), "0x01, Ed25519")
    return Verifier(name, key_id, material[1:])


def signer_from_seed(name: str, seed: bytes) -> Ed25519Signer:
    """The signer of a 32-byte seed (RFC 8032 private key) under name."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519Signer(
        verifier_for(name, Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()), seed
    )


def generate_signer(name: str, world: World) -> Ed25519Signer:
    """A new key from 32 of the world's random bytes; GovrunError (usage) if name cannot name a key."""
    if problem := name_problem(name):
        raise GovrunError(
            ExitCode.USAGE,
            "key.name",
            "this cannot be the name of a key",
            found=problem,
            expected="1 to 255 bytes, no space, control or plus",
        )
    return signer_from_seed(name, world.random_bytes(KEY_BYTES))


def format_skey(signer: Ed25519Signer) -> str:
    """The private key file's text, line break included; inverse of `parse_skey`. Secret."""
    verifier = signer.verifier
    secret = b64.encode(_ED25519 + signer.seed).decode()
    return f"{_PRIVATE}{verifier.name}+{verifier.key_id.hex()}+{secret}\n"


def parse_skey(text: str) -> Ed25519Signer:
    """Read a private key file's text; `format_skey(parse_skey(t)) == t` or GovrunError (ledger-unavailable).

    The errors say what is wrong and never show the text.
    """
    if "-----BEGIN" in text:
        raise _refused("key.type", "the key file is PEM", "a PEM block", f"one line {_PRIVATE}...", _NEW_KEY)
    if not (text.startswith(_PRIVATE) and text.endswith("\n")):
        raise _refused("key.form", "the key file is not a note private key", None, f"one line {_PRIVATE}...", _NEW_KEY)
    name, key_id, material = _split_key(text[len(_PRIVATE) : -1], "key.form", ExitCode.LEDGER_UNAVAILABLE)
    if material[:1] != _ED25519:
        raise _refused(
            "key.type", "the key is of a type govrun does not use", _type_name(material), "0x01, Ed25519", _NEW_KEY
        )
    if len(material) != 1 + KEY_BYTES:
        raise _refused(
            "key.form",
            "the private key has the wrong length",
            f"{len(material) - 1} bytes",
            f"{KEY_BYTES} bytes",
            _NEW_KEY,
        )
    if problem := name_problem(name):
        raise _refused("key.form", "the key's name is not a key name", problem, None, _NEW_KEY)
    signer = signer_from_seed(name, material[1:])
    if signer.verifier.key_id != key_id:
        raise _refused(
            "key.hash",
            "the key hash does not belong to name and key",
            key_id.hex(),
            signer.verifier.key_id.hex(),
            _NEW_KEY,
        )
    return signer


_NEW_KEY: Final = "restore the key file from its backup, or make a new key"


def load_signer(path: Path) -> Ed25519Signer:
    """Read a private key file in note form that only its owner can read; refused as `read_key_file`, `parse_skey`."""
    return parse_skey(read_key_file(path))


def read_key_file(path: Path) -> str:
    """The text of a private key file that only its owner can read.

    Refused (ledger-unavailable: before a launch, a key that cannot sign means nothing may run), each under its own
    rule: missing, a symbolic link, unreadable, not a regular file, another owner, any permission for group or others,
    more than 4 KiB, empty, no text.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        _check_key_file(path, os.fstat(descriptor))
        data = os.read(descriptor, MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise _cannot_open(path, error) from error
    finally:
        os.close(descriptor)
    if not data:
        raise _refused(
            "key.empty", f"the key file {path.name} is empty", "0 bytes", f"one line {_PRIVATE}...", _NEW_KEY
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _refused(
            "key.form", f"the key file {path.name} is not text", None, f"one line {_PRIVATE}...", _NEW_KEY
        ) from None


def _cannot_open(path: Path, error: OSError) -> GovrunError:
    if isinstance(error, FileNotFoundError):
        return _refused(
            "key.missing", f"there is no key file {path.name}", None, "a private key file", "run `govrun init`"
        )
    if error.errno == errno.ELOOP:
        return _refused(
            "key.symlink",
            f"the key file {path.name} is a symbolic link",
            None,
            "a regular file",
            "name the file itself",
        )
    return _refused(
        "key.readable",
        f"the key file {path.name} cannot be read",
        os.strerror(error.errno or 0),
        "a file that its owner can read",
        None,
    )


def _check_key_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused("key.regular", f"the key file {path.name} is not a regular file", None, "a regular file", None)
    if status.st_uid != os.geteuid():
        raise _refused(
            "key.owner",
            f"the key file {path.name} belongs to another user",
            f"user {status.st_uid}",
            f"user {os.geteuid()}",
            "use a key of your own",
        )
    if mode := stat.S_IMODE(status.st_mode) & 0o077:
        raise _refused(
            "key.permissions",
            f"the key file {path.name} is open to others",
            f"mode {stat.S_IMODE(status.st_mode):04o} ({mode:03o} for group and others)",
            "mode 0600",
            f"chmod 600 {path.name}, and consider the key disclosed",
        )
    if status.st_size > MAX_KEY_FILE_BYTES:
        raise _refused(
            "key.size",
            f"the key file {path.name} is too large",
            f"{status.st_size} bytes",
            f"at most {MAX_KEY_FILE_BYTES} bytes",
            _NEW_KEY,
        )


def write_signer(path: Path, signer: Ed25519Signer) -> None:
    """Write a new private key file in note form, as `write_key_file` does."""
    write_key_file(path, format_skey(signer).encode())


def write_key_file(path: Path, data: bytes) -> None:
    """Write a new private key file, mode 0600, durable when this returns.

    An existing file is never replaced (`key.exists`); a file that cannot be written whole is taken away again
    (`key.write`). Both ledger-unavailable.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise _refused(
            "key.exists", f"there already is a file {path.name}", None, "a new file", "choose another name"
        ) from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            # An odd umask may have taken the owner's own permissions away.
            os.fchmod(descriptor, 0o600)
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise _cannot_write(path, error) from error


def replace_key_file(staged: Path, path: Path, aside: Path | None = None) -> None:
    """Put a staged key file in the place of another one, durable when this returns; aside keeps the other's bytes.

    At every instant path names the one or the other, whole. GovrunError (ledger-unavailable, `key.write`).
    """
    try:
        if aside is not None and path.exists() and not aside.exists():
            os.link(path, aside, follow_symlinks=False)
        os.rename(staged, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _split_key(text: str, rule: str, code: ExitCode) -> tuple[str, bytes, bytes]:
    """Name, hash (4 bytes) and material (type byte and key) of a key's text, each canonical."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise GovrunError(code, rule, "the key is not in note form", expected="<name>+<hash>+<base64>")
    name, key_id, material = parts
    if len(key_id) != 2 * KEY_ID_BYTES or any(c not in "0123456789abcdef" for c in key_id):
        raise GovrunError(code, rule, "the key's hash is malformed", expected="8 lower-case hex digits")
    try:
        return name, bytes.fromhex(key_id), b64.decode(material.encode())
    except ValueError:
        raise GovrunError(code, rule, "the key's material is malformed", expected="canonical base64") from None


def _type_name(material: bytes) -> str:
    return f"0x{material[0]:02x}" if material else "nothing"


def _unusable(rule: str, what: str, found: str | None, expected: str | None) -> GovrunError:
    return GovrunError(ExitCode.COULD_NOT_CHECK, rule, what, found=found, expected=expected)


def _refused(rule: str, what: str, found: str | None, expected: str | None, fix: str | None) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=found, expected=expected, fix=fix)


def _cannot_write(path: Path, error: OSError) -> GovrunError:
    return _refused(
        "key.write",
        f"the key file {path.name} cannot be written",
        os.strerror(error.errno or 0),
        "a directory with room that its owner can write",
        None,
    )
