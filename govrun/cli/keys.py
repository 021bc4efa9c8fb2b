"""`govrun keys`: the keys of a ledger, whether each counts, and where each private half is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from govrun.cli.common import find_settings, home_options, signer_options
from govrun.cli.keys_change import add, revoke, rotate
from govrun.cli.keys_files import decrypt, encrypt, export
from govrun.cli.output import note, show_json, table
from govrun.errors import GovrunError
from govrun.frozen import frozen
from govrun.settings import AGENT_PREFIX, Settings
from govrun.world import World


@click.group("keys")
def command() -> None:
    """Show and change the keys of a ledger. Only a root key changes which keys count; keep it offline."""


for one in (rotate, add, revoke, encrypt, decrypt, export):
    command.add_command(one)

SIGNS = {"root": "key changes; keep it offline", "log": "checkpoints", "receipt": "receipts"}


@frozen
class Place:
    """Where a private half is: one of the home's files, or the ssh-agent."""

    role: str
    public: bytes
    words: str
    name: str | None


@command.command("list")
@home_options
@signer_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_keys(as_json: bool, **options: Any) -> None:
    """List each key that the ledger names: whether it counts, where its private half is, fingerprint and vkey.

    What is listed is read from the ledger, not verified: that is `govrun verify`.
    """
    from govrun.keychanges import keys_of

    world, settings = find_settings(options)
    keys = keys_of(settings)
    places = (*_files(settings, keys[0].verifier.name.removesuffix("/root")), *_agent(world))
    rows = [_row(key, settings, places) for key in keys]
    known = {key.verifier.public for key in keys}
    rows += [_stranger(place) for place in places if place.name is not None and place.public not in known]
    if as_json:
        show_json(rows)
        return
    head = ["role", "status", "private half", "fingerprint", "vkey"]
    click.echo(
        table(head, [[row["role"], row["status"], row["where"], row["fingerprint"], row["vkey"]] for row in rows])
    )


def _files(settings: Settings, origin: str) -> Iterator[Place]:
    """The key files of a home; what is wrong with one is raised, because it would keep the next run from signing."""
    from govrun.keystate import key_name
    from govrun.signers import KEYS_DIRECTORY
    from govrun.signing.keyfile import look_at_key

    for path in sorted((settings.home / KEYS_DIRECTORY).glob("*.key")):
        role = path.stem.partition("-")[0]
        verifier, form = look_at_key(path, key_name(origin, role))
        words = "file" if form == "plain" else "encrypted file"
        if path.stem != role:
            words += f" {path.name}"
        yield Place(role, verifier.public, words, path.name)


def _agent(world: World) -> tuple[Place, ...]:
    if not world.environ.get("SSH_AUTH_SOCK"):
        return ()
    from govrun.signing.ssh_agent import list_keys as held

    try:
        return tuple(Place("", key.public, "ssh-agent", None) for key in held(world.environ, world))
    except GovrunError as error:
        note(f"the ssh-agent was not asked: {error.what} [{error.rule}]")
        return ()


def _row(key: Any, settings: Settings, places: tuple[Place, ...]) -> dict[str, Any]:
    from govrun.signing.keys import format_vkey
    from govrun.signing.ssh_wire import fingerprint

    verifier = key.verifier
    here = [place for place in places if place.public == verifier.public]
    printed = fingerprint(verifier.public)
    used = key.counts and _is_used(key.role, printed, settings, here)
    revoked = key.revoked
    return {
        "role": key.role,
        "status": _status(key, used),
        "where": ", ".join(place.words for place in here) or "not here",
        "fingerprint": printed,
        "vkey": format_vkey(verifier),
        "keyid": verifier.keyid,
        "signs": SIGNS[key.role],
        "counts": key.counts,
        "inUse": used,
        "addedAt": key.added,
        "revokedAt": None if revoked is None else revoked.index,
        "reason": None if revoked is None else revoked.reason,
        "suspectFrom": None if revoked is None else revoked.suspect_from,
    }


def _is_used(role: str, printed: str, settings: Settings, here: list[Place]) -> bool:
    """Whether the next append from this home would be signed with the key; a root key is used by hand."""
    if role == "root":
        return True
    named = settings.signer if role == "receipt" else settings.log_signer
    if named.startswith(AGENT_PREFIX):
        return named.removeprefix(AGENT_PREFIX) == printed
    return any(place.name == f"{role}.key" for place in here)


def _status(key: Any, used: bool) -> str:
    if key.revoked is not None:
        suspect = "" if key.revoked.suspect_from is None else f", suspect from {key.revoked.suspect_from}"
        return f"revoked at {key.revoked.index} ({key.revoked.reason}){suspect}"
    # A log key is never retired: it is the log's, wherever its private half is.
    return "in use" if used or key.role == "log" else "retired"


def _stranger(place: Place) -> dict[str, Any]:
    """A key file that the ledger does not name: what it signed would count for nobody."""
    from govrun.signing.ssh_wire import fingerprint

    return {
        "role": place.role,
        "status": "not named by the ledger",
        "where": place.words,
        "fingerprint": fingerprint(place.public),
        "vkey": "-",
        "keyid": None,
        "signs": SIGNS.get(place.role, "nothing"),
        "counts": False,
        "inUse": False,
        "addedAt": None,
        "revokedAt": None,
        "reason": None,
        "suspectFrom": None,
    }
