"""`govrun init`: make a .govrun and the operator's trust file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from govrun.cli.common import ask_new_passphrase, current_directory
from govrun.cli.output import printable, show_json
from govrun.world import World, real_world

if TYPE_CHECKING:
    from govrun.initialise import Made
    from govrun.succession import Predecessor


@click.command("init")
@click.option("--origin", metavar="NAME", help="The log's name: like a URL without a scheme (default: a unique one).")
@click.option("--allow", "allowed", multiple=True, metavar="BACKEND", help="Let this backend run; may be repeated.")
@click.option("--home", metavar="DIR", help="Where to make it (default: GOVRUN_HOME, then .govrun here).")
@click.option("--encrypt-keys", is_flag=True, help="Put the key files under a passphrase.")
@click.option(
    "--signer", metavar="WHERE", default="file", help="The receipt key: ssh-agent:SHA256:... for one there is."
)
@click.option("--log-signer", metavar="WHERE", default="file", help="The same for the log key.")
@click.option("--continues", metavar="CHECKPOINT", help="A file: the last checkpoint of a ledger that ended.")
@click.option("--continues-key", metavar="VKEY", help="That ledger's log key (default: from your trust file).")
@click.option("--lost", metavar="N", help="Entries lost behind it: a number, none, or unknown (the default).")
@click.option("--ledger", metavar="URL", help="Begin a shared ledger in a PostgreSQL database instead of a file here.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(origin: str | None, as_json: bool, **options: Any) -> None:
    """Make a .govrun: three keys, an empty ledger, config.toml, a policy, and your trust file outside of it.

    The policy allows the backends that --allow names and nothing else. With --continues the new ledger names the one
    that it continues, and that one is closed for good: a restored backup never goes on under its own origin.
    """
    from govrun.errors import GovrunError

    if options["continues"] is None and (options["continues_key"] is not None or options["lost"] is not None):
        raise click.UsageError("--continues-key and --lost are about a ledger that ended: say --continues")
    try:
        made, names, before = _make(origin, options)
    except GovrunError as error:
        error.effect = error.effect or "nothing was made"
        raise
    if as_json:
        from govrun.succession import shown

        show_json(
            {
                "home": str(made.home),
                "origin": made.origin,
                "trustFile": str(made.trust_file),
                "allowed": names,
                "continues": None if before is None else shown(before),
            }
        )
        return
    click.echo(f"made      {made.home}", err=True)
    click.echo(f"origin    {made.origin}", err=True)
    allows = ", ".join(names) or "nothing may run yet; name backends there"
    click.echo(f"policy    {made.home / 'policy.toml'}  ({allows})", err=True)
    click.echo(f"trust     {made.trust_file}  (what `govrun verify` trusts; keep a copy elsewhere)", err=True)
    click.echo(
        f"root key  {made.home / 'keys' / 'root.key'}  (signs nothing but key changes: move it offline)", err=True
    )
    if before is not None:
        _tell_end(before)


def _tell_end(before: Predecessor) -> None:
    size = before.last.checkpoint.size
    lost = {"none": "nothing", "unknown": "not known"}.get(before.loss, f"{before.lost_entries} entries")
    click.echo(f"continues {printable(before.origin)}, {size} entries; lost behind them: {lost}", err=True)
    if before.loss == "unknown" and before.missing:
        click.echo(
            f"          at least {before.missing} are lost: a head of {before.seen} entries was seen here", err=True
        )
    click.echo("          it is closed: its writers are refused (exit 16), and it can be verified as it is", err=True)


def _make(origin: str | None, options: dict[str, Any]) -> tuple[Made, list[str], Predecessor | None]:
    """Make the home, and name the backends that its policy allows."""
    from govrun.backends import registry
    from govrun.initialise import KeyPlan, make_home
    from govrun.settings import absolute_path, check_url
    from govrun.signing.passphrase import Passphrases

    world = real_world()
    cwd = current_directory()
    home = options["home"]
    named = home if home is not None else world.environ.get("GOVRUN_HOME")
    place = (
        cwd / ".govrun"
        if named is None
        else absolute_path(str(cwd / named) if home is not None else named, "settings.home", "home")
    )
    allowed = dict.fromkeys(options["allowed"])
    pairs = [(name, registry.find(name, tuple(sys.path)).distribution) for name in allowed]
    plan = KeyPlan(
        options["signer"],
        options["log_signer"],
        Passphrases(world.environ, ask_new_passphrase) if options["encrypt_keys"] else None,
    )
    before = None
    if options["continues"] is not None:
        before = predecessor_of(world, options["continues"], options["continues_key"], options["lost"] or "unknown")
    ledger = None if options["ledger"] is None else check_url(options["ledger"], "--ledger")
    made = make_home(world, place, origin, pairs, plan=plan, continues=before, ledger=ledger)
    return made, [name for name, _ in pairs], before


def predecessor_of(world: World, file: str, vkey: str | None, lost: str) -> Predecessor:
    """The ledger whose last surviving checkpoint a file holds."""
    from govrun.cli.reading import read_checkpoint
    from govrun.signing.keys import parse_vkey
    from govrun.succession import predecessor

    return predecessor(world, read_checkpoint(file), lost, None if vkey is None else parse_vkey(vkey))
