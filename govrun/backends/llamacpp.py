"""The `llamacpp` backend: one completion by the llama.cpp of the `xllamacpp` wheel, in a child process.

What the child does, and what its report on stderr means, is told in `engines/llamacpp_runner.py`.
"""

from __future__ import annotations

import functools
import json
import os
import site
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

from govrun.backends.files import (
    explicit_path,
    not_writable_by_others,
    program_file,
    readable_file,
    refusal,
)
from govrun.backends.gguf import Header, read_header
from govrun.backends.interface import (
    INTERFACE_VERSION,
    Captured,
    Check,
    CommandPlan,
    Dependency,
    Determinism,
    Facts,
    FinishReason,
    Inquiry,
)
from govrun.engines.llamacpp_runner import EXIT_CODES, REPORT_PREFIX
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.request import MAX_PROMPT_BYTES, ParameterSpec, SettingSpec
from govrun.template import Argument, Hole, Template, Word

PROMPT_DESCRIPTOR: Final = 64
MAX_REPORT_BYTES: Final = 4096
BITNET_CPP_ARCHITECTURE: Final = "bitnet-b1.58"
BITNET_CPP_TYPE: Final = 36  # I2_S
INSTALL: Final = "pip install 'govrun[llamacpp]'"
SET_MODEL: Final = "set LLAMACPP_MODEL_GGUF to the absolute path of a GGUF file"

# Nothing else reaches the engine: LLAMA_ARG_* and GGML_* variables would change its answer silently.
ENVIRONMENT: Final = (("LANG", "C.UTF-8"), ("PATH", "/usr/local/bin:/usr/bin:/bin"))

# (the runner's option, parameter); the order is the order in argv. A setting is spelled like the option.
_PARAMETERS: Final = (
    ("--ctx", ParameterSpec("context", "integer", "context in tokens, prompt and answer", "2048", "8", "1048576")),
    ("--batch", ParameterSpec("batch", "integer", "tokens evaluated at once; changes the text", "512", "1", "8192")),
    # threads has no default here: it depends on the machine.
    ("--threads", ParameterSpec("threads", "integer", "CPU threads", None, "1", "512")),
    ("--n-predict", ParameterSpec("maxTokens", "integer", "most tokens of an answer", "128", "1", "1048576")),
    ("--temp", ParameterSpec("temperature", "decimal", "0 takes the likeliest token each time", "0", "0", "2")),
    ("--top-k", ParameterSpec("topK", "integer", "most tokens to choose from; 0 is all", "40", "0", "1000000")),
    ("--top-p", ParameterSpec("topP", "decimal", "probability mass to choose from", "0.95", "0", "1")),
    ("--min-p", ParameterSpec("minP", "decimal", "least probability relative to the best token", "0.05", "0", "1")),
    ("--repeat-penalty", ParameterSpec("repeatPenalty", "decimal", "1 is none", "1", "0.1", "10")),
    ("--repeat-last-n", ParameterSpec("repeatLastN", "integer", "tokens the penalty looks back", "64", "0", "2048")),
    # 4294967295 means a random seed to the engine.
    ("--seed", ParameterSpec("seed", "integer", "seed of the sampler", "0", "0", "4294967294")),
)


@frozen
class LlamaCpp:
    """The backend; its fields are what it knows of the machine.

    interpreter: the Python that runs the child. packages: where `python -I` finds installed packages, in order.
    runner: the program. cores: how many CPUs this process may use.
    """

    interpreter: Path
    packages: tuple[Path, ...]
    runner: Path
    cores: int
    name: str = "llamacpp"
    interface: int = INTERFACE_VERSION

    def settings(self) -> Sequence[SettingSpec]:
        model = SettingSpec("LLAMACPP_MODEL_GGUF", "path", "the model, a GGUF file", required=True)
        rest = (SettingSpec(_setting(option), spec.kind, f"parameter {spec.name}") for option, spec in _PARAMETERS)
        return (model, *rest)

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:  # noqa: ARG002 - one launcher only
        # More threads than cores make the engine wait for itself; more than four rarely help a small model.
        threads = str(min(4, self.cores))
        return tuple(
            evolve(spec, default=spec.default or threads, setting=_setting(option)) for option, spec in _PARAMETERS
        )

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        def check(name: str, what: str, run: Callable[[Inquiry], bool], *needs: str) -> Check:
            return Check(
                f"llamacpp.{name}", what, lambda: run(inquiry), needs=tuple(f"llamacpp.{need}" for need in needs)
            )

        header = functools.cache(lambda: read_header(_model_path(inquiry)))
        readable, headed = ("llamacpp.model.readable",), ("llamacpp.model.header",)
        return (
            check("interpreter", "the Python interpreter is named outright and executable", self._interpreter),
            check("runner", "the runner is there", self._runner),
            check("engine", "xllamacpp is installed where the interpreter finds it", self._engine),
            check("engine.pin", "the engine's files have the pinned digests", self._engine_pin, "engine"),
            check("model", "the model is named outright", _model_named),
            check("model.readable", "the model is a regular file that can be read", _model_readable, "model"),
            check("model.private", "the model is not writable by others", _model_private, "model.readable"),
            check("model.pin", "the model has the pinned digest", _model_pin, "model.readable"),
            Check("llamacpp.model.header", "the model is a GGUF file", lambda: bool(header()), readable),
            Check("llamacpp.model.kind", "this engine runs such models", lambda: _model_kind(header()), headed),
            Check(
                "llamacpp.model.context",
                "the model was made for so long a context",
                lambda: _model_context(header(), inquiry),
                headed,
            ),
            check("context", "the context leaves room for an answer", _context),
            check("threads", "there are as many cores as threads", self._threads),
            check("request", "the request has a prompt and nothing this backend would ignore", _request),
            check("prompt", "the prompt is UTF-8 and not too large", _prompt, "request"),
        )

    # Interpreter, runner and wheel are the installation that govrun itself runs from: whoever can change them has
    # changed govrun already. They are hashed, not judged by their mode.

    def _interpreter(self, _inquiry: Inquiry) -> bool:
        fix = "run govrun with an installed Python"
        explicit_path("llamacpp.interpreter", "the Python interpreter", str(self.interpreter), fix)
        program_file("llamacpp.interpreter", "the Python interpreter", self.interpreter, fix)
        return True

    def _runner(self, _inquiry: Inquiry) -> bool:
        readable_file("llamacpp.runner", self.runner.name, self.runner, "install govrun again")
        return True

    def _engine(self, _inquiry: Inquiry) -> bool:
        if not any(".so" in path.suffixes for path in self._engine_files()):
            raise refusal("llamacpp.engine", "xllamacpp is not installed", "no xllamacpp", "the wheel", INSTALL)
        return True

    def _engine_files(self) -> tuple[Path, ...]:
        """The files of the wheel that the child loads, and its RECORD, sorted; none when it is not installed.

        Looked up as files, because importing it would load a hundred megabytes into govrun itself.
        """
        for folder in self.packages:
            if (folder / "xllamacpp" / "__init__.py").is_file():
                patterns = ("xllamacpp/*.py", "xllamacpp/*.so", "xllamacpp.libs/*.so*", "xllamacpp-*.dist-info/RECORD")
                return tuple(sorted(path for pattern in patterns for path in folder.glob(pattern)))
        return ()

    def _engine_pin(self, inquiry: Inquiry) -> bool:
        pinned = [path for path in self._engine_files() if path.name in inquiry.pins]
        for path in pinned:
            _demand_digest("llamacpp.engine.pin", path, inquiry.pins[path.name], inquiry)
        return bool(pinned)

    def _threads(self, inquiry: Inquiry) -> bool:
        threads = int(_value(inquiry, "threads"))
        if threads > self.cores:
            raise refusal(
                "llamacpp.threads",
                "more threads than cores",
                f"{threads} threads",
                f"at most {self.cores}",
                "set the parameter threads, or LLAMACPP_THREADS",
            )
        return True

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        model = _model_path(inquiry)
        numbers: list[Argument] = []
        for option, spec in _PARAMETERS:
            numbers += [Word(option), Hole("number", spec.name, _value(inquiry, spec.name))]
        arguments: list[Argument] = [
            Hole("path", "interpreter", str(self.interpreter)),
            Word("-I"),
            Word("-B"),
            Hole("path", "runner", str(self.runner)),
            Word("--model"),
            Hole("path", "model", str(model)),
            Word("--prompt-descriptor"),
            Word(str(PROMPT_DESCRIPTOR)),
            *numbers,
        ]
        temperature = _value(inquiry, "temperature")
        return CommandPlan(
            template=Template("llamacpp.runner", tuple(arguments)),
            cwd=Path("/"),
            environment=ENVIRONMENT,
            dependencies=(
                Dependency("interpreter", self.interpreter),
                Dependency("script", self.runner),
                *(Dependency(_role(path), path) for path in self._engine_files()),
                Dependency("model", model),
            ),
            determinism=Determinism(
                "deterministic" if temperature == "0" else "seeded",
                seed=int(_value(inquiry, "seed")),
                temperature=temperature,
                batch=int(_value(inquiry, "batch")),
                threads=int(_value(inquiry, "threads")),
            ),
            descriptors=((PROMPT_DESCRIPTOR, inquiry.request.prompt or b""),),
        )

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:
        if captured.stdout.truncated or captured.stderr.truncated:
            raise _unparsable("llamacpp.truncated", "the output was cut off", "cut off", "all of it")
        report = _report(captured.stderr.data)
        if "error" in report:
            raise _failed(report["error"])
        prompt, generated, size = (report.get(key) for key in ("promptTokens", "generatedTokens", "textBytes"))
        if not (_is_count(prompt) and _is_count(generated) and _is_count(size)):
            raise _unparsable("llamacpp.counts", "the report lacks a count", "no count", "prompt, generated, bytes")
        if size != len(captured.stdout.data):
            raise _unparsable(
                "llamacpp.textSize",
                "the answer is not the one that was reported",
                f"{len(captured.stdout.data)} bytes",
                f"{size} bytes",
            )
        reason = report.get("finishReason")
        if not _is_terminal(reason):
            raise _unparsable("llamacpp.finishReason", "the answer did not end", "no finish reason", "stop or length")
        return Facts(captured.stdout.data, prompt, generated, reason, plan.determinism.seed)

    def explain(self, captured: Captured) -> str:
        by_code = {number: code for code, number in EXIT_CODES.items()}
        return by_code.get(captured.exit_code or 0, "llamacpp.crashed")


def _setting(option: str) -> str:
    return f"LLAMACPP_{option.removeprefix('--').replace('-', '_').upper()}"


def _value(inquiry: Inquiry, name: str) -> str:
    value = inquiry.parameter(name)
    if value is None:
        raise GovrunError(
            ExitCode.TEMPLATE_REFUSED,
            f"llamacpp.{name}",
            f"parameter {name!r} has no value",
            found="nothing",
            expected="a number",
        )
    return value


def _role(path: Path) -> Any:
    if ".so" in path.suffixes:
        return "library"
    return "script" if path.suffix == ".py" else "data"


def _model_path(inquiry: Inquiry) -> Path:
    return explicit_path(
        "llamacpp.model", "LLAMACPP_MODEL_GGUF", inquiry.settings.get("LLAMACPP_MODEL_GGUF", ""), SET_MODEL
    )


def _model_named(inquiry: Inquiry) -> bool:
    _model_path(inquiry)
    return True


def _model_readable(inquiry: Inquiry) -> bool:
    readable_file("llamacpp.model.readable", "the model", _model_path(inquiry), SET_MODEL)
    return True


def _model_private(inquiry: Inquiry) -> bool:
    not_writable_by_others("llamacpp.model.private", "the model", _model_path(inquiry))
    return True


def _model_pin(inquiry: Inquiry) -> bool:
    model = _model_path(inquiry)
    pins = [inquiry.pins[key] for key in ("model", model.name) if key in inquiry.pins]
    for pin in pins:
        _demand_digest("llamacpp.model.pin", model, pin, inquiry)
    return bool(pins)


def _model_kind(header: Header) -> bool:
    """Refuse what only the fork of bitnet.cpp reads: mainline llama.cpp says nothing but that it failed."""
    architecture = header.value("general.architecture")
    foreign = architecture == BITNET_CPP_ARCHITECTURE or any(t.type == BITNET_CPP_TYPE for t in header.tensors)
    if foreign or not isinstance(architecture, str) or not header.tensors:
        raise refusal(
            "llamacpp.model.kind",
            "the model is not one that llama.cpp runs",
            "a model for bitnet.cpp" if foreign else "no architecture or no tensors",
            "a model in a mainline format, such as TQ2_0",
            "use the backend bitnet" if foreign else SET_MODEL,
        )
    return True


def _model_context(header: Header, inquiry: Inquiry) -> bool:
    """Refuse a context beyond the one the model was trained with, which the engine would cut without saying so."""
    trained = header.value(f"{header.value('general.architecture')}.context_length")
    if type(trained) is not int:
        return False
    context = int(_value(inquiry, "context"))
    if context > trained:
        raise refusal(
            "llamacpp.model.context",
            "the context is longer than the model's",
            f"context {context}",
            f"at most {trained}",
            "lower the parameter context, or LLAMACPP_CTX",
        )
    return True


def _demand_digest(rule: str, path: Path, pin: str, inquiry: Inquiry) -> None:
    found = inquiry.digest(path).sha256
    if found != pin:
        raise refusal(
            rule,
            f"{path.name} is not the pinned file",
            f"sha256 {found}",
            f"sha256 {pin}",
            "put the pinned file back, or have the policy pin this one",
        )


def _context(inquiry: Inquiry) -> bool:
    context, answer = int(_value(inquiry, "context")), int(_value(inquiry, "maxTokens"))
    if answer >= context:
        raise refusal(
            "llamacpp.context",
            "the answer would fill the context",
            f"maxTokens {answer}",
            f"less than context {context}",
            "lower the parameter maxTokens or raise context",
        )
    return True


def _request(inquiry: Inquiry) -> bool:
    request = inquiry.request
    if request.argv:
        raise refusal("llamacpp.request", "this backend takes no words after --", "words", "a prompt", "use --prompt")
    if request.outputs:
        raise refusal("llamacpp.request", "this backend writes no files", "outputs", "none", "leave --output out")
    if not request.prompt:
        raise refusal("llamacpp.request", "there is no prompt", "nothing", "a prompt", "use --prompt or --prompt-file")
    return True


def _prompt(inquiry: Inquiry) -> bool:
    prompt = inquiry.request.prompt or b""
    if len(prompt) > MAX_PROMPT_BYTES:
        raise refusal(
            "llamacpp.prompt", "the prompt is too large", f"{len(prompt)} bytes", f"at most {MAX_PROMPT_BYTES} bytes"
        )
    try:
        prompt.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal("llamacpp.prompt", "the prompt is not UTF-8", f"a bad byte at {error.start}", "UTF-8") from error
    return True


def _report(stderr: bytes) -> dict[str, Any]:
    """The runner's report: the one line of stderr that has its prefix, whole, and an object."""
    prefix = REPORT_PREFIX.encode("ascii")
    lines = [line for line in stderr.split(b"\n")[:-1] if line.startswith(prefix)]
    if len(lines) != 1 or len(lines[0]) > MAX_REPORT_BYTES:
        raise _unparsable("llamacpp.report", "the runner's report is not there", f"{len(lines)} reports", "one report")
    try:
        report = json.loads(lines[0][len(prefix) :])
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        raise _unparsable("llamacpp.report", "the runner's report cannot be read", "no JSON object", "a JSON object")
    return report


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 53


def _is_terminal(value: object) -> TypeGuard[FinishReason]:
    return value in ("stop", "length")


def _unparsable(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.OUTPUT_UNPARSABLE, rule, what, found=found, expected=expected)


def _failed(code: object) -> GovrunError:
    known = isinstance(code, str) and code in EXIT_CODES
    rule = str(code) if known else "llamacpp.report"
    return GovrunError(
        ExitCode.COMMAND_FAILED, rule, "the runner failed with exit code 0", found="an error", expected="an answer"
    )


BACKEND: Final = LlamaCpp(
    interpreter=Path(sys.executable or "python"),
    # With `-I` neither PYTHONPATH nor the user's own packages count, so they must not count here.
    packages=tuple(Path(folder) for folder in site.getsitepackages()),
    runner=Path(__file__).resolve().parent.parent / "engines" / "llamacpp_runner.py",
    cores=len(os.sched_getaffinity(0)),
)
