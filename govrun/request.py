"""What a caller asks for, and the parameters it resolves to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

MAX_PROMPT_BYTES: Final = 1 << 20
MAX_ARGUMENTS: Final = 256
MAX_ARGUMENT_BYTES: Final = 131_071  # Linux MAX_ARG_STRLEN less the closing NUL
MAX_FILES: Final = 64
MAX_PARAMETERS: Final = 64
MAX_WALL_MS: Final = 7 * 86_400 * 1000

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_RULE = re.compile(r"[a-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?")

Origin = Literal["option", "project", "policy", "environment", "config", "default", "engineDefault"]
Kind = Literal["integer", "decimal", "choice", "path", "text", "secret"]


@frozen
class Request:
    """One wish to run something; nothing in it is trusted yet, everything in it is bounded.

    prompt: the exact bytes for the engine, None when there is none. parameters: (name, text) pairs as the caller
    gave them, sorted by name. argv: free words after `--`. inputs, outputs: paths of declared files as given,
    relative to cwd (an absolute path). ok_exit: exit codes that count as success, sorted.
    wall_ms: a shorter time limit than the policy's, in ms.
    """

    backend: str
    task: str | None = None
    agent: str | None = None
    prompt: bytes | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    argv: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    ok_exit: tuple[int, ...] = (0,)
    request_id: str | None = None
    wall_ms: int | None = None
    cwd: str = "/"


def check_request(request: Request) -> Request:
    """Return the request when every field is well-formed, else raise GovrunError (request-invalid)."""
    _match(_NAME, request.backend, "request.backend", "a backend name", "lower-case letters, digits, - and _")
    if request.task is not None:
        _match(_NAME, request.task, "request.task", "a task name", "lower-case letters, digits, - and _")
    if request.agent is not None:
        _match(_AGENT, request.agent, "request.agent", "an agent name", "letters, digits and ._:@+-, at most 128")
    if request.request_id is not None:
        _match(_REQUEST_ID, request.request_id, "request.id", "a request id", "letters, digits and ._:-, at most 128")
    if request.prompt is not None and len(request.prompt) > MAX_PROMPT_BYTES:
        raise _invalid(
            "request.promptSize",
            "the prompt is too large",
            f"{len(request.prompt)} bytes",
            f"at most {MAX_PROMPT_BYTES} bytes",
        )
    names = [name for name, _ in request.parameters]
    if len(names) > MAX_PARAMETERS:
        raise _invalid("request.parameters", "too many parameters", str(len(names)), f"at most {MAX_PARAMETERS}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _invalid("request.parameters", "a parameter is given twice", ", ".join(twice), "each name once")
    if len(request.argv) > MAX_ARGUMENTS:
        raise _invalid("request.argv", "too many arguments", str(len(request.argv)), f"at most {MAX_ARGUMENTS}")
    pairs = (text for pair in request.parameters for text in pair)
    for word in (*request.argv, *request.inputs, *request.outputs, request.cwd, *pairs):
        _check_word(word)
    if not request.cwd.startswith("/"):
        raise _invalid("request.cwd", "the working directory is relative", "a relative path", "an absolute path")
    if len(request.inputs) + len(request.outputs) > MAX_FILES:
        raise _invalid(
            "request.files",
            "too many declared files",
            str(len(request.inputs) + len(request.outputs)),
            f"at most {MAX_FILES}",
        )
    if len(set(request.outputs)) != len(request.outputs) or len(set(request.inputs)) != len(request.inputs):
        raise _invalid("request.files", "a file is declared twice", "a repeated name", "each file once")
    if request.wall_ms is not None and not 1 <= request.wall_ms <= MAX_WALL_MS:
        raise _invalid("request.wallMs", "the time limit is wrong", f"{request.wall_ms} ms", f"1 to {MAX_WALL_MS} ms")
    if not request.ok_exit or any(not 0 <= code <= 255 for code in request.ok_exit):
        raise _invalid(
            "request.okExit", "the exit codes that count as success are wrong", str(request.ok_exit), "0-255"
        )
    return request


def _check_word(word: str) -> None:
    if "\0" in word:
        raise _invalid("request.nul", "a word contains NUL", "NUL", "no program can be given one")
    try:
        size = len(word.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _invalid("request.utf8", "a word is not UTF-8", "undecodable bytes", "UTF-8") from error
    if size > MAX_ARGUMENT_BYTES:
        raise _invalid("request.wordSize", "a word is too long", f"{size} bytes", f"at most {MAX_ARGUMENT_BYTES} bytes")


def _match(pattern: re.Pattern[str], value: str, rule: str, what: str, expected: str) -> None:
    if pattern.fullmatch(value) is None:
        raise _invalid(rule, f"{what} is malformed", repr(value[:64]), expected)


def _invalid(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.REQUEST_INVALID, rule, what, found=found, expected=expected)


@frozen
class SettingSpec:
    """A setting that a backend reads, such as `BITNET_CPP_DIR`.

    name is the environment variable and the key in `config.toml`. kind `path` and `secret` decide how it is redacted.
    """

    name: str
    kind: Kind
    help: str
    required: bool = False
    default: str | None = None


@frozen
class ParameterSpec:
    """A parameter that a backend accepts, and its range.

    settable False: the engine offers no way to set it; asking for it refuses, and receipts say `engineDefault`.
    setting: the SettingSpec that can supply it. default None with settable True: `engineDefault` unless given.
    """

    name: str
    kind: Kind
    help: str
    default: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    choices: tuple[str, ...] = ()
    setting: str | None = None
    settable: bool = True


@frozen
class Parameter:
    """A resolved parameter; value None means the engine's own default, which govrun does not know."""

    name: str
    value: str | None
    origin: Origin


def resolve_parameters(
    specs: Sequence[ParameterSpec],
    layers: Sequence[tuple[Origin, Mapping[str, str]]],
) -> tuple[Parameter, ...]:
    """Take each parameter from the first layer that has it, check kind and range, and sort by name.

    layers run from strongest to weakest. An unknown name in any layer refuses: a typing error must not pass as a
    default. Raises GovrunError (request-invalid).
    """
    known = {spec.name: spec for spec in specs}
    for origin, values in layers:
        for name in sorted(values):
            if name not in known:
                raise _invalid(
                    "parameter.unknown",
                    f"parameter {name!r} ({origin}) is not one of this backend's",
                    name,
                    ", ".join(sorted(known)) or "no parameters",
                )
    return tuple(_resolve(known[name], layers) for name in sorted(known))


def _resolve(spec: ParameterSpec, layers: Sequence[tuple[Origin, Mapping[str, str]]]) -> Parameter:
    for origin, values in layers:
        if spec.name not in values:
            continue
        if not spec.settable:
            raise _invalid(
                f"parameter.{spec.name}",
                f"parameter {spec.name!r} cannot be set with this launcher",
                values[spec.name],
                "leave it out; the receipt says engineDefault",
            )
        return Parameter(spec.name, check_value(spec, values[spec.name]), origin)
    if spec.default is not None and spec.settable:
        return Parameter(spec.name, check_value(spec, spec.default), "default")
    return Parameter(spec.name, None, "engineDefault")


def check_value(spec: ParameterSpec, text: str) -> str:
    """Return the one spelling of a parameter's value, or raise GovrunError (request-invalid) saying the range."""
    rule = f"parameter.{spec.name}"
    if spec.kind == "choice":
        if text not in spec.choices:
            raise _invalid(rule, f"parameter {spec.name!r} is not one of the choices", text, ", ".join(spec.choices))
        return text
    pattern, expected = (_INTEGER, "an integer") if spec.kind == "integer" else (_DECIMAL, "a decimal such as 0.7")
    if pattern.fullmatch(text) is None:
        raise _invalid(rule, f"parameter {spec.name!r} is malformed", repr(text[:64]), expected)
    if not _in_range(Decimal(text), spec):
        bounds = f"{spec.minimum or '-inf'} to {spec.maximum or 'inf'}"
        raise _invalid(rule, f"parameter {spec.name!r} is out of range", text, bounds)
    return text if spec.kind == "integer" else plain_decimal(text)


def _in_range(value: Decimal, spec: ParameterSpec) -> bool:
    return (spec.minimum is None or Decimal(spec.minimum) <= value) and (
        spec.maximum is None or value <= Decimal(spec.maximum)
    )


def plain_decimal(text: str) -> str:
    """The shortest plain spelling of a decimal: `0.70` is `0.7`, `1.0` is `1`, `-0` is `0`.

    ValueError for anything but ASCII digits with perhaps a sign before and a point between.
    """
    if _PLAIN.fullmatch(text) is None:
        raise ValueError(text)
    plain = format(Decimal(text), "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain == "-0" else plain


def name_or_none(name: str | None) -> str | None:
    """The name of a backend or task when it is well-formed, for a receipt about a request that was refused."""
    return name if name is not None and _NAME.fullmatch(name) else None


def agent_or_none(agent: str | None) -> str | None:
    """The agent's name when it is well-formed, for a receipt about a request that was refused."""
    return agent if agent is not None and _AGENT.fullmatch(agent) else None


def is_recordable(request: Request) -> bool:
    """Whether a refused request can still be written down: a well-formed id, and words that are Unicode text."""
    words = (*request.argv, *request.inputs, *request.outputs, request.cwd, request.backend)
    words += tuple(text for pair in request.parameters for text in pair)
    return (request.request_id is None or _REQUEST_ID.fullmatch(request.request_id) is not None) and not any(
        "\ud800" <= character <= "\udfff" for word in words for character in word
    )


def is_rule(text: object) -> bool:
    """Whether a text can stand in a receipt as a rule or an error code: dotted words, at most 128 bytes."""
    return isinstance(text, str) and len(text) <= 128 and _RULE.fullmatch(text) is not None
