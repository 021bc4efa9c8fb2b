"""The real bitnet.cpp, when BITNET_CPP_DIR and BITNET_MODEL_GGUF name one; the plan is run as it stands."""

from __future__ import annotations

import os

import pytest

from govrun.backends.bitnet import BACKEND
from govrun.backends.interface import Captured, Facts
from govrun.errors import GovrunError
from govrun.preflight import demand
from tests.backends.bitnet_world import make_inquiry, run

SETTINGS = {name: os.environ.get(name, "") for name in ("BITNET_CPP_DIR", "BITNET_MODEL_GGUF")}

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not all(SETTINGS.values()), reason="no real bitnet.cpp: set BITNET_CPP_DIR and BITNET_MODEL_GGUF to run these"
    ),
]

PROMPTS = (
    "Hello the world",
    "line1\nline2\r\nline3\n",
    "\n",
    "say \"hi\" and 'bye' `id` $(id) $HOME",
    "-hello --help -cnv",
    "C:\\new\\table \\x41 \\\\ \\' \\",
    "h\u00e9llo \u4e16\u754c \U0001f642 e\u0301",
    " leading and trailing \t ",
    "\x1b[31m\x07\x7f control",
)


def ask(launcher: str, prompt: str, **parameters: str) -> tuple[Facts, Captured]:
    settings = {**SETTINGS, "BITNET_LAUNCHER": launcher}
    inquiry = make_inquiry(settings, prompt.encode(), **parameters)
    demand(BACKEND.checks(inquiry))
    plan = BACKEND.plan(inquiry)
    captured = run(plan)
    assert captured.exit_code == 0, captured.stderr.data[-2000:]
    return BACKEND.parse(plan, captured), captured


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_both_launchers_give_the_same_answer_to_the_byte(prompt: str) -> None:
    wrapped, shown = ask("run-inference", prompt, maxTokens="24")
    direct, bare = ask("llama-cli", prompt, maxTokens="24")
    assert prompt.encode() + direct.text in shown.stdout.data
    assert bare.stdout.data.startswith(direct.text)
    assert wrapped == direct


def test_greedy_answers_are_equal_every_time() -> None:
    answers = {ask("llama-cli", "Hello the world", maxTokens="24")[1].stdout.data for _ in range(10)}
    assert len(answers) == 1


@pytest.mark.parametrize("prompt", ["Hello the world", "a", "x" * 500])
def test_token_counts_add_up(prompt: str) -> None:
    facts, _ = ask("llama-cli", prompt, maxTokens="7")
    assert facts.finish_reason in ("length", "stop")
    assert facts.generated_tokens is not None
    assert facts.prompt_tokens is not None
    assert 1 <= facts.generated_tokens <= 7
    assert 2 <= facts.prompt_tokens <= len(prompt) + 2  # beginning of sequence, space before the first word


def test_one_token_can_be_asked_for() -> None:
    facts, _ = ask("llama-cli", "Hello the world", maxTokens="1")
    assert facts.generated_tokens == 1


def test_a_seed_repeats_a_sampled_answer_and_is_reported() -> None:
    first, _ = ask("llama-cli", "Hello the world", maxTokens="24", temperature="0.8", seed="7")
    again, _ = ask("llama-cli", "Hello the world", maxTokens="24", temperature="0.8", seed="7")
    other, _ = ask("llama-cli", "Hello the world", maxTokens="24", temperature="0.8", seed="8")
    assert first.seed == 7
    assert first == again
    assert first.text != other.text


def test_a_sampled_answer_of_the_script_reports_the_seed_that_the_engine_drew() -> None:
    facts, _ = ask("run-inference", "Hello the world", maxTokens="8", temperature="0.8")
    assert facts.seed is not None


def test_a_context_that_overflows_ends_the_direct_answer_and_fails_the_wrapped_one() -> None:
    parameters = {"maxTokens": "59", "context": "64"}
    direct, _ = ask("llama-cli", "hello", **parameters)
    if direct.finish_reason == "stop":
        pytest.skip("this model ends its answer before the context is full")
    assert direct.prompt_tokens is not None
    assert direct.generated_tokens is not None
    assert direct.prompt_tokens + direct.generated_tokens == 64
    with pytest.raises(GovrunError) as refusal:
        ask("run-inference", "hello", **parameters)
    assert refusal.value.rule == "bitnet.contextShifted"


def test_a_prompt_longer_than_the_context_is_told() -> None:
    settings = {**SETTINGS, "BITNET_LAUNCHER": "llama-cli"}
    plan = BACKEND.plan(make_inquiry(settings, b"word " * 2000, maxTokens="8", context="64"))
    assert BACKEND.explain(run(plan)) == "bitnet.promptTooLong"


@pytest.mark.parametrize("launcher", ["run-inference", "llama-cli"])
def test_a_model_that_is_gone_at_launch_is_told(launcher: str) -> None:
    settings = {**SETTINGS, "BITNET_LAUNCHER": launcher, "BITNET_MODEL_GGUF": "/nonexistent/model.gguf"}
    assert BACKEND.explain(run(BACKEND.plan(make_inquiry(settings)))) == "bitnet.modelMissing"


def test_the_dependencies_name_the_libraries_that_the_loader_takes() -> None:
    plan = BACKEND.plan(make_inquiry({**SETTINGS, "BITNET_LAUNCHER": "llama-cli"}))
    names = {
        dependency.path.name.partition(".so")[0] for dependency in plan.dependencies if dependency.role == "library"
    }
    assert {"libggml", "libllama"} <= names
