"""`govrun ledger prepare`: make a database ready for a shared ledger."""

from __future__ import annotations

import click

from govrun.cli.output import note, show_json


@click.command("prepare")
@click.argument("url")
@click.option("--sequencer", is_flag=True, help="Take checkpoints from a sequencer only, not from who appends.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def prepare(url: str, sequencer: bool, as_json: bool) -> None:
    """Make an empty PostgreSQL database ready for a shared ledger: roles, tables, and the functions that write.

    URL leads there as the database's owner, who can create roles. Who writes and reads later logs in as somebody else:
    docs/postgresql.md says how. `govrun init --ledger URL` then begins the ledger.
    """
    from govrun.errors import GovrunError
    from govrun.ledger.postgres import WAIT_MS
    from govrun.ledger.postgres_form import ROLES, make_ready, role_name

    try:
        database = make_ready(url, WAIT_MS, writers_sign=not sequencer)
    except GovrunError as error:
        error.effect = "nothing was made"
        raise
    roles = {role: role_name(database, role) for role in ROLES}
    if as_json:
        show_json({"database": database, "roles": roles, "writersSign": not sequencer})
        return
    note(f"made ready  {database}")
    note(f"writers     members of {roles['writer']}; grant it to each role that a writer logs in as")
    if sequencer:
        note(f"sequencer   a member of {roles['sequencer']}: it begins the ledger, and runs `govrun ledger sequence`")
    note(f"readers     members of {roles['reader']}")
    note(f"owner       {roles['owner']}; nobody who writes or reads may be a member of it")
