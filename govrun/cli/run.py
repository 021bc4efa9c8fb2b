"""`govrun run`: one governed invocation."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from govrun.cli.common import build_request, find_settings, home_options, request_options
from govrun.cli.output import error_json, pass_stderr, show_bytes, show_error, show_json
from govrun.execute.process import Interrupt
from govrun.invoke import Result


@click.command("run", context_settings={"ignore_unknown_options": False})
@request_options
@click.option("--request", "request_file", metavar="FILE", help="The whole request as JSON, from a file or -.")
@click.option("--request-id", metavar="ID", help="Run at most once under this id; a repeat returns the record.")
@home_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of the text.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def command(as_json: bool, argv: tuple[str, ...], request_file: str | None, **options: Any) -> None:
    """Run one governed invocation: the backend's text on stdout, a child's stderr passed through.

    ARGV, after --, is a command for `--backend process`, where the policy allows it.
    """
    from govrun.api import open_ground, parse_request
    from govrun.invoke import run

    world, settings = find_settings(options)
    if request_file is not None:
        from govrun.cli.common import read_request_file

        wanted = parse_request(read_request_file(request_file))
    else:
        wanted = build_request(options, settings, argv)
    interrupt = Interrupt()
    with open_ground(world, settings, pass_stderr=pass_stderr) as ground, _signals(interrupt):
        result = run(ground, wanted, interrupt)
    if result.error is not None:
        result.error.effect = f"it ran; outcome recorded as entry {result.outcome_index}"
    if as_json:
        show_json(result_json(result))
    elif result.error is not None:
        show_error(result.error)
    elif result.text is not None:
        show_bytes(result.text)
    sys.exit(int(result.exit))


@contextmanager
def _signals(interrupt: Interrupt) -> Iterator[None]:
    """From here on a signal is noted, ends the child, and is told by the outcome."""
    noted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _frame: interrupt.request(n)) for number in noted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def result_json(result: Result) -> dict[str, Any]:
    """A result as programs read it; text is UTF-8 text, or base64 in `textBase64` when it is not."""
    captured = result.captured
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
        "child": None if captured is None else {"exitCode": captured.exit_code, "signal": captured.signal},
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
