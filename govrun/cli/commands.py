"""The commands by name, each imported only when it is the one that was asked for."""

from __future__ import annotations

from typing import Final

import click

from govrun import __version__

# name -> (module, one line of help); the help stands here so that `--help` imports no command.
COMMANDS: Final = {
    "init": ("govrun.cli.init", "Make a .govrun: keys, ledger, config, policy, and your trust file."),
    "run": ("govrun.cli.run", "Run one governed invocation and leave its receipt."),
    "preflight": ("govrun.cli.preflight", "Check what a run would need; start nothing."),
    "backends": ("govrun.cli.backends", "List the backends, without importing them."),
    "verify": ("govrun.cli.verify", "Verify a ledger: chain, tree, checkpoint, signatures, open intents."),
    "audit": ("govrun.cli.audit", "Verify a ledger, then judge every receipt by a policy."),
    "ledger": ("govrun.cli.ledger", "Read, prove and publish a ledger."),
    "keys": ("govrun.cli.keys", "Show and change the keys of a ledger."),
    "config": ("govrun.cli.config", "Show every setting and where it came from."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        import importlib

        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)


_STYLE: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=LazyGroup, context_settings=_STYLE)
@click.version_option(__version__, prog_name="govrun", message="%(prog)s %(version)s")
def cli() -> None:
    """Governed execution with receipts.

    Run work on a chosen backend behind a fail-closed preflight and a policy, and leave a signed receipt in a
    hash-chained ledger that anybody can verify. Exit codes: 1x refused, 2x ran and failed, 3x ran but not yet in the
    ledger, 4x verdict no.
    """
