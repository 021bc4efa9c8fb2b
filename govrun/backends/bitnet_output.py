r"""What a run of bitnet.cpp meant: the answer and the counts of one that succeeded, the cause of one that failed.

A complete run writes the echo of the prompt (unless told not to), the answer, ` [end of text]\n` if the model ended by
itself, and `\n\n` on stdout; five lines `llama_perf_...` on stderr are the last thing it does. Exit code 0 alone shows
nothing.
"""

from __future__ import annotations

import re
import signal
from typing import Final

from govrun.backends.interface import Captured, Facts, FinishReason
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

_END: Final = b"\n\n"
_END_OF_TEXT: Final = b" [end of text]\n"
_INTERRUPTED: Final = re.compile(rb"(?:Interrupted by user\n)?Ctrl\+C pressed, exiting\.\.\.\n\Z")
_PERF: Final = re.compile(
    rb"""^llama_perf_sampler_print:\s+sampling\ time\ =.*?/\s+(?P<sampled>[0-9]+)\ runs\b.*\n
          llama_perf_context_print:\s+load\ time\ =.*\n
          llama_perf_context_print:\s+prompt\ eval\ time\ =.*?/\s+(?P<prompt>[0-9]+)\ tokens\b.*\n
          llama_perf_context_print:\s+eval\ time\ =.*?/\s+(?P<evaluated>[0-9]+)\ runs\b.*\n
          llama_perf_context_print:\s+total\ time\ =.*\n""",
    re.VERBOSE | re.MULTILINE,
)
# The context that is in force: the engine rounds what was asked for up to a multiple of 32.
_CONTEXT: Final = re.compile(rb"^generate: n_ctx = ([0-9]+), n_batch = ", re.MULTILINE)
_SEED: Final = re.compile(rb"^sampler seed: ([0-9]+)$", re.MULTILINE)
# What the engine prints when its sampler has no seed, which is so at temperature 0.
_NO_SEED: Final = 4_294_967_295
_VOCABULARY: Final = re.compile(rb"^llm_load_print_meta: vocab type +=\s+(\w+)$", re.MULTILINE)
_SPACE_PREFIX_OFF: Final = re.compile(rb"tokenizer\.ggml\.add_space_prefix bool += false$", re.MULTILINE)

_WRAPPER_SIGNAL: Final = re.compile(rb"' died with <Signals\.(SIG[A-Z0-9]+): [0-9]+>\.\n\Z")
_CRASHES: Final = ("SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")
_EXIT_INTERRUPTED: Final = 130

# The cause of a failing exit code by what stderr says, most telling first.
_CAUSES: Final = tuple(
    (re.compile(pattern, re.MULTILINE), code)
    for pattern, code in (
        (rb"^main: prompt is too long \(", "bitnet.promptTooLong"),
        (rb"^input is empty$", "bitnet.promptEmpty"),
        (rb"^gguf_init_from_file: failed to open '.*': 'No such file or directory'$", "bitnet.modelMissing"),
        (rb"^gguf_init_from_file: failed to open ", "bitnet.modelUnreadable"),
        (rb"^gguf_init_from_file: invalid magic characters ", "bitnet.modelGarbage"),
        (rb"^gguf_init_from_file: failed to read ", "bitnet.modelTruncated"),
        (rb" data is not within the file bounds, ", "bitnet.modelTruncated"),
        (rb"^llama_model_load: error loading model: .*unknown model architecture: ", "bitnet.modelArchitecture"),
        (rb"^llama_model_load: error loading model: check_tensor_dims: ", "bitnet.modelTensors"),
        (rb"^llama_model_load: error loading model: ", "bitnet.modelUnreadable"),
        (rb"failed to allocate|cannot allocate memory|std::bad_alloc|failed to create context", "bitnet.outOfMemory"),
        (rb"^main : failed to eval$", "bitnet.evaluationFailed"),
        (rb": error while loading shared libraries: ", "bitnet.libraryMissing"),
        (rb"^error: (?:invalid|unknown) argument|^error while handling argument ", "bitnet.usage"),
        (rb"^\S+\.py: error: ", "bitnet.usage"),
        (rb"^Traceback \(most recent call last\):$", "bitnet.launcherTraceback"),
    )
)


@frozen
class Asked:
    """What the command asked for, which its output is read against.

    prompt: as the engine received it. echoed: whether stdout begins with it. max_tokens: of the answer.
    """

    prompt: bytes
    echoed: bool
    max_tokens: int


@frozen
class Counts:
    """Tokens of the prompt (its beginning-of-sequence token included) and of the answer (its end token included)."""

    prompt: int
    generated: int

    @property
    def total(self) -> int:
        return self.prompt + self.generated


def read_output(asked: Asked, captured: Captured) -> Facts:
    """The answer and its counts. Raises GovrunError: output-unparsable, or command-failed; its rule is the cause."""
    if captured.ended != "exited" or captured.exit_code != 0:
        raise _failed(explain(captured), "the engine failed", f"exit code {captured.exit_code}", "exit code 0")
    stdout, stderr = captured.stdout, captured.stderr
    if stdout.truncated or stderr.truncated:
        raise _unparsable(
            "bitnet.outputTruncated", "the output was cut at its limit", "a part of the output", "all of it"
        )
    if _INTERRUPTED.search(stdout.data):
        raise _failed(
            "bitnet.interrupted", "the engine was interrupted", "exit code 0 and its farewell", "a complete answer"
        )
    *_, perf = (None, *_PERF.finditer(stderr.data))
    if perf is None:
        raise _unparsable(
            "bitnet.perfMissing", "the engine did not report its end", "no llama_perf lines", "five of them"
        )
    if not stdout.data.endswith(_END):
        raise _unparsable("bitnet.outputIncomplete", "stdout has no end", "another ending", "two newlines")
    body = stdout.data[: -len(_END)]
    answer = _without_echo(asked.prompt, body, stderr.data) if asked.echoed else body
    counts = _counts(int(perf["prompt"]), int(perf["sampled"]), int(perf["evaluated"]))
    context = _context(stderr.data)
    if counts is not None and counts.total > context:
        # Without --no-context-shift the engine drops what stands after the first token and goes on.
        what, found = "the engine forgot a part of the prompt", f"{counts.total} tokens"
        raise _failed("bitnet.contextShifted", what, found, f"at most {context} tokens")
    text, finish = _ending(answer, asked, counts, context)
    return Facts(
        text=text,
        prompt_tokens=None if counts is None else counts.prompt,
        generated_tokens=None if counts is None else counts.generated,
        finish_reason=finish,
        seed=_seed(stderr.data),
    )


def _without_echo(prompt: bytes, body: bytes, stderr: bytes) -> bytes:
    vocabulary = _VOCABULARY.search(stderr)
    # SentencePiece vocabularies put a space before the first word unless the model says no.
    spaced = vocabulary is not None and vocabulary[1] == b"SPM" and _SPACE_PREFIX_OFF.search(stderr) is None
    echo = b" " + prompt if spaced else prompt
    if not body.startswith(echo):
        raise _unparsable(
            "bitnet.echoMissing", "stdout does not begin with the prompt", "other bytes", "the prompt, echoed"
        )
    return body[len(echo) :]


def _counts(prompt: int, sampled: int, evaluated: int) -> Counts | None:
    # Every token of prompt and answer passes the sampler; every token of the answer but the last is evaluated alone.
    # The engine prints 1 for a count of 0, so a prompt of one token cannot be told from one never evaluated.
    generated = sampled - prompt
    if prompt < 2 or generated < 1 or evaluated != max(1, generated - 1):
        return None
    return Counts(prompt, generated)


def _context(stderr: bytes) -> int:
    found = _CONTEXT.search(stderr)
    if found is None:
        raise _unparsable("bitnet.perfMissing", "the engine did not say its context", "no line", "generate: n_ctx = N")
    return int(found[1])


def _ending(answer: bytes, asked: Asked, counts: Counts | None, context: int) -> tuple[bytes, FinishReason | None]:
    if answer.endswith(_END_OF_TEXT):
        text = answer[: -len(_END_OF_TEXT)]
        # An answer that fills its budget exactly could spell the marker; fewer tokens can only mean an end token.
        early = counts is not None and counts.generated < asked.max_tokens and counts.total < context
        return text, "stop" if early else None
    if counts is None:
        return answer, None
    if counts.generated == asked.max_tokens or counts.total == context:
        return answer, "length"
    found, expected = f"{counts.generated} tokens, no end", f"{asked.max_tokens} tokens or an end"
    raise _unparsable("bitnet.outputIncomplete", "the answer stops without a reason", found, expected)


def _seed(stderr: bytes) -> int | None:
    found = _SEED.search(stderr)
    return None if found is None or int(found[1]) == _NO_SEED else int(found[1])


def explain(captured: Captured) -> str:
    """The stable error code of a run that failed: by signal, else by what the engine or its launcher said."""
    if captured.signal is not None:
        return _by_signal(_signal_name(captured.signal))
    wrapped = None if captured.stdout.truncated else _WRAPPER_SIGNAL.search(captured.stdout.data)
    if wrapped is not None:
        return _by_signal(wrapped[1].decode("ascii"))
    if captured.exit_code == _EXIT_INTERRUPTED:
        return "bitnet.interrupted"
    return next((code for cause, code in _CAUSES if cause.search(captured.stderr.data)), "bitnet.failed")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "another"


def _by_signal(name: str) -> str:
    if name == "SIGABRT":
        return "bitnet.aborted"
    return "bitnet.crashed" if name in _CRASHES else "bitnet.killed"


def _failed(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.COMMAND_FAILED, rule, what, found=found, expected=expected)


def _unparsable(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.OUTPUT_UNPARSABLE, rule, what, found=found, expected=expected)
