"""`govrun backends`: what is registered and from where, without importing it; whether one is ready."""

from __future__ import annotations

import sys
from typing import Any

import click

from govrun.cli.common import home_options
from govrun.cli.output import error_json, show_json, table


@click.command("backends")
@click.option("--check", "name", metavar="NAME", help="Run the preflight of one backend.")
@home_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(name: str | None, as_json: bool, **options: Any) -> None:
    """List the registered backends and the distributions they come from, importing none of them.

    A backend with a problem is listed with it; the others work all the same.
    """
    from govrun.backends import registry

    if name is not None:
        from govrun.cli.preflight import examine_and_show

        examine_and_show({**options, "backend": name}, as_json)
    found = registry.list_backends(tuple(sys.path))
    if as_json:
        show_json(
            [
                {
                    "name": r.name,
                    "distribution": r.distribution,
                    "version": r.version,
                    "target": r.target,
                    "problem": None if r.problem is None else error_json(r.problem),
                }
                for r in found
            ]
        )
        return
    rows = [[r.name, f"{r.distribution} {r.version}", "ok" if r.problem is None else r.problem.what] for r in found]
    click.echo(table(["backend", "from", "listed as"], rows))
