"""`govrun run`: one governed invocation."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from govrun.cli.common import (
    ask_passphrase,
    build_request,
    current_directory,
    find_settings,
    home_options,
    read_request_file,
    request_options,
    signer_options,
)
from govrun.cli.output import StderrPass, error_json, hashing, note, show_bytes, show_error, show_json
from govrun.errors import ExitCode, GovrunError
from govrun.execute.process import Interrupt
from govrun.invoke import Result
from govrun.request import Request
from govrun.settings import Settings
from govrun.world import World


@click.command("run", context_settings={"ignore_unknown_options": False})
@request_options
@click.option("--request", "request_file", metavar="FILE", help="The whole request as JSON, from a file or -.")
@click.option("--request-id", metavar="ID", help="Run at most once under this id; a repeat returns the record.")
@home_options
@signer_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of the text.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(
    context: click.Context, /, as_json: bool, argv: tuple[str, ...], request_file: str | None, **options: Any
) -> None:
    """Run one governed invocation: the backend's text on stdout, a child's stderr passed through.

    ARGV, after --, is a command for `--backend process`, where the policy allows it.
    """
    from govrun.api import before_launch, parse_request

    if request_file is not None:
        _demand_alone(context)
    with before_launch():
        world, settings = find_settings(options)
    unread = wanted = None
    try:
        if request_file is not None:
            wanted = parse_request(read_request_file(request_file), str(current_directory()))
        else:
            wanted = build_request(options, settings, argv)
    except GovrunError as refusal:
        unread = refusal
    result = perform(world, settings, wanted, unread)
    if as_json:
        show_json(result_json(result))
    elif result.error is not None:
        if result.exit is ExitCode.INTERRUPTED and sys.stderr.isatty():
            note("")  # the terminal has shown ^C
        show_error(result.error)
    elif result.text is not None:
        show_bytes(result.text)
    else:
        note(f"recorded before as entry {result.outcome_index}; nothing was executed again, and its text was not kept")
    sys.exit(int(result.exit))


def _demand_alone(context: click.Context) -> None:
    """Refuse what `--request` would silently ignore."""
    beside = {"request_file", "as_json", "home", "ledger", "policy", "signer", "log_signer"}
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name not in beside and context.params[parameter.name or ""]:
            name = "ARGV" if parameter.name == "argv" else parameter.opts[0]
            raise click.UsageError(f"--request holds the whole request; {name} does not go with it")


def perform(world: World, settings: Settings, wanted: Request | None, unread: GovrunError | None) -> Result:
    """Run a request on the ground that the settings name; record the refusal of one that could not be read."""
    from govrun.api import open_ground
    from govrun.invoke import deny, run

    passing = StderrPass()
    try:
        with open_ground(world, settings, passing, noted_signals, hashing(), ask_passphrase) as ground:
            if wanted is None:
                deny(ground, None, unread or GovrunError(ExitCode.REQUEST_INVALID, "request.none", "no request"))
            return run(ground, wanted)
    finally:
        passing.finish()


@contextmanager
def noted_signals() -> Iterator[Interrupt]:
    """While this lasts a signal is noted, ends the child, and is told by the outcome; an ignored one stays ignored."""
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: handler for number in endings if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    with Interrupt() as interrupt:
        for number in before:
            signal.signal(number, lambda n, _frame: interrupt.request(n))
        # A reader of stderr that goes away must not end govrun in the middle of a run.
        pipe = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            yield interrupt
        finally:
            for number, handler in (*before.items(), (signal.SIGPIPE, pipe)):
                signal.signal(number, handler)


def result_json(result: Result) -> dict[str, Any]:
    """A result as programs read it; text is UTF-8 text, or base64 in `textBase64` when it is not."""
    ended = result.outcome["exit"]
    text: dict[str, Any] = {"text": None}
    if result.text is not None:
        try:
            text = {"text": result.text.decode("utf-8")}
        except UnicodeDecodeError:
            text = {"text": None, "textBase64": base64.b64encode(result.text).decode()}
    facts = result.facts
    return {
        "invocationId": result.invocation_id,
        "exit": {"code": int(result.exit), "name": result.exit.label},
        "child": {"exitCode": ended["code"], "signal": ended["signal"]},
        **text,
        "facts": None
        if facts is None
        else {
            "promptTokens": facts.prompt_tokens,
            "generatedTokens": facts.generated_tokens,
            "finishReason": facts.finish_reason,
            "seed": facts.seed,
        },
        "error": None if result.error is None else error_json(result.error),
        "entries": {"intent": result.intent_index, "outcome": result.outcome_index},
        "repeated": result.repeated,
    }
