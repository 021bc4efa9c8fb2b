"""Every captured run of a real engine, with what it means written down."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from govrun.backends.bitnet_output import Asked, explain, read_output
from govrun.backends.interface import Facts, Stream
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from tests.backends.bitnet_world import DATA, RUNS, make_captured, recorded

NEW = DATA / "bitnet" / "new-cli"

SUCCEEDED = {
    "cli_b1_no_display": Facts(b"Vl=/..y\\", 13, 8, "length"),
    "cli_bad_grammar": Facts(b"T7l&slvv", 3, 8, "length"),
    "cli_direct": Facts(b"T7l&sl", 3, 6, "length"),
    # The end token stood in the prompt: nothing was evaluated, so nothing can be counted.
    "cli_empty_out_eos": Facts(b""),
    "cli_noescape": Facts(b"8888888h", 13, 8, "length"),
    "cli_promptfile": Facts(b"P%inininin", 34, 6, "length"),
    # A wrong version number and overwritten weights are silent: preflight finds the first, a pin the second.
    "corrupt_badver": Facts(b"T7l&", 3, 4, "length"),
    "corrupt_flipped_weights": Facts(b"", 3, 4, "length"),
    "env_LLAMA_ARG_extra": Facts(b"T7E(Ai", 3, 6, "length"),
    "ok_temp0": Facts(b"Vl=/..y\\\\==nXer}f5gs8888\\", 13, 24, "length"),
    "prompt_empty": Facts(b"&lllKK"),
    "prompt_leading_dash_eqform": Facts(b"VX;j& the", 13, 6, "length"),
    "prompt_newline": Facts(b"i&&&&&", 17, 6, "length"),
    "prompt_quotes": Facts(b'a"K8eth', 33, 6, "length"),
    "prompt_unicode": Facts(b"vOqand2Y", 23, 6, "length"),
}

# Exit code 0, and yet no answer.
UNREADABLE = {
    "cli_direct_logdisable": "bitnet.perfMissing",
    "cli_escape_default": "bitnet.echoMissing",
    "cli_full_disk": "bitnet.outputIncomplete",
    "cli_help": "bitnet.perfMissing",
    "cli_version": "bitnet.perfMissing",
    "eot_in_prompt_b1": "bitnet.echoMissing",
    "missing_lib": "bitnet.perfMissing",
    "n_0": "bitnet.echoMissing",
    "prompt_literal_backslash_n": "bitnet.echoMissing",
    "prompt_special_tokens": "bitnet.echoMissing",
    "ri_help": "bitnet.perfMissing",
    "sigint_group": "bitnet.interrupted",
    "sigint_python": "bitnet.interrupted",
}

FAILED = {
    "bad_flag": "bitnet.usage",
    "cli_bad_flag": "bitnet.usage",
    "corrupt_badarch": "bitnet.modelArchitecture",
    "corrupt_badname": "bitnet.modelTensors",
    "corrupt_empty": "bitnet.modelGarbage",
    "corrupt_garbage": "bitnet.modelGarbage",
    "corrupt_trunc_data": "bitnet.modelTruncated",
    "corrupt_trunc_header": "bitnet.modelTruncated",
    "cwd_tmp_abs_script": "bitnet.launcherTraceback",
    "missing_model": "bitnet.modelMissing",
    "model_is_dir": "bitnet.modelGarbage",
    "n_abc": "bitnet.usage",
    "no_prompt": "bitnet.usage",
    "prompt_invalid_utf8": "bitnet.aborted",
    "prompt_leading_dash": "bitnet.usage",
    "prompt_long_over_ctx": "bitnet.promptTooLong",
    "sigkill_python": "bitnet.killed",
    "sigsegv_child": "bitnet.crashed",
    "sigterm_group": "bitnet.killed",
    "sigterm_python": "bitnet.killed",
    "timeout_wrapper_term": "bitnet.failed",
}

# The chat generation and its llama-completion: nothing that they print with exit code 0 passes for an answer.
CHAT = {
    "new_cli_i2s": "bitnet.failed",
    "new_cli_missing": "bitnet.failed",
    "new_cli_nocnv": "bitnet.usage",
    "new_cli_notmpl": "bitnet.perfMissing",
    "new_cli_st": "bitnet.perfMissing",
    "new_cli_st_nodisplay": "bitnet.perfMissing",
    "new_cli_st_simpleio": "bitnet.perfMissing",
    "new_cli_tmpl": "bitnet.perfMissing",
    "new_completion_nocnv": "bitnet.perfMissing",
    "new_completion_nocnv_quiet": "bitnet.perfMissing",
    "new_completion_notmpl": "bitnet.perfMissing",
    "new_completion_st": "bitnet.aborted",
    "new_completion_tmpl": "bitnet.aborted",
    "new_version": "bitnet.perfMissing",
}


def asked_by(entry: Mapping[str, Any]) -> Asked:
    """What a recorded argv asked for."""
    words = [part for word in entry["argv"] for part in re.split("(?<=^--prompt)=", word, maxsplit=1)]
    flags = dict(itertools.pairwise(words))
    prompt = flags.get("-p", flags.get("--prompt", ""))
    count = flags.get("-n", "128")
    limit = int(count) if count.lstrip("-").isdigit() else 128
    return Asked(prompt.encode(), "--no-display-prompt" not in words, limit)


def test_every_captured_run_is_covered() -> None:
    assert set(json.loads((RUNS / "index.json").read_text())) == {*SUCCEEDED, *UNREADABLE, *FAILED}
    # The one left out never ended: it waits on its open stdin.
    assert set(json.loads((NEW / "index.json").read_text())) == {*CHAT, "new_cli_pipe_open"}


@pytest.mark.parametrize("name", SUCCEEDED)
def test_a_run_that_succeeded_is_read(name: str) -> None:
    entry, captured = recorded(RUNS, name)
    assert SUCCEEDED[name] == read_output(asked_by(entry), captured)


@pytest.mark.parametrize("name", UNREADABLE)
def test_exit_code_0_alone_is_no_success(name: str) -> None:
    entry, captured = recorded(RUNS, name)
    assert captured.exit_code == 0
    with pytest.raises(GovrunError) as refusal:
        read_output(asked_by(entry), captured)
    assert UNREADABLE[name] == refusal.value.rule
    expected = ExitCode.COMMAND_FAILED if name.startswith("sigint") else ExitCode.OUTPUT_UNPARSABLE
    assert expected == refusal.value.code


@pytest.mark.parametrize("name", FAILED)
def test_a_run_that_failed_is_explained(name: str) -> None:
    entry, captured = recorded(RUNS, name)
    assert FAILED[name] == explain(captured)
    with pytest.raises(GovrunError) as refusal:
        read_output(asked_by(entry), captured)
    assert (ExitCode.COMMAND_FAILED, FAILED[name]) == (refusal.value.code, refusal.value.rule)


@pytest.mark.parametrize("name", CHAT)
def test_nothing_of_the_chat_generation_passes_for_an_answer(name: str) -> None:
    entry, captured = recorded(NEW, name)
    with pytest.raises(GovrunError) as refusal:
        read_output(asked_by(entry), captured)
    assert CHAT[name] == refusal.value.rule


def perf(prompt: int, sampled: int, evaluated: int, *, context: int = 2048, before: str = "") -> bytes:
    return (
        f"{before}sampler seed: 4294967295\ngenerate: n_ctx = {context}, n_batch = 1, n_predict = 4, n_keep = 1\n\n"
        f"llama_perf_sampler_print:    sampling time =       0.01 ms / {sampled:5} runs   (    -nan ms per token)\n"
        "llama_perf_context_print:        load time =      10.00 ms\n"
        f"llama_perf_context_print: prompt eval time =       1.00 ms / {prompt:5} tokens (    0.10 ms per token)\n"
        f"llama_perf_context_print:        eval time =       1.00 ms / {evaluated:5} runs   (    0.10 ms per token)\n"
        "llama_perf_context_print:       total time =       2.00 ms /    10 tokens\n"
    ).encode()


BARE = Asked(b"hi", echoed=False, max_tokens=4)


def test_an_end_token_before_the_limit_is_a_stop() -> None:
    captured = make_captured(b"ab [end of text]\n\n\n", perf(3, 6, 2))
    assert Facts(b"ab", 3, 3, "stop") == read_output(BARE, captured)


def test_an_answer_that_is_only_an_end_token_is_empty() -> None:
    captured = make_captured(b" [end of text]\n\n\n", perf(3, 4, 1))
    assert Facts(b"", 3, 1, "stop") == read_output(BARE, captured)


def test_a_marker_at_the_very_limit_does_not_tell_why_the_answer_ended() -> None:
    captured = make_captured(b"abc [end of text]\n\n\n", perf(3, 7, 3))
    assert Facts(b"abc", 3, 4, None) == read_output(BARE, captured)


def test_a_marker_inside_the_answer_is_text() -> None:
    captured = make_captured(b"a [end of text]\nb\n\n", perf(3, 7, 3))
    assert Facts(b"a [end of text]\nb", 3, 4, "length") == read_output(BARE, captured)


def test_a_farewell_inside_the_answer_is_text() -> None:
    captured = make_captured(b"Ctrl+C pressed, exiting...\n\n\n", perf(3, 7, 3))
    assert Facts(b"Ctrl+C pressed, exiting...\n", 3, 4, "length") == read_output(BARE, captured)


def test_newlines_at_the_end_of_an_answer_are_kept() -> None:
    captured = make_captured(b"a\n\n\n\n\n", perf(3, 7, 3))
    assert read_output(BARE, captured).text == b"a\n\n\n"


def test_an_answer_that_stops_short_without_an_end_is_incomplete() -> None:
    captured = make_captured(b"ab\n\n", perf(3, 5, 1))
    with pytest.raises(GovrunError) as refusal:
        read_output(BARE, captured)
    assert refusal.value.rule == "bitnet.outputIncomplete"


def test_a_full_context_ends_an_answer_by_length() -> None:
    captured = make_captured(b"ab\n\n", perf(30, 32, 1, context=32))
    assert Facts(b"ab", 30, 2, "length") == read_output(BARE, captured)


def test_a_marker_at_a_full_context_does_not_tell_why_the_answer_ended() -> None:
    captured = make_captured(b"ab [end of text]\n\n\n", perf(30, 32, 1, context=32))
    assert Facts(b"ab", 30, 2, None) == read_output(BARE, captured)


def test_a_context_that_was_shifted_is_a_failure() -> None:
    captured = make_captured(b"abcd\n\n", perf(30, 34, 3, context=32))
    with pytest.raises(GovrunError) as refusal:
        read_output(BARE, captured)
    assert (ExitCode.COMMAND_FAILED, "bitnet.contextShifted") == (refusal.value.code, refusal.value.rule)


def test_an_engine_that_does_not_say_its_context_is_not_believed() -> None:
    captured = make_captured(b"abcd\n\n", perf(3, 7, 3).replace(b"generate:", b"g:"))
    with pytest.raises(GovrunError) as refusal:
        read_output(BARE, captured)
    assert refusal.value.rule == "bitnet.perfMissing"


def test_a_sentencepiece_vocabulary_echoes_a_space_before_the_prompt() -> None:
    asked = Asked(b"hi", echoed=True, max_tokens=4)
    spm = "llm_load_print_meta: vocab type       = SPM\n"
    assert read_output(asked, make_captured(b" hi hi\n\n", perf(3, 7, 3, before=spm))).text == b" hi"
    plain = f"llama_model_loader: - kv  20: tokenizer.ggml.add_space_prefix bool             = false\n{spm}"
    assert read_output(asked, make_captured(b"hi hi\n\n", perf(3, 7, 3, before=plain))).text == b" hi"
    with pytest.raises(GovrunError) as refusal:
        read_output(asked, make_captured(b"hi hi\n\n", perf(3, 7, 3, before=spm)))
    assert refusal.value.rule == "bitnet.echoMissing"


@pytest.mark.parametrize(
    ("prompt", "sampled", "evaluated"),
    [(1, 7, 6), (1, 1, 1), (0, 4, 3), (3, 3, 1), (3, 7, 4), (3, 2, 1), (1, 2, 1)],
)
def test_counts_that_do_not_add_up_are_not_reported(prompt: int, sampled: int, evaluated: int) -> None:
    facts = read_output(BARE, make_captured(b"abcd\n\n", perf(prompt, sampled, evaluated)))
    assert Facts(b"abcd") == facts


def test_the_seed_that_the_sampler_used_is_reported() -> None:
    captured = make_captured(b"abcd\n\n", perf(3, 7, 3).replace(b"4294967295", b"7"))
    assert read_output(BARE, captured).seed == 7
    silent = make_captured(b"abcd\n\n", perf(3, 7, 3).replace(b"sampler seed", b"seed"))
    assert read_output(BARE, silent).seed is None


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_an_output_that_was_cut_at_its_limit_is_unparsable(name: str) -> None:
    captured = make_captured(b"abcd\n\n", perf(3, 7, 3))
    stream: Stream = getattr(captured, name)
    with pytest.raises(GovrunError) as refusal:
        read_output(BARE, evolve(captured, **{name: evolve(stream, truncated=True)}))
    assert refusal.value.rule == "bitnet.outputTruncated"


def test_every_line_of_the_report_is_needed() -> None:
    lines = perf(3, 7, 3).splitlines(keepends=True)
    for number in range(len(lines)):
        if not lines[number].startswith(b"llama_perf"):
            continue
        with pytest.raises(GovrunError) as refusal:
            read_output(BARE, make_captured(b"abcd\n\n", b"".join(lines[:number] + lines[number + 1 :])))
        assert refusal.value.rule == "bitnet.perfMissing"


def test_every_cut_of_a_captured_stdout_is_noticed() -> None:
    entry, captured = recorded(RUNS, "ok_temp0")
    for length in range(len(captured.stdout.data)):
        cut = make_captured(captured.stdout.data[:length], captured.stderr.data)
        with pytest.raises(GovrunError):
            read_output(asked_by(entry), cut)


def test_every_cut_of_a_captured_stderr_is_noticed() -> None:
    entry, captured = recorded(RUNS, "ok_temp0")
    for length in range(0, len(captured.stderr.data), 7):
        cut = make_captured(captured.stdout.data, captured.stderr.data[:length])
        with pytest.raises(GovrunError):
            read_output(asked_by(entry), cut)


@pytest.mark.parametrize(
    ("number", "code"),
    [(6, "bitnet.aborted"), (11, "bitnet.crashed"), (7, "bitnet.crashed"), (9, "bitnet.killed"), (63, "bitnet.killed")],
)
def test_a_signal_is_explained_by_its_number(number: int, code: str) -> None:
    assert code == explain(make_captured(b"", b"", None, number))


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        (b"gguf_init_from_file: failed to open '/m': 'Permission denied'\n", "bitnet.modelUnreadable"),
        (b"llama_model_load: error loading model: create_tensor: tensor shape\n", "bitnet.modelUnreadable"),
        (b"ggml_aligned_malloc: insufficient memory\nstd::bad_alloc\n", "bitnet.outOfMemory"),
        (b"main : failed to eval\n", "bitnet.evaluationFailed"),
        (b"input is empty\n", "bitnet.promptEmpty"),
        (b"l: error while loading shared libraries: libllama.so: cannot open\n", "bitnet.libraryMissing"),
        (b"something else\n", "bitnet.failed"),
    ],
)
def test_what_the_engine_says_explains_a_failure(stderr: bytes, code: str) -> None:
    assert code == explain(make_captured(b"", stderr, 1))


def test_an_interrupted_engine_is_explained() -> None:
    assert explain(make_captured(b"\nInterrupted by user\n", b"", 130)) == "bitnet.interrupted"


def test_a_prompt_that_the_wrapper_repeats_does_not_explain_a_failure() -> None:
    told = b"Error occurred while running command: Command '['build/bin/llama-cli', '-p', \"%s\"]' returned 1.\n"
    prompt = b"' died with <Signals.SIGSEGV: 11>.\\n"
    assert explain(make_captured(told % prompt, b"", 1)) == "bitnet.failed"


def test_only_the_end_of_a_whole_stdout_explains() -> None:
    captured = make_captured(b"' died with <Signals.SIGSEGV: 11>.\n", b"", 1)
    assert explain(captured) == "bitnet.crashed"
    cut = evolve(captured, stdout=evolve(captured.stdout, truncated=True))
    assert explain(cut) == "bitnet.failed"


def test_a_child_that_did_not_exit_by_itself_has_no_answer() -> None:
    captured = make_captured(b"abcd\n\n", perf(3, 7, 3), ended="wallLimit")
    with pytest.raises(GovrunError) as refusal:
        read_output(BARE, captured)
    assert refusal.value.code == ExitCode.COMMAND_FAILED


@pytest.mark.parametrize("name", [*UNREADABLE, *FAILED])
def test_no_error_repeats_prompt_output_or_path(name: str) -> None:
    entry, captured = recorded(RUNS, name)
    with pytest.raises(GovrunError) as refusal:
        read_output(asked_by(entry), captured)
    said = str(refusal.value)
    assert "Hello" not in said
    assert "/srv" not in said
