"""`govrun init`: make a .govrun and the operator's trust file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from govrun.cli.common import current_directory
from govrun.cli.output import show_json
from govrun.world import real_world

if TYPE_CHECKING:
    from govrun.initialise import Made


@click.command("init")
@click.option("--origin", metavar="NAME", help="The log's name: like a URL without a scheme (default: a unique one).")
@click.option("--allow", "allowed", multiple=True, metavar="BACKEND", help="Let this backend run; may be repeated.")
@click.option("--home", metavar="DIR", help="Where to make it (default: GOVRUN_HOME, then .govrun here).")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(origin: str | None, allowed: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Make a .govrun: three keys, an empty ledger, config.toml, a policy, and your trust file outside of it.

    The policy allows the backends that --allow names and nothing else.
    """
    from govrun.errors import GovrunError

    try:
        made, names = _make(origin, allowed, home)
    except GovrunError as error:
        error.effect = "nothing was made"
        raise
    if as_json:
        show_json(
            {
                "home": str(made.home),
                "origin": made.origin,
                "trustFile": str(made.trust_file),
                "allowed": names,
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


def _make(origin: str | None, allowed: tuple[str, ...], home: str | None) -> tuple[Made, list[str]]:
    """Make the home, and name the backends that its policy allows."""
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
    return make_home(world, place, origin, pairs), [name for name, _ in pairs]
