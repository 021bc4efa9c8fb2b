"""`govrun keys`: the keys of a home, and where each private half is."""

from __future__ import annotations

from typing import Any

import click

from govrun.cli.common import find_settings, home_options
from govrun.cli.output import show_json, table


@click.group("keys")
def command() -> None:
    """Show the keys of a .govrun."""


@command.command("list")
@home_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_keys(as_json: bool, **options: Any) -> None:
    """List each key as a vkey, what it signs, and whether its private half is here."""
    from govrun.errors import GovrunError
    from govrun.home import KEY_ROLES
    from govrun.signing.keys import format_vkey, load_signer

    _, settings = find_settings(options)
    purpose = {"root": "key changes; keep it offline", "log": "checkpoints", "receipt": "receipts"}
    rows = []
    for role in KEY_ROLES:
        path = settings.home / "keys" / f"{role}.key"
        try:
            rows.append((role, format_vkey(load_signer(path).verifier), purpose[role]))
        except GovrunError as error:
            if error.rule != "key.missing":
                raise
            rows.append((role, "(private key not here)", purpose[role]))
    if as_json:
        show_json([{"role": role, "vkey": vkey, "signs": signs} for role, vkey, signs in rows])
        return
    click.echo(table(["role", "vkey", "signs"], [list(row) for row in rows]))
