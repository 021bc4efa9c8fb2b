"""`govrun keys encrypt, decrypt, export`: the form of a key file, and the public half for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from govrun.cli.common import ask_new_passphrase, ask_passphrase, find_settings, home_options, signer_options
from govrun.cli.output import note
from govrun.errors import ExitCode, GovrunError

_ROLE = click.Choice(["root", "log", "receipt"])
_FILE = "The key file, when it is not in the home."


@click.command("encrypt")
@click.argument("role", type=_ROLE)
@click.option("--file", metavar="FILE", help=_FILE)
@home_options
def encrypt(role: str, file: str | None, **options: Any) -> None:
    """Put a key file under a passphrase, in the OpenSSH form that ssh-keygen and ssh-add read too.

    The passphrase comes from GOVRUN_PASSPHRASE_FILE, GOVRUN_PASSPHRASE_FD, or the terminal; the root key may have its
    own (GOVRUN_ROOT_PASSPHRASE_FILE). Where the file lay, old bytes may stay on the medium.
    """
    path = _rewrite(role, file, True, options)
    note(f"encrypted {path}; a copy of the key without a passphrase may still be on the medium and in backups")


@click.command("decrypt")
@click.argument("role", type=_ROLE)
@click.option("--file", metavar="FILE", help=_FILE)
@home_options
def decrypt(role: str, file: str | None, **options: Any) -> None:
    """Take the passphrase away from a key file: one line in note form, readable by its owner alone."""
    path = _rewrite(role, file, False, options)
    note(f"decrypted {path}; whoever can read it can sign")


def _rewrite(role: str, file: str | None, to_encrypted: bool, options: dict[str, Any]) -> Path:
    """Write a key file in the other form, in place; the file there is whole at every instant."""
    from govrun.keychanges import keys_of
    from govrun.keystate import key_name
    from govrun.signers import key_path
    from govrun.signing.keyfile import check_name, format_key, look_at_key, open_key
    from govrun.signing.keys import replace_key_file, write_key_file
    from govrun.signing.passphrase import Passphrases

    world, settings = find_settings(options)
    path = key_path(settings.home, role) if file is None else Path(file)
    origin = next(key.verifier.name for key in keys_of(settings) if key.role == "log")
    name = key_name(origin, role)
    _, form = look_at_key(path, name)
    if (form == "encrypted") is to_encrypted:
        raise GovrunError(
            ExitCode.USAGE,
            "keys.form",
            f"the key file {path.name} is {'encrypted' if to_encrypted else 'not encrypted'} already",
            found=form,
            expected="plain" if to_encrypted else "encrypted",
        )
    passphrases = Passphrases(world.environ, ask_new_passphrase if to_encrypted else ask_passphrase)
    signer = check_name(open_key(path, role, name, passphrases), name, path.name)
    secret = passphrases.get(role, f"New passphrase of the {role} key: ") if to_encrypted else None
    staged = path.with_name(f"{path.name}.{world.new_id()}")
    write_key_file(staged, format_key(signer, secret))
    try:
        replace_key_file(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return path


@click.command("export")
@click.argument("role", type=_ROLE)
@click.option("--pem", "form", flag_value="pem", help="SubjectPublicKeyInfo in PEM, for openssl and cosign.")
@click.option("--ssh", "form", flag_value="ssh", help="One line, as in .pub and allowed_signers files.")
@click.option("--vkey", "form", flag_value="vkey", default="vkey", help="A verifier key of signed notes (the default).")
@click.option("--key", "named", metavar="KEY", help="Another key of the role: its fingerprint or keyid.")
@home_options
@signer_options
def export(role: str, form: str, named: str | None, **options: Any) -> None:
    """Print the public half of the key of a role: the newest that counts, or the one that --key names."""
    from govrun.keychanges import choose_key, keys_of
    from govrun.signing.keys import format_vkey
    from govrun.signing.ssh_wire import public_line

    _, settings = find_settings(options)
    keys = tuple(key for key in keys_of(settings) if key.role == role)
    counting = [key for key in keys if key.counts]
    chosen = (counting or list(keys))[-1] if named is None else choose_key(keys, named)
    verifier = chosen.verifier
    if form == "pem":
        click.echo(_pem(verifier.public), nl=False)
    elif form == "ssh":
        click.echo(public_line(verifier.public, verifier.name))
    else:
        click.echo(format_vkey(verifier))


def _pem(public: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
