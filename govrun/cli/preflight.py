"""`govrun preflight`: the static checks of one backend, each with its fix; starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from govrun.cli.common import build_request, find_settings, home_options, request_options
from govrun.cli.output import error_json, printable, show_json
from govrun.errors import ExitCode, GovrunError
from govrun.preflight import CheckResult

# What a check of the prompt is asked about when the caller brings none.
SAMPLE_PROMPT = b"ping"

_MARKS = {"passed": "ok", "notApplicable": "--", "refused": "NO", "notReached": ".."}
_COLOURS = {"passed": "green", "notApplicable": None, "refused": "red", "notReached": "yellow"}


@click.command("preflight")
@request_options
@home_options
@click.option("--probe", is_flag=True, help="Then ask the engine itself: a governed run of task `probe`.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def command(as_json: bool, probe: bool, argv: tuple[str, ...], **options: Any) -> None:
    """Run every static check of a backend and say how to fix each refusal; start nothing.

    Exit code 0 when all hold, 13 when one refuses.
    """
    if not probe:
        examine_and_show(options, as_json, argv)
    from govrun.api import open_ground
    from govrun.cli.run import result_json
    from govrun.invoke import run

    world, settings = find_settings(options)
    wanted = build_request(_with_prompt({**options, "task": options["task"] or "probe"}), settings, argv)
    with open_ground(world, settings) as ground:
        result = run(ground, wanted)
    if as_json:
        show_json(result_json(result))
    else:
        click.echo(f"probe: {result.exit.label}, recorded as entries {result.intent_index} and {result.outcome_index}")
    sys.exit(int(result.exit))


def examine_and_show(options: Mapping[str, Any], as_json: bool, argv: tuple[str, ...] = ()) -> NoReturn:
    """Examine every check, show them all, and exit with 0 or 13."""
    from govrun.api import inquire
    from govrun.preflight import examine

    world, settings = find_settings(options)
    asked = inquire(world, settings, build_request(_with_prompt(options), settings, argv))
    results = examine(tuple(asked.backend.checks(asked.inquiry)))
    holds = bool(results) and all(r.status in ("passed", "notApplicable") for r in results)
    if as_json:
        show_json({"backend": asked.inquiry.request.backend, "ready": holds, "checks": [_json(r) for r in results]})
    else:
        for result in results:
            _show(result)
        click.echo(f"{asked.inquiry.request.backend}: {'ready' if holds else 'not ready'}; nothing was started")
    sys.exit(0 if holds else int(ExitCode.PREFLIGHT_REFUSED))


def _with_prompt(options: Mapping[str, Any]) -> dict[str, Any]:
    given = options.get("prompt") is not None or options.get("prompt_file") is not None
    return dict(options) if given else {**options, "prompt": SAMPLE_PROMPT.decode()}


def _show(result: CheckResult) -> None:
    colour = _COLOURS[result.status] if sys.stdout.isatty() else None
    click.echo(f"{click.style(_MARKS[result.status], fg=colour)}  {result.id:<28} {printable(result.what)}")
    if result.error is not None:
        for line in _reasons(result.error):
            click.echo(f"    {printable(line)}")


def _reasons(error: GovrunError) -> list[str]:
    return [error.what, *(line.strip() for line in error.lines()[1:])]


def _json(result: CheckResult) -> dict[str, Any]:
    error = None if result.error is None else error_json(result.error)
    return {"id": result.id, "what": result.what, "status": result.status, "error": error}
