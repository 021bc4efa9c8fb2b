"""A private key file in either form: one line in note form, or the OpenSSH form, which may be encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from govrun.errors import ExitCode, GovrunError
from govrun.signing.keys import Ed25519Signer, Verifier, parse_skey, read_key_file, verifier_for
from govrun.signing.passphrase import Passphrases

Form = Literal["plain", "encrypted"]

# Written down here too, so that a key in note form is read without what reads the other form.
_BEGIN: Final = "-----BEGIN OPENSSH PRIVATE KEY-----\n"


def open_key(path: Path, role: str, name: str, passphrases: Passphrases) -> Ed25519Signer:
    """The signer of a key file of a role; name is the key's, which a file in OpenSSH form does not hold.

    GovrunError (ledger-unavailable): refused as `read_key_file`, `parse_skey`, `open_private` and `Passphrases.get`.
    """
    text = read_key_file(path)
    if not text.startswith(_BEGIN):
        return parse_skey(text)
    from govrun.signing.openssh import open_private, parse_sealed

    secret = None
    if parse_sealed(text, path.name).is_encrypted:
        secret = passphrases.get(role, f"Passphrase of the {role} key ({path.name}): ")
    return open_private(text, name, secret, path.name)


def look_at_key(path: Path, name: str) -> tuple[Verifier, Form]:
    """The public half of a key file, without its passphrase, and whether the file is encrypted.

    Of an encrypted file it is what the file says and nobody signed. GovrunError as `open_key`.
    """
    text = read_key_file(path)
    if not text.startswith(_BEGIN):
        return parse_skey(text).verifier, "plain"
    from govrun.signing.openssh import parse_sealed

    sealed = parse_sealed(text, path.name)
    return verifier_for(name, sealed.public), "encrypted" if sealed.is_encrypted else "plain"


def format_key(signer: Ed25519Signer, passphrase: bytes | None) -> bytes:
    """The bytes of a key file: note form, or the OpenSSH form under a passphrase. Secret."""
    if passphrase is None:
        from govrun.signing.keys import format_skey

        return format_skey(signer).encode()
    from govrun.signing.openssh import format_private

    return format_private(signer, passphrase)


def check_name(signer: Ed25519Signer, name: str, file: str) -> Ed25519Signer:
    """The signer, if it bears the name that its role demands; else ledger-unavailable (`key.name`)."""
    if signer.verifier.name != name:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "key.name",
            f"the key file {file} is for another ledger or another role",
            found=signer.verifier.name,
            expected=name,
            fix="use the key that was made with this ledger",
        )
    return signer
