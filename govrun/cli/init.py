"""`govrun init`: make a .govrun and the operator's trust file."""

from __future__ import annotations

import sys

import click

from govrun.cli.common import current_directory
from govrun.cli.output import show_json
from govrun.world import real_world


@click.command("init")
@click.option("--origin", metavar="NAME", help="The log's name: like a URL without a scheme (default: a unique one).")
@click.option("--allow", "allowed", multiple=True, metavar="BACKEND", help="Let this backend run; may be repeated.")
@click.option("--home", metavar="DIR", help="Where to make it (default: GOVRUN_HOME, then .govrun here).")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(origin: str | None, allowed: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Make a .govrun: three keys, an empty ledger, config.toml, a policy, and your trust file outside of it.

    The policy allows the backends that --allow names and nothing else.
    """
    from govrun.backends import registry
    from govrun.initialise import make_home
    from govrun.settings import absolute_path

    world = real_world()
    cwd = current_directory()
    named = home if home is not None else world.environ.get("GOVRUN_HOME")
    place = (
        cwd / ".govrun"
        if named is None
        else absolute_path(str(cwd / named) if home is not None else named, "settings.home", "home")
    )
    pairs = [(name, registry.find(name, tuple(sys.path)).distribution) for name in dict.fromkeys(allowed)]
    made = make_home(world, place, origin, pairs)
    if as_json:
        show_json(
            {
                "home": str(made.home),
                "origin": made.origin,
                "trustFile": str(made.trust_file),
                "allowed": [n for n, _ in pairs],
            }
        )
        return
    click.echo(f"made      {made.home}", err=True)
    click.echo(f"origin    {made.origin}", err=True)
    click.echo(
        f"policy    {', '.join(n for n, _ in pairs) or 'nothing may run yet'}  ({made.home / 'policy.toml'})", err=True
    )
    click.echo(f"trust     {made.trust_file}  (what `govrun verify` trusts; keep a copy elsewhere)", err=True)
    click.echo(
        f"root key  {made.home / 'keys' / 'root.key'}  (signs nothing but key changes: move it offline)", err=True
    )
