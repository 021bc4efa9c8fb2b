"""Whole runs of real child processes, with a stand-in for the engine: each way in which a run can end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from govrun.backends.bitnet import BACKEND
from govrun.backends.interface import CommandPlan, Facts
from govrun.errors import GovrunError
from govrun.preflight import demand
from govrun.template import render
from tests.backends.bitnet_world import RUNS, finish, make_inquiry, make_settings, run, start
from tests.backends.test_bitnet_output import FAILED, SUCCEEDED

LAUNCHERS = ("run-inference", "llama-cli")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_settings(tmp_path_factory.mktemp("world"))


def plan_for(world: dict[str, str], launcher: str, prompt: bytes, **parameters: str) -> CommandPlan:
    inquiry = make_inquiry({**world, "BITNET_LAUNCHER": launcher}, prompt, **parameters)
    demand(BACKEND.checks(inquiry))
    return BACKEND.plan(inquiry)


def ask(world: dict[str, str], launcher: str, prompt: bytes, **parameters: str) -> Facts:
    plan = plan_for(world, launcher, prompt, **parameters)
    return BACKEND.parse(plan, run(plan))


def error_of(world: dict[str, str], launcher: str, prompt: bytes, **parameters: str) -> str:
    with pytest.raises(GovrunError) as refusal:
        ask(world, launcher, prompt, **parameters)
    return refusal.value.rule


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    "prompt",
    ["Hello", "-n 1 --help", "C:\\new\\table \\", "two\nlines\n", "\n", "h\u00e9 \U0001f642", "$(id) `id` ' \" ;"],
    ids=ascii,
)
def test_the_prompt_arrives_as_it_was_written(world: dict[str, str], launcher: str, prompt: str) -> None:
    data = prompt.encode()
    facts = ask(world, launcher, data, maxTokens="12")
    # One byte to a token, and the beginning of the sequence.
    assert (facts.prompt_tokens, facts.generated_tokens) == (1 + len(data), 12)
    assert facts == ask(world, "llama-cli", data, maxTokens="12")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_answer_that_ends_by_itself_is_a_stop(world: dict[str, str], launcher: str) -> None:
    facts = ask(world, launcher, b"stub:stop 5", maxTokens="12")
    assert (len(facts.text), facts.generated_tokens, facts.finish_reason) == (5, 6, "stop")


def test_a_prompt_of_any_size_reaches_llama_cli(world: dict[str, str]) -> None:
    size = 300_000
    plan = BACKEND.plan(make_inquiry({**world, "BITNET_LAUNCHER": "llama-cli"}, b"x" * size, context="1048576"))
    assert BACKEND.parse(plan, run(plan)).prompt_tokens == size + 1


def test_a_seed_changes_a_sampled_answer_only(world: dict[str, str]) -> None:
    def answer(seed: str, temperature: str) -> bytes:
        return ask(world, "llama-cli", b"Hello", maxTokens="12", seed=seed, temperature=temperature).text

    assert answer("1", "0.8") == answer("1", "0.8") != answer("2", "0.8")
    assert answer("1", "0") == answer("2", "0")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_child_finds_the_planned_environment_and_no_other(
    world: dict[str, str], launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_MODEL_URL", "http://example.invalid/x")
    plan = plan_for(world, launcher, b"stub:env")
    lines = BACKEND.parse(plan, run(plan)).text.decode().splitlines()
    assert lines == [f"{name}={value}" for name, value in plan.environment]


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (b"stub:abort", "bitnet.aborted"),
        (b"stub:segv", "bitnet.crashed"),
        (b"stub:kill", "bitnet.killed"),
        (b"stub:lost", "bitnet.outputIncomplete"),
        (b"word " * 1000, "bitnet.promptTooLong"),
    ],
    ids=["abort", "segv", "kill", "lost", "too long"],
)
def test_a_run_that_goes_wrong_is_explained(world: dict[str, str], launcher: str, wish: bytes, code: str) -> None:
    assert code == error_of(world, launcher, wish)


# Those whose cause the engine itself tells; the others are the launcher's.
TOLD = [name for name in FAILED if name.startswith(("corrupt_", "missing_", "model_"))]


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("name", TOLD)
def test_a_failure_that_a_real_engine_told_is_explained(world: dict[str, str], launcher: str, name: str) -> None:
    assert FAILED[name] == error_of(world, launcher, b"stub:replay " + name.encode())


@pytest.mark.parametrize("name", ["cli_direct", "cli_promptfile", "cli_b1_no_display"])
def test_an_answer_that_a_real_engine_gave_is_read(world: dict[str, str], name: str) -> None:
    expected = SUCCEEDED[name]
    facts = ask(world, "llama-cli", b"stub:replay " + name.encode(), maxTokens=str(expected.generated_tokens))
    assert expected == facts


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_model_that_goes_away_before_launch_is_explained(tmp_path: Path, launcher: str) -> None:
    plan = plan_for(make_settings(tmp_path), launcher, b"Hello")
    (tmp_path / "model.gguf").unlink()
    assert BACKEND.explain(run(plan)) == "bitnet.modelMissing"


@pytest.mark.parametrize("data", [b"", b"garbage"])
def test_a_model_that_is_overwritten_before_launch_is_explained(tmp_path: Path, data: bytes) -> None:
    plan = plan_for(make_settings(tmp_path), "run-inference", b"Hello")
    (tmp_path / "model.gguf").write_bytes(data)
    assert BACKEND.explain(run(plan)) == "bitnet.modelGarbage"


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_program_that_goes_away_before_launch_is_explained(tmp_path: Path, mode: int | None) -> None:
    plan = plan_for(make_settings(tmp_path), "run-inference", b"Hello")
    program = plan.cwd / "build" / "bin" / "llama-cli"
    if mode is None:
        program.unlink()
    else:
        program.chmod(mode)
    captured = run(plan)
    assert (captured.exit_code, BACKEND.explain(captured)) == (1, "bitnet.launcherTraceback")


def test_flags_that_no_plan_has_are_usage_errors(world: dict[str, str]) -> None:
    wrapped = render(BACKEND.plan(make_inquiry(world)).template)
    for words in (("--seed", "1"), ("-p", "-hello"), ("-n", "many")):
        child = subprocess.run([*wrapped, *words], cwd=world["BITNET_CPP_DIR"], env={}, capture_output=True)
        assert child.returncode == 2, words


@pytest.fixture
def sleeper(world: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the script whose engine has begun to answer and sleeps."""
    child = start(BACKEND.plan(make_inquiry(world, b"stub:sleep 60")))
    assert child.stdout is not None
    assert child.stdout.read(4) == b"stub"
    yield child
    # Only the script may have been ended; its group holds what it left behind.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        assert child.poll() is not None


def test_a_script_that_is_terminated_alone_leaves_the_engine_behind(sleeper: subprocess.Popen[bytes]) -> None:
    os.kill(sleeper.pid, signal.SIGTERM)
    assert sleeper.wait(30) == -signal.SIGTERM
    os.killpg(sleeper.pid, 0)  # the engine still runs: whoever ends a run must end the group
    assert sleeper.stdout is not None
    assert sleeper.stderr is not None
    os.killpg(sleeper.pid, signal.SIGKILL)
    sleeper.stdout.close()
    sleeper.stderr.close()


def test_a_group_that_is_terminated_leaves_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    os.killpg(sleeper.pid, signal.SIGTERM)
    captured = finish(sleeper)
    assert (captured.signal, BACKEND.explain(captured)) == (signal.SIGTERM, "bitnet.killed")
    gone = time.monotonic() + 10
    while time.monotonic() < gone:
        try:
            os.killpg(sleeper.pid, 0)
        except ProcessLookupError:
            break
    with pytest.raises(ProcessLookupError):
        os.killpg(sleeper.pid, 0)


def test_a_group_that_is_interrupted_ends_with_exit_code_0_and_is_a_failure(
    world: dict[str, str], sleeper: subprocess.Popen[bytes]
) -> None:
    os.killpg(sleeper.pid, signal.SIGINT)
    captured = finish(sleeper)
    assert captured.exit_code == 0
    with pytest.raises(GovrunError) as refusal:
        BACKEND.parse(BACKEND.plan(make_inquiry(world, b"stub:sleep 60")), captured)
    assert refusal.value.rule == "bitnet.interrupted"


def test_an_interrupted_engine_without_the_script_exits_with_130(world: dict[str, str]) -> None:
    child = start(BACKEND.plan(make_inquiry({**world, "BITNET_LAUNCHER": "llama-cli"}, b"stub:sleep 60")))
    assert child.stderr is not None
    assert child.stderr.readline() == b"main: llama backend init\n"
    os.kill(child.pid, signal.SIGINT)
    captured = finish(child)
    assert (captured.exit_code, BACKEND.explain(captured)) == (130, "bitnet.interrupted")


def test_a_planted_module_beside_the_script_is_not_imported(tmp_path: Path) -> None:
    plan = plan_for(make_settings(tmp_path), "run-inference", b"Hello")
    (plan.cwd / "subprocess.py").write_text("raise SystemExit(77)\n")
    captured = run(plan)
    assert captured.exit_code == 0
    assert not (plan.cwd / "__pycache__").exists()


def test_the_stand_in_has_every_recorded_run(world: dict[str, str]) -> None:
    recorded = Path(world["BITNET_CPP_DIR"], "recorded")
    assert {path.name for path in recorded.iterdir()} == {path.name for path in RUNS.iterdir()}
