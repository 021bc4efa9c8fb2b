"""The commands of the backend bitnet: what they are, and that no value can become anything but itself."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun.backends.bitnet import BACKEND
from govrun.backends.bitnet_request import escape, unescape
from govrun.backends.interface import Captured, CommandPlan, Determinism, Inquiry
from govrun.errors import ExitCode, GovrunError
from govrun.template import redacted, render
from govrun.testing import BackendConformance, make_captured
from tests.backends.bitnet_world import RUNS, make_inquiry, make_settings

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_settings(tmp_path_factory.mktemp("world"), BITNET_PYTHON=PYTHON)


def direct(world: dict[str, str]) -> dict[str, str]:
    return {**world, "BITNET_LAUNCHER": "llama-cli"}


def engine_escapes(text: str) -> str:
    """What llama-cli makes of a prompt on its command line, by its own rules, written out once more."""
    known = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}

    def rewrite(found: re.Match[str]) -> str:
        if found[1][0] == "x":
            return chr(int(found[1][1:], 16)) if len(found[1]) == 3 else found[0]
        return known.get(found[1], found[0])

    return re.sub(r"\\(x[0-9A-Fa-f]{2}|.)", rewrite, text, flags=re.DOTALL)


def test_the_wrapped_command_is_fixed(world: dict[str, str]) -> None:
    plan = BACKEND.plan(make_inquiry(world, b"C:\\new", maxTokens="24", threads="1", temperature="0.70"))
    root = world["BITNET_CPP_DIR"]
    assert render(plan.template) == (
        PYTHON,
        f"{root}/run_inference.py",
        "-m",
        world["BITNET_MODEL_GGUF"],
        *("-n", "24", "-t", "1", "-c", "2048", "-temp", "0.7"),
        "--prompt=C:\\\\new",
    )
    assert plan.cwd == Path(root)
    assert plan.descriptors == ()
    assert redacted(plan.template)[3:] == ("<model.gguf>", *render(plan.template)[4:12], "--prompt={prompt}")


def test_the_direct_command_is_fixed(world: dict[str, str]) -> None:
    plan = BACKEND.plan(make_inquiry(direct(world), b"C:\\new\n", maxTokens="24", threads="1"))
    assert render(plan.template) == (
        f"{world['BITNET_CPP_DIR']}/build/bin/llama-cli",
        *("-m", world["BITNET_MODEL_GGUF"], "-f", "/dev/fd/64"),
        *("-n", "24", "-t", "1", "-tb", "1", "-c", "2048", "-b", "1", "--temp", "0", "-s", "0"),
        *("--top-k", "40", "--top-p", "0.95", "--min-p", "0.05", "--repeat-penalty", "1", "--repeat-last-n", "64"),
        *("--samplers", "top_k;tfs_z;typ_p;top_p;min_p;temperature", "--tfs", "1", "--typical", "1"),
        *("--presence-penalty", "0", "--frequency-penalty", "0", "--dynatemp-range", "0", "--mirostat", "0"),
        *("--ubatch-size", "512", "--keep", "0", "-ngl", "0"),
        *("--no-display-prompt", "--no-escape", "--no-context-shift", "--simple-io"),
    )
    # The engine strips one newline; the prompt's own stays.
    assert plan.descriptors == ((64, b"C:\\new\n\n"),)


def test_the_environment_is_fixed_and_names_nothing_of_the_engine_s(world: dict[str, str]) -> None:
    os.environ["LLAMA_ARG_MODEL_URL"] = "http://example.invalid"
    try:
        wrapped, bare = BACKEND.plan(make_inquiry(world)), BACKEND.plan(make_inquiry(direct(world)))
    finally:
        del os.environ["LLAMA_ARG_MODEL_URL"]
    assert bare.environment == (("HF_HUB_OFFLINE", "1"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8"))
    assert wrapped.environment == (
        *bare.environment,
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONNOUSERSITE", "1"),
        ("PYTHONSAFEPATH", "1"),
        ("PYTHONUTF8", "1"),
    )


def test_every_file_that_a_run_reads_is_a_dependency(world: dict[str, str]) -> None:
    def roles(plan: CommandPlan) -> set[tuple[str, str]]:
        return {(dependency.role, dependency.path.name) for dependency in plan.dependencies}

    wrapped, bare = BACKEND.plan(make_inquiry(world)), BACKEND.plan(make_inquiry(direct(world)))
    assert roles(bare) == {("model", "model.gguf"), ("binary", "llama-cli")}
    assert roles(wrapped) - roles(bare) == {("script", "run_inference.py"), ("interpreter", Path(PYTHON).name)}
    paths = [str(dependency.path) for dependency in wrapped.dependencies]
    assert paths == sorted(paths)


def test_without_a_setting_the_interpreter_is_the_program_that_runs_govrun(world: dict[str, str]) -> None:
    unset = {name: value for name, value in world.items() if name != "BITNET_PYTHON"}
    assert render(BACKEND.plan(make_inquiry(unset)).template)[0] == PYTHON


@pytest.mark.parametrize(
    ("launcher", "parameters", "expected"),
    [
        ("run-inference", {}, Determinism("deterministic", None, "0", 1, 1)),
        ("run-inference", {"temperature": "0.8"}, Determinism("notReproducible", None, "0.8", 1, 1)),
        ("llama-cli", {}, Determinism("deterministic", 0, "0", 1, 1)),
        ("llama-cli", {"temperature": "0.0"}, Determinism("deterministic", 0, "0", 1, 1)),
        ("llama-cli", {"temperature": "0.8", "seed": "7", "batch": "8"}, Determinism("seeded", 7, "0.8", 8, 1)),
    ],
)
def test_the_plan_says_how_far_it_can_be_repeated(
    world: dict[str, str], launcher: str, parameters: dict[str, str], expected: Determinism
) -> None:
    inquiry = make_inquiry({**world, "BITNET_LAUNCHER": launcher}, threads="1", **parameters)
    assert expected == BACKEND.plan(inquiry).determinism


def test_a_script_that_passes_no_batch_leaves_it_to_the_engine(tmp_path: Path) -> None:
    there = make_settings(tmp_path)
    script = Path(there["BITNET_CPP_DIR"], "run_inference.py")
    assert BACKEND.plan(make_inquiry(there)).determinism.batch == 1
    script.write_text(script.read_text().replace('"-b", "1"', ""))
    assert BACKEND.plan(make_inquiry(there)).determinism.batch is None


def test_what_the_script_cannot_set_is_the_engine_s_default_or_refused(world: dict[str, str]) -> None:
    resolved = {parameter.name: parameter for parameter in make_inquiry(world).parameters}
    for name in ("batch", "minP", "repeatLastN", "repeatPenalty", "seed", "topK", "topP"):
        assert (resolved[name].value, resolved[name].origin) == (None, "engineDefault")
        with pytest.raises(GovrunError, match="cannot be set with this launcher"):
            make_inquiry(world, **{name: "1"})
    assert all(parameter.value is not None for parameter in make_inquiry(direct(world)).parameters)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("maxTokens", "0"), ("maxTokens", "-1"), ("temperature", "-0.1"), ("temperature", "2.1"), ("threads", "0")),
        *(("context", "15"), ("seed", "-1"), ("seed", "4294967295"), ("topP", "1.1"), ("batch", "0")),
        ("conversation", "1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(world: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(GovrunError) as refusal:
        make_inquiry(direct(world), **{name: value})
    assert refusal.value.code == ExitCode.REQUEST_INVALID


def test_a_prompt_that_is_not_utf8_makes_no_command(world: dict[str, str]) -> None:
    with pytest.raises(GovrunError) as refusal:
        BACKEND.plan(make_inquiry(world, b"\xff"))
    assert refusal.value.code == ExitCode.TEMPLATE_REFUSED


PROMPTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200) | (
    st.text("\\nrtx'\"0aA -=\n\r", min_size=1, max_size=60)
)


@given(PROMPTS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_prompt_never_leaves_its_element_nor_changes_another(world: dict[str, str], prompt: str) -> None:
    argv = render(BACKEND.plan(make_inquiry(world, prompt.encode())).template)
    plain = render(BACKEND.plan(make_inquiry(world, b"x")).template)
    assert argv[:-1] == plain[:-1]
    assert argv[-1].startswith("--prompt=")
    assert prompt == engine_escapes(argv[-1].removeprefix("--prompt="))
    plan = BACKEND.plan(make_inquiry(direct(world), prompt.encode()))
    assert render(plan.template) == render(BACKEND.plan(make_inquiry(direct(world), b"x")).template)
    assert plan.descriptors[0][1] == prompt.encode() + b"\n"


@given(st.text("\\nrtx'\"0aA", max_size=30))
@settings(max_examples=300)
def test_escapes_are_undone(text: str) -> None:
    assert text == unescape(escape(text)) == engine_escapes(escape(text))


def test_the_captured_rewriting_is_what_the_escapes_undo() -> None:
    # argv carried a\nb\tc\\d \x41 and C:\new\table; this is what the engine made of it.
    shown = (RUNS / "prompt_literal_backslash_n.stdout").read_bytes().decode("latin-1")
    assert shown.startswith(engine_escapes("a\\nb\\tc\\\\d \\x41 "))
    assert engine_escapes("C:\\new\\table") == "C:\new\table"
    assert "C:\new\table" in shown


class Conformance(BackendConformance):
    launcher = ""

    def backend(self) -> object:
        return BACKEND

    def inquiry(self, directory: Path) -> Inquiry:
        return make_inquiry(make_settings(directory, BITNET_LAUNCHER=self.launcher), b"Hello zqxprompt")


def recorded_end() -> bytes:
    """The end of a captured stderr, as it would be for 128 tokens."""
    stderr = (RUNS / "ok_temp0.stderr").read_bytes().replace(b" 37 runs", b"141 runs").replace(b" 23 runs", b"127 runs")
    return stderr[stderr.index(b"sampler seed:") :]


class TestRunInferenceConforms(Conformance):
    launcher = "run-inference"

    def captured(self) -> Captured:
        return make_captured(b"Hello zqxprompt and more\n\n", recorded_end())


class TestLlamaCliConforms(Conformance):
    launcher = "llama-cli"

    def captured(self) -> Captured:
        return make_captured(b" and more\n\n", recorded_end())
