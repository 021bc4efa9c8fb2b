"""`govrun preflight`: the static checks of one backend, each with its fix; starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from govrun.cli.common import build_request, find_settings, home_options, request_options, signer_options
from govrun.cli.output import error_json, printable, show_error, show_json
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from govrun.preflight import CheckResult

# What a check of the prompt is asked about when the caller brings none.
SAMPLE_PROMPT = b"ping"

_MARKS = {"passed": "ok", "notApplicable": "--", "refused": "NO", "notReached": ".."}
_COLOURS = {"passed": "green", "notApplicable": None, "refused": "red", "notReached": "yellow"}


@click.command("preflight")
@request_options
@home_options
@signer_options
@click.option("--probe", is_flag=True, help="Then ask the engine itself: a governed run of task `probe`.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def command(as_json: bool, probe: bool, argv: tuple[str, ...], **options: Any) -> None:
    """Run every static check of a backend and say how to fix each refusal; start nothing.

    Exit code 0 when all hold, 13 when one refuses.
    """
    if not probe:
        examine_and_show(options, as_json, argv)
    from govrun.api import before_launch
    from govrun.cli.run import perform, result_json

    with before_launch():
        world, settings = find_settings(options)
        given = options if argv else _with_prompt(options)
        wanted = build_request({**given, "task": options["task"] or "probe"}, settings, argv)
    result = perform(world, settings, wanted, None)
    if as_json:
        show_json(result_json(result))
    else:
        click.echo(f"probe: {result.exit.label}, recorded as entries {result.intent_index} and {result.outcome_index}")
        if result.error is not None:
            show_error(result.error)
    sys.exit(int(result.exit))


def examine_and_show(options: Mapping[str, Any], as_json: bool, argv: tuple[str, ...] = ()) -> NoReturn:
    """Examine every check, show them all, and exit with 0 or 13."""
    name, results = _examine(options, argv)
    holds = _refused(results) == 0 and any(r.status == "passed" for r in results)
    if as_json:
        show_json({"backend": name, "ready": holds, "checks": [_json(r) for r in results]})
    else:
        for result in results:
            _show(result)
        click.echo(f"{name}: {'ready' if holds else 'not ready'}; nothing was started")
    sys.exit(0 if holds else int(ExitCode.PREFLIGHT_REFUSED))


def _examine(options: Mapping[str, Any], argv: tuple[str, ...]) -> tuple[str, tuple[CheckResult, ...]]:
    """The backend's name, and its checks of the request; of one with a sample prompt where the caller brings none.

    A backend that takes no prompt refuses the sample, and is asked again without it.
    """
    from govrun.api import inquire
    from govrun.permit import speaking
    from govrun.preflight import examine

    world, settings = find_settings(options)
    first = build_request(_with_prompt(options), settings, argv)
    sampled = options.get("prompt") is None and options.get("prompt_file") is None
    found = []
    for wanted in (first, evolve(first, prompt=None)) if sampled else (first,):
        asked = inquire(world, settings, wanted)
        with speaking(wanted.backend):
            found.append(examine(tuple(asked.backend.checks(asked.inquiry))))
        if _refused(found[-1]) == 0:
            break
    return first.backend, min(found, key=_refused)


def _refused(results: Sequence[CheckResult]) -> int:
    return sum(result.status in ("refused", "notReached") for result in results)


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
