"""`govrun keys rotate, add, revoke`: which keys count, changed under the signature of a root key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from govrun.cli.common import ask_passphrase, find_settings, home_options, signer_options
from govrun.cli.output import note, show_json
from govrun.errors import ExitCode, GovrunError

Command = TypeVar("Command", bound=Callable[..., Any])

REASONS = ["compromised", "lost", "retired", "superseded"]
_SUSPECT = "First entry whose receipts under it are not believed."


def change_options(command: Command) -> Command:
    """Where root key and ledger are, and --json."""
    command = click.option("--json", "as_json", is_flag=True, help="For programs.")(command)
    command = signer_options(home_options(command))
    return click.option(
        "--root-key", metavar="WHERE", help="The root key: a file, or ssh-agent:SHA256:... (default: the home's)."
    )(command)


@click.command("rotate")
@click.argument("role", type=click.Choice(["receipt", "root", "log"]))
@click.option("--revoke", "revoked", is_flag=True, help="Also revoke the old key, once the new one is in its place.")
@click.option("--reason", type=click.Choice(REASONS), help="Why the old key is revoked (default: superseded).")
@click.option("--suspect-from", type=click.IntRange(0), metavar="INDEX", help=_SUSPECT)
@change_options
def rotate(
    role: Any, revoked: bool, reason: Any, suspect_from: int | None, root_key: str | None, as_json: bool, **options: Any
) -> None:
    """Put a new key in the place of the home's receipt or root key.

    The ledger names the new key before it takes its place, so a crash at any instant leaves a home that can sign. The
    old key is kept beside it, and goes on counting unless --revoke is given.
    """
    from govrun.keychanges import log_key_stays, open_changes, trust_also
    from govrun.keystate import find_key
    from govrun.signing.passphrase import Passphrases

    if role == "log":
        raise log_key_stays()
    if not revoked and (reason is not None or suspect_from is not None):
        raise click.UsageError("--reason and --suspect-from are about a revocation: say --revoke")
    _check_suspicion(role, reason, suspect_from)
    world, settings = find_settings(options)
    with open_changes(world, settings, root_key, Passphrases(world.environ, ask_passphrase)) as changes:
        done = changes.rotate(role)
        _tell_rotated(role, done)
        trusted = trust_also(world, changes.origin, done.verifier) if role == "receipt" else None
        if trusted is not None:
            note(f"trust file   {trusted} names the new key too; older copies of it go on working")
        at = None
        if revoked and done.old is not None:
            old = find_key(changes.keys(), role, done.old.public)
            if old is not None and old.counts:
                at = changes.revoke(old, reason or "superseded", suspect_from)
                note(f"revoked      the old {role} key, in entry {at}")
    if as_json:
        show_json(
            {
                "role": role,
                **_shown(done.verifier),
                "addedAt": done.index,
                "old": None if done.old is None else _shown(done.old),
                "oldFile": None if done.kept is None else str(done.kept),
                "revokedAt": at,
            }
        )


def _tell_rotated(role: str, done: Any) -> None:
    shown = _shown(done.verifier)
    if done.index is None:
        note(f"finished     a rotation that was cut off: the ledger named this {role} key before")
    else:
        note(f"added        a new {role} key, in entry {done.index}")
    note(f"in use       {shown['fingerprint']}  {shown['vkey']}")
    if done.kept is not None:
        note(f"old key      kept as {done.kept}")
    if role == "root":
        note("move the new root key offline, as the old one")


@click.command("add")
@click.option("--role", type=click.Choice(["receipt", "root"]), required=True, help="What the key may sign.")
@click.option("--new-key", metavar="WHERE", help="The key: a file, or ssh-agent:SHA256:...; it has to sign too.")
@click.option("--out", metavar="FILE", help="Make a new key in this new file instead.")
@change_options
def add(role: Any, new_key: str | None, out: str | None, root_key: str | None, as_json: bool, **options: Any) -> None:
    """Let one more key count: one for another machine or for an ssh-agent, or another root key."""
    from govrun.keychanges import open_changes, trust_also
    from govrun.keystate import key_name
    from govrun.settings import AGENT_PREFIX
    from govrun.signers import signer_named
    from govrun.signing.keys import generate_signer, write_signer
    from govrun.signing.passphrase import Passphrases

    if (new_key is None) == (out is None):
        raise click.UsageError("say either --new-key, for a key that there is, or --out, for a file to make")
    world, settings = find_settings(options)
    passphrases = Passphrases(world.environ, ask_passphrase)
    with open_changes(world, settings, root_key, passphrases) as changes:
        name = key_name(changes.origin, role)
        if out is not None:
            signer: Any = generate_signer(name, world)
            write_signer(Path(out), signer)
        else:
            file = None if new_key is None or new_key.startswith(AGENT_PREFIX) else Path(new_key)
            signer = signer_named(new_key or "", role, name, world, passphrases, file)
        try:
            if signer.verifier.name != name:
                raise GovrunError(
                    ExitCode.LEDGER_UNAVAILABLE,
                    "key.name",
                    "the new key is for another ledger or another role",
                    found=signer.verifier.name,
                    expected=name,
                )
            index = changes.add(role, signer)
        except BaseException:
            if out is not None:
                Path(out).unlink(missing_ok=True)
            raise
        trusted = trust_also(world, changes.origin, signer.verifier) if role == "receipt" else None
    shown = _shown(signer.verifier)
    note(f"added        a {role} key, in entry {index}")
    note(f"             {shown['fingerprint']}  {shown['vkey']}")
    if trusted is not None:
        note(f"trust file   {trusted} names it too; older copies of it go on working")
    if role == "receipt" and new_key is not None and new_key.startswith(AGENT_PREFIX):
        note(f'to sign with it from here: signer = "{new_key}" in config.toml, or GOVRUN_SIGNER')
    if as_json:
        show_json({"role": role, **shown, "addedAt": index})


@click.command("revoke")
@click.argument("key")
@click.option("--reason", type=click.Choice(REASONS), required=True, help="Why.")
@click.option("--suspect-from", type=click.IntRange(0), metavar="INDEX", help=_SUSPECT)
@change_options
def revoke(
    key: str, reason: Any, suspect_from: int | None, root_key: str | None, as_json: bool, **options: Any
) -> None:
    """Revoke KEY, a fingerprint or keyid that `govrun keys list` shows: from the next entry on it signs nothing.

    What it signed before stands, except from --suspect-from on: `govrun verify` then says no to each of those receipts
    that does not lie below a checkpoint that was kept (exit 43).
    """
    from govrun.keychanges import choose_key, log_key_stays, open_changes
    from govrun.signing.passphrase import Passphrases

    world, settings = find_settings(options)
    with open_changes(world, settings, root_key, Passphrases(world.environ, ask_passphrase)) as changes:
        chosen = choose_key(changes.keys(), key)
        if chosen.role == "log":
            raise log_key_stays()
        _check_suspicion(chosen.role, reason, suspect_from)
        index = changes.revoke(chosen, reason, suspect_from)
    shown = _shown(chosen.verifier)
    note(f"revoked      the {chosen.role} key {shown['fingerprint']}, in entry {index} ({reason})")
    if suspect_from is not None:
        note(f"suspect      its receipts from entry {suspect_from} on, but for those below a checkpoint that was kept")
    if as_json:
        show_json({"role": chosen.role, **shown, "revokedAt": index, "reason": reason, "suspectFrom": suspect_from})


def _check_suspicion(role: str, reason: str | None, suspect_from: int | None) -> None:
    if role == "root" and suspect_from is not None:
        raise click.UsageError("a root key signs no receipts, so there is nothing to suspect: leave out --suspect-from")
    if role == "receipt" and reason == "compromised" and suspect_from is None:
        raise click.UsageError(
            "a compromised key has signed things that are not believed: say from where, --suspect-from INDEX (0: all)"
        )


def _shown(verifier: Any) -> dict[str, str]:
    from govrun.signing.keys import format_vkey
    from govrun.signing.ssh_wire import fingerprint

    return {"keyid": verifier.keyid, "fingerprint": fingerprint(verifier.public), "vkey": format_vkey(verifier)}
