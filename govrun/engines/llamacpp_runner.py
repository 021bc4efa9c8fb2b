"""Run one completion with the llama.cpp that lives in the `xllamacpp` wheel, as a child process of its own.

    python -I -B llamacpp_runner.py --model FILE --prompt-descriptor N --ctx N --batch N --threads N --n-predict N \
        --temp X --top-k N --top-p X --min-p X --repeat-penalty X --repeat-last-n N --seed N

Every option is required: a value that is not said would be the engine's default, which changes between versions.

stdout is the answer as UTF-8 and nothing else; where the model emits bytes that are not UTF-8, the engine has already
put U+FFFD. stderr is whatever the engine complains about and exactly one line of REPORT_PREFIX and a JSON object:
`promptTokens`, `generatedTokens`, `finishReason`, `textBytes` and `engine` after an answer (exit 0), `error` after a
failure (an exit code of EXIT_CODES). The engine logs from a thread of its own, so its lines may stand after the report
and around it; a model that gets such a line into a log only makes two of them, which is no report.

The prompt is data. It is tokenised without special tokens, so `</s>` in a prompt is four characters and never an end
of sequence. The engine's completion call cannot do that, only its `/tokenize` endpoint can; and the engine always opens
a listener. So the listener is a Unix socket in a directory of mode 0700 with a random key, used once to tokenise and
removed before the model generates. No port is opened. A runner that is killed while it loads leaves that dead socket.

The file imports nothing of govrun: `-I` keeps its directory off the module path, and it must run where govrun is not
installed as a package.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any, Final

REPORT_PREFIX: Final = "govrun-llamacpp-report-v1 "
MAX_PROMPT_BYTES: Final = 1 << 20

# What the backend makes of each exit code. 1 is Python's own for a crash, so it stands for nothing here.
EXIT_CODES: Final = {
    "llamacpp.usage": 2,
    "llamacpp.engineMissing": 64,
    "llamacpp.promptUnreadable": 65,
    "llamacpp.modelUnreadable": 66,
    "llamacpp.modelRefused": 67,
    "llamacpp.promptTooLong": 68,
    "llamacpp.engineRefused": 69,
    "llamacpp.noPrivateDirectory": 70,
    "llamacpp.outputLost": 71,
    "llamacpp.engineUnsupported": 72,
}

_OPTIONS: Final = {
    "--model": str,
    "--prompt-descriptor": int,
    "--ctx": int,
    "--batch": int,
    "--threads": int,
    "--n-predict": int,
    "--temp": float,
    "--top-k": int,
    "--top-p": float,
    "--min-p": float,
    "--repeat-penalty": float,
    "--repeat-last-n": int,
    "--seed": int,
}


class RunnerError(Exception):
    """A reason to end; code is a key of EXIT_CODES, what is for people and never quotes the prompt."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code
        self.what = what


def main(words: list[str]) -> int:
    """Answer one prompt and return the exit code."""
    # Whatever the engine prints on stdout belongs to its logs; the answer has a descriptor of its own.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        report = _run(words, answer)
    except RunnerError as failure:
        print(f"govrun: {failure.what}", file=sys.stderr)
        _report({"error": failure.code})
        return EXIT_CODES[failure.code]
    _report(report)
    return 0


def _report(value: dict[str, Any]) -> None:
    line = REPORT_PREFIX + json.dumps(value, sort_keys=True, separators=(",", ":"))
    # One write, below PIPE_BUF, that begins a line of its own: a log line that is half written cannot swallow it.
    sys.stderr.flush()
    os.write(2, f"\n{line}\n".encode("ascii"))


def _run(words: list[str], answer: int) -> dict[str, Any]:
    options = _parse(words)
    prompt = _read_prompt(options["--prompt-descriptor"])
    _open_model(options["--model"])
    try:
        import xllamacpp
    except ImportError as error:
        raise RunnerError("llamacpp.engineMissing", f"xllamacpp cannot be imported: {error}") from error
    private = _make_private_directory()
    socket_path = f"{private}/engine.sock"
    key = os.urandom(32).hex()
    try:
        server = _start(xllamacpp, options, socket_path, key)
        tokens = _tokenize(socket_path, key, prompt)
    finally:
        _remove(private)
    text, report = _complete(server, options, tokens)
    _write(answer, text)
    return {**report, "engine": str(xllamacpp.__version__), "textBytes": len(text)}


def _parse(words: list[str]) -> dict[str, Any]:
    if len(words) % 2 or sorted(words[::2]) != sorted(_OPTIONS):
        raise RunnerError("llamacpp.usage", f"expected each once, with a value: {' '.join(_OPTIONS)}")
    try:
        return {name: _OPTIONS[name](value) for name, value in zip(words[::2], words[1::2], strict=True)}
    except ValueError as error:
        raise RunnerError("llamacpp.usage", "an option that must be a number is not one") from error


def _read_prompt(descriptor: int) -> str:
    try:
        # Opened anew, so that a file is read from its beginning wherever the descriptor stands.
        with open(f"/dev/fd/{descriptor}", "rb") as file:
            data = file.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise RunnerError("llamacpp.promptUnreadable", f"the prompt cannot be read: {error.strerror}") from error
    if len(data) > MAX_PROMPT_BYTES:
        raise RunnerError("llamacpp.promptUnreadable", f"the prompt is larger than {MAX_PROMPT_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunnerError("llamacpp.promptUnreadable", "the prompt is not UTF-8") from error


def _open_model(path: str) -> None:
    # The engine says only that it failed; a model that is not there deserves its own answer.
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RunnerError("llamacpp.modelUnreadable", f"the model cannot be read: {error.strerror}") from error


def _make_private_directory() -> str:
    name = f"govrun-{os.urandom(12).hex()}"
    for parent in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - made new, mode 0700, under a random name
        try:
            os.mkdir(f"{parent}/{name}", 0o700)
        except OSError:
            continue
        return f"{parent}/{name}"
    raise RunnerError("llamacpp.noPrivateDirectory", "no directory for temporary files is writable")


def _remove(private: str) -> None:
    for name in os.listdir(private):
        os.unlink(f"{private}/{name}")
    os.rmdir(private)


def _start(xllamacpp: Any, options: dict[str, Any], socket_path: str, key: str) -> Any:
    """Load the model."""
    try:
        params = _parameters(xllamacpp, options, socket_path, key)
    except AttributeError as error:
        raise RunnerError(
            "llamacpp.engineUnsupported", f"this xllamacpp has no {error.name!r}; install a newer"
        ) from error
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:  # what Cython makes of C++ exceptions
        raise RunnerError("llamacpp.modelRefused", "the engine cannot load the model; it says why above") from error
    # The engine has put handlers of its own in place that swallow the first signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    return server


def _parameters(xllamacpp: Any, options: dict[str, Any], socket_path: str, key: str) -> Any:
    """Everything that could differ between machines is said, everything not needed is off."""
    params = xllamacpp.CommonParams()
    params.model.path = options["--model"]
    params.n_ctx = options["--ctx"]
    params.n_batch = params.n_ubatch = options["--batch"]
    params.n_predict = options["--n-predict"]
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["--threads"]
    params.n_gpu_layers = 0
    params.fit_params = False  # would shrink the context to the memory that happens to be free
    params.warmup = False
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    params.ctx_shift = False  # would drop the front of a long text
    params.enable_chat_template = params.use_jinja = False
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.offline = True
    params.hostnames = [socket_path]
    params.n_threads_http = 1
    params.api_keys = [key]
    params.verbosity = 1  # errors
    return params


def _tokenize(socket_path: str, key: str, prompt: str) -> list[int]:
    """The prompt's tokens, special tokens not parsed, begin-of-sequence added where the model wants it."""
    body = json.dumps({"content": prompt, "add_special": True, "parse_special": False}).encode()
    head = (
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reply = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(socket_path)
            connection.sendall(head.encode("ascii") + body)
            while chunk := connection.recv(1 << 16):
                reply += chunk
    except OSError as error:
        raise RunnerError("llamacpp.engineRefused", f"the engine does not tokenise: {error.strerror}") from error
    head_bytes, _, content = bytes(reply).partition(b"\r\n\r\n")
    try:
        tokens = json.loads(content)["tokens"] if head_bytes.startswith(b"HTTP/1.1 200 ") else None
    except (ValueError, KeyError, TypeError):
        tokens = None
    if not isinstance(tokens, list) or not tokens or not all(type(token) is int for token in tokens):
        raise RunnerError("llamacpp.engineRefused", "the engine does not tokenise the prompt")
    return tokens


def _complete(server: Any, options: dict[str, Any], tokens: list[int]) -> tuple[bytes, dict[str, Any]]:
    room = options["--ctx"] - len(tokens)
    if room < 1:
        what = f"the prompt has {len(tokens)} tokens, the context {options['--ctx']}: no room for an answer"
        raise RunnerError("llamacpp.promptTooLong", what)
    reply = server.handle_completions(
        {
            "prompt": tokens,
            "stream": False,
            # The engine rounds a context up; the one that was asked for is the one that holds.
            "max_tokens": min(options["--n-predict"], room),
            "temperature": options["--temp"],
            "top_k": options["--top-k"],
            "top_p": options["--top-p"],
            "min_p": options["--min-p"],
            "repeat_penalty": options["--repeat-penalty"],
            "repeat_last_n": options["--repeat-last-n"],
            "seed": options["--seed"],
            "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "dynatemp_range": 0.0,
            "mirostat": 0,
            "cache_prompt": False,
            "stop": [],
            "ignore_eos": False,
        }
    )
    try:
        choice, usage = reply["choices"][0], reply["usage"]
        report = {
            "finishReason": choice["finish_reason"],
            "generatedTokens": usage["completion_tokens"],
            "promptTokens": usage["prompt_tokens"],
        }
        text = choice["text"].encode("utf-8")
    except (KeyError, IndexError, TypeError) as error:
        raise RunnerError("llamacpp.engineRefused", "the engine refuses to generate; it says why above") from error
    if report["promptTokens"] != len(tokens):
        raise RunnerError("llamacpp.engineRefused", "the engine did not evaluate the whole prompt")
    return text, report


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise RunnerError("llamacpp.outputLost", f"the answer cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
