"""The backend `bitnet`: bitnet.cpp, through its run_inference.py or its llama-cli.

Two launchers, chosen by BITNET_LAUNCHER. `run-inference` is the project's own script; it cannot set a seed, samplers or
batch, and the prompt stands on the command line, where every process of the machine may read it. `llama-cli` sets
everything, and reads the prompt from a descriptor. Both run in BITNET_CPP_DIR with a fixed environment: variables such
as LLAMA_ARG_MODEL_URL would otherwise change what runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from govrun.backends.bitnet_checks import all_checks
from govrun.backends.bitnet_output import Asked, explain, read_output
from govrun.backends.bitnet_request import PROMPT_FLAG, escape, unescape
from govrun.backends.bitnet_site import SETTINGS, Site, site_of
from govrun.backends.bitnet_tree import find_libraries, script_batch
from govrun.backends.interface import (
    INTERFACE_VERSION,
    Captured,
    Check,
    CommandPlan,
    Dependency,
    Determinism,
    Facts,
    Inquiry,
)
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.request import ParameterSpec, SettingSpec
from govrun.template import Argument, Hole, Template, Word

PROMPT_DESCRIPTOR: Final = 64

# What both launchers can set, and what only llama-cli can.
_COMMON: Final = (
    ParameterSpec("context", "integer", "context in tokens", "2048", "16", "1048576", setting="BITNET_CTX"),
    ParameterSpec("maxTokens", "integer", "most tokens of an answer", "128", "1", "65536", setting="BITNET_N_PREDICT"),
    ParameterSpec("temperature", "decimal", "0 is greedy and reproducible", "0", "0", "2", setting="BITNET_TEMP"),
)
_SAMPLING: Final = (
    # 1 is what run_inference.py passes, and all that the lookup-table kernels support.
    ParameterSpec("batch", "integer", "prompt tokens evaluated at a time; changes the text", "1", "1", "2048"),
    ParameterSpec("minP", "decimal", "least probability relative to the best token", "0.05", "0", "1"),
    ParameterSpec("repeatLastN", "integer", "tokens that the repeat penalty looks back", "64", "0", "2048"),
    ParameterSpec("repeatPenalty", "decimal", "1 is none", "1", "0.1", "10"),
    ParameterSpec("seed", "integer", "seed of the sampler", "0", "0", "4294967294", setting="BITNET_SEED"),
    ParameterSpec("topK", "integer", "most tokens to choose from; 0 is all", "40", "0", "1000000"),
    ParameterSpec("topP", "decimal", "probability mass to choose from", "0.95", "0", "1"),
)

_ENVIRONMENT: Final = (("HF_HUB_OFFLINE", "1"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8"))
# PYTHONSAFEPATH: a planted subprocess.py beside the script is not imported.
_PYTHON_ENVIRONMENT: Final = (
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONNOUSERSITE", "1"),
    ("PYTHONSAFEPATH", "1"),
    ("PYTHONUTF8", "1"),
)

# Samplers that are no parameters, each set to do nothing; then what makes the output and its end plain.
_FIXED: Final = (
    *("--samplers", "top_k;tfs_z;typ_p;top_p;min_p;temperature", "--tfs", "1", "--typical", "1"),
    *("--presence-penalty", "0", "--frequency-penalty", "0", "--dynatemp-range", "0", "--mirostat", "0"),
    *("--ubatch-size", "512", "--keep", "0", "-ngl", "0"),
    *("--no-display-prompt", "--no-escape", "--no-context-shift", "--simple-io"),
)
_FLAGS: Final = (
    *(("-n", "maxTokens"), ("-t", "threads"), ("-tb", "threads"), ("-c", "context"), ("-b", "batch")),
    *(("--temp", "temperature"), ("-s", "seed"), ("--top-k", "topK"), ("--top-p", "topP"), ("--min-p", "minP")),
    *(("--repeat-penalty", "repeatPenalty"), ("--repeat-last-n", "repeatLastN")),
)


@frozen
class BitnetBackend:
    """bitnet.cpp behind interface version 1; see `interface.Backend` for what each method promises."""

    name: str = "bitnet"
    interface: int = INTERFACE_VERSION

    def settings(self) -> Sequence[SettingSpec]:
        return SETTINGS

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:
        direct = not site_of(settings).wrapped
        sampling = _SAMPLING if direct else (evolve(spec, settable=False, default=None) for spec in _SAMPLING)
        # Two threads where there are two processors, as run_inference.py has it; the text does not depend on it.
        processors = len(os.sched_getaffinity(0))
        threads = ParameterSpec(
            "threads", "integer", "threads", str(min(2, processors)), "1", "1024", setting="BITNET_THREADS"
        )
        return (*_COMMON, threads, *sampling)

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        site = site_of(inquiry.settings)
        return all_checks(site, inquiry, lambda: _dependencies(site))

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        site, prompt = site_of(inquiry.settings), _prompt(inquiry)
        if not site.wrapped:
            # -f strips one newline from the end of what it reads.
            return CommandPlan(
                template=_direct(site, inquiry),
                cwd=Path(site.root),
                environment=_ENVIRONMENT,
                dependencies=_dependencies(site),
                determinism=_determinism(inquiry, _integer(inquiry, "batch")),
                descriptors=((PROMPT_DESCRIPTOR, prompt.encode() + b"\n"),),
            )
        return CommandPlan(
            template=_wrapped(site, inquiry, prompt),
            cwd=Path(site.root),
            environment=(*_ENVIRONMENT, *_PYTHON_ENVIRONMENT),
            dependencies=_dependencies(site),
            determinism=_determinism(inquiry, script_batch(site.script)),
        )

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:
        return read_output(_asked(plan), captured)

    def explain(self, captured: Captured) -> str:
        return explain(captured)


def _dependencies(site: Site) -> tuple[Dependency, ...]:
    found = [Dependency("model", Path(site.model)), Dependency("binary", site.binary)]
    found += [Dependency("library", path) for path in find_libraries(site.binary, Path(site.root))]
    if site.wrapped:
        found += [Dependency("script", site.script), Dependency("interpreter", Path(site.interpreter))]
    return tuple(sorted(found, key=lambda dependency: str(dependency.path)))


def _prompt(inquiry: Inquiry) -> str:
    try:
        return (inquiry.request.prompt or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise GovrunError(
            ExitCode.TEMPLATE_REFUSED, "bitnet.prompt.text", "the prompt is not UTF-8", expected="UTF-8"
        ) from error


def _wrapped(site: Site, inquiry: Inquiry, prompt: str) -> Template:
    return Template(
        "bitnet.run-inference",
        (
            Hole("path", "interpreter", site.interpreter),
            Hole("path", "script", str(site.script)),
            *_flag("-m", Hole("path", "model", site.model)),
            *_flag("-n", _parameter(inquiry, "maxTokens")),
            *_flag("-t", _parameter(inquiry, "threads")),
            *_flag("-c", _parameter(inquiry, "context")),
            *_flag("-temp", _parameter(inquiry, "temperature")),
            Hole("prompt", "prompt", escape(prompt), prefix=PROMPT_FLAG),
        ),
    )


def _direct(site: Site, inquiry: Inquiry) -> Template:
    flags = (argument for flag, name in _FLAGS for argument in _flag(flag, _parameter(inquiry, name)))
    return Template(
        "bitnet.llama-cli",
        (
            Hole("path", "binary", str(site.binary)),
            *_flag("-m", Hole("path", "model", site.model)),
            Word("-f"),
            Word(f"/dev/fd/{PROMPT_DESCRIPTOR}"),
            *flags,
            *(Word(word) for word in _FIXED),
        ),
    )


def _flag(flag: str, hole: Hole) -> tuple[Argument, Argument]:
    return Word(flag), hole


def _parameter(inquiry: Inquiry, name: str) -> Hole:
    value = inquiry.parameter(name)
    if value is None:
        raise GovrunError(
            ExitCode.TEMPLATE_REFUSED,
            "bitnet.parameter",
            f"{name} has no value",
            found="engineDefault",
            expected="a number",
        )
    return Hole("number", name, value)


def _integer(inquiry: Inquiry, name: str) -> int | None:
    value = inquiry.parameter(name)
    return None if value is None else int(value)


def _determinism(inquiry: Inquiry, batch: int | None) -> Determinism:
    temperature, seed = inquiry.parameter("temperature"), _integer(inquiry, "seed")
    level: Literal["deterministic", "seeded", "notReproducible"] = "notReproducible" if seed is None else "seeded"
    return Determinism(
        level="deterministic" if temperature == "0" else level,
        seed=seed,
        temperature=temperature,
        batch=batch,
        threads=_integer(inquiry, "threads"),
    )


def _asked(plan: CommandPlan) -> Asked:
    holes = {a.name: a.value for a in plan.template.arguments if isinstance(a, Hole)}
    if plan.descriptors:
        return Asked(plan.descriptors[0][1][:-1], echoed=False, max_tokens=int(holes["maxTokens"]))
    return Asked(unescape(holes["prompt"]).encode(), echoed=True, max_tokens=int(holes["maxTokens"]))


BACKEND: Final = BitnetBackend()
