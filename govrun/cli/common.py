"""What several commands share: finding the home, opening the ground an invocation stands on, building a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from govrun.errors import ExitCode, GovrunError
from govrun.home import find_home
from govrun.request import MAX_PROMPT_BYTES, MAX_WALL_MS, Request
from govrun.settings import POSTGRES, Settings, load_settings
from govrun.world import World, real_world

Command = TypeVar("Command", bound=Callable[..., Any])


def home_options(command: Command) -> Command:
    """--home, --ledger and --policy: the settings that only the operator may set."""
    for option in (
        click.option("--policy", metavar="FILE", help="Policy to use instead of the home's."),
        click.option("--ledger", metavar="LEDGER", help="Ledger to use instead of the home's, a file or a URL."),
        click.option("--home", metavar="DIR", help="The .govrun to use (default: GOVRUN_HOME, then upward from here)."),
    ):
        command = option(command)
    return command


def signer_options(command: Command) -> Command:
    """--signer and --log-signer: where the keys that sign are."""
    for option in (
        click.option("--log-signer", metavar="WHERE", help="The same for the log key."),
        click.option(
            "--signer", metavar="WHERE", help="Where the receipt key is: file, or ssh-agent:SHA256:... (default: file)."
        ),
    ):
        command = option(command)
    return command


def request_options(command: Command) -> Command:
    """What a request is made of."""
    for option in (
        click.option(
            "--timeout", "timeout_s", type=click.FloatRange(0.001), metavar="SECONDS", help="Shorter time limit."
        ),
        click.option("--ok-exit", default="0", metavar="N,N", show_default=True, help="Exit codes that are a success."),
        click.option(
            "--output", "outputs", multiple=True, metavar="FILE", help="File the command will write; digested."
        ),
        click.option("--input", "inputs", multiple=True, metavar="FILE", help="File the command will read; digested."),
        click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the backend."),
        click.option("--prompt-file", metavar="FILE", help="The prompt, from a file or - for standard input."),
        click.option("--prompt", metavar="TEXT", help="The prompt."),
        click.option("--agent", metavar="NAME", help="On whose behalf; recorded as claimed."),
        click.option("--task", metavar="NAME", help="A task of the policy."),
        click.option("--backend", metavar="NAME", help="Where to run it (default: GOVRUN_BACKEND, config.toml)."),
    ):
        command = option(command)
    return command


def find_settings(options: Mapping[str, Any], world: World | None = None) -> tuple[World, Settings]:
    """The world and the resolved settings for a command's --home, --ledger and --policy."""
    world = world or real_world()
    cwd = current_directory()
    home = find_home(world, cwd, options.get("home"))
    given = {
        name: str(cwd / options[name]) if name in ("ledger", "policy") and not is_url(options[name]) else options[name]
        for name in ("ledger", "policy", "backend", "signer")
        if options.get(name) is not None
    }
    if options.get("log_signer") is not None:
        given["logSigner"] = options["log_signer"]
    return world, load_settings(home, world.environ, given)


def ask_passphrase(words: str) -> bytes | None:
    """Ask the person at the terminal, unseen; None where there is none."""
    try:
        with open("/dev/tty", "rb+", buffering=0):
            pass
    except OSError:
        return None
    from getpass import getpass

    return getpass(words).encode("utf-8", "surrogateescape")


def ask_new_passphrase(words: str) -> bytes | None:
    """Ask twice for a passphrase that is to be; GovrunError (ledger-unavailable) when the two differ."""
    first = ask_passphrase(words)
    if first is not None and ask_passphrase("The same again: ") != first:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE, "passphrase.twice", "the two passphrases differ", expected="the same one twice"
        )
    return first


def is_url(text: str) -> bool:
    """Whether a ledger is named by the URL of its database, and not by a path."""
    return text.startswith(POSTGRES)


def build_request(options: Mapping[str, Any], settings: Settings, argv: tuple[str, ...] = ()) -> Request:
    """The request that a command line describes; raises GovrunError (request-invalid)."""
    if settings.backend is None:
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            "request.backend",
            "no backend was chosen",
            found="none",
            expected="--backend NAME, GOVRUN_BACKEND, or backend in config.toml",
            fix="`govrun backends` lists them",
        )
    timeout = options.get("timeout_s")
    return Request(
        backend=settings.backend,
        task=options.get("task"),
        agent=options.get("agent"),
        prompt=read_prompt(options.get("prompt"), options.get("prompt_file")),
        parameters=tuple(sorted(_pair(text) for text in options.get("params", ()))),
        argv=argv,
        inputs=tuple(options.get("inputs", ())),
        outputs=tuple(options.get("outputs", ())),
        ok_exit=_codes(options.get("ok_exit", "0")),
        request_id=options.get("request_id"),
        wall_ms=None if timeout is None else _milliseconds(timeout),
        cwd=str(current_directory()),
    )


def read_prompt(text: str | None, file: str | None) -> bytes | None:
    """The prompt's exact bytes, from an option, a file or standard input; bounded."""
    if text is not None and file is not None:
        raise click.UsageError("--prompt and --prompt-file exclude each other")
    if text is not None:
        return text.encode("utf-8", "surrogateescape")
    if file is None:
        return None
    return _read_bounded(file, MAX_PROMPT_BYTES, "request.promptFile", "the prompt file cannot be read")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r}, expected NAME=VALUE", param_hint="--param")
    return name, value


def _codes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise click.BadParameter(f"{text!r}, expected numbers such as 0,1", param_hint="--ok-exit")
    return tuple(sorted({int(part) for part in parts}))


def _milliseconds(seconds: float) -> int:
    if not 0 < seconds <= MAX_WALL_MS / 1000:
        raise click.BadParameter(f"{seconds}, expected at most {MAX_WALL_MS // 1000}", param_hint="--timeout")
    return max(1, round(seconds * 1000))


def current_directory() -> Path:
    """The working directory; GovrunError (request-invalid) when it was removed."""
    from govrun.api import working_directory

    return working_directory()


def read_request_file(file: str) -> bytes:
    """The bytes of a request document, from a file or `-`; bounded."""
    from govrun.api import MAX_REQUEST_BYTES

    return _read_bounded(file, MAX_REQUEST_BYTES, "request.file", "the request file cannot be read")


def _read_bounded(file: str, limit: int, rule: str, what: str) -> bytes:
    # One byte more than may be, so that whoever judges the size can see that there is more.
    try:
        if file == "-":
            return sys.stdin.buffer.read(limit + 1)
        with open(file, "rb") as source:
            return source.read(limit + 1)
    except OSError as error:
        raise GovrunError(
            ExitCode.REQUEST_INVALID, rule, what, found=error.strerror, expected="a readable file"
        ) from error
