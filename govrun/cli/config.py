"""`govrun config show`: every setting with its value and where it came from."""

from __future__ import annotations

import sys
from typing import Any

import click

from govrun.cli.common import find_settings, home_options
from govrun.cli.output import show_json, table


@click.group("config")
def command() -> None:
    """Show every setting and where it came from."""


@command.command("show")
@home_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(as_json: bool, **options: Any) -> None:
    """Show every setting, its value and its origin: option, environment, config or default.

    Settings of a backend that cannot be loaded are left out; `govrun backends` says why. Secrets show as `set`.
    """
    world, settings = find_settings(options)
    from govrun.backends import registry
    from govrun.errors import GovrunError
    from govrun.permit import speaking
    from govrun.settings import Setting, backend_settings

    rows = [
        Setting(
            "home",
            str(settings.home),
            "option" if options["home"] else "environment" if "GOVRUN_HOME" in world.environ else "default",
        ),
        *settings.origins,
    ]
    for registration in registry.list_backends(tuple(sys.path)):
        try:
            with speaking(registration.name):
                specs = tuple(registry.load(registration).settings())
                given = backend_settings(specs, world.environ, settings.config)
                kinds = {spec.name: spec.kind for spec in specs}
        except GovrunError:
            continue
        for setting in given:
            hidden = setting.value is not None and kinds[setting.name] == "secret"
            rows.append(Setting(setting.name, "set" if hidden else setting.value, setting.source))
    if as_json:
        show_json({row.name: {"value": row.value, "origin": row.source} for row in rows})
        return
    shown = [[row.name, "(not set)" if row.value is None else row.value, row.source] for row in rows]
    click.echo(table(["setting", "value", "origin"], shown))
