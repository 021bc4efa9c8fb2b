"""The embedded llama.cpp runner, run for real on the tiny model that the repository brings."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from govrun.engines import llamacpp_runner
from govrun.engines.llamacpp_runner import EXIT_CODES, REPORT_PREFIX

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(llamacpp_runner.__file__)
MODEL = ROOT / "examples" / "tiny-bitnet-tq2_0.gguf"
ALPHABET = b"defghijklmnopqrstuvwxyz."

live = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="xllamacpp is not installed: the embedded engine was NOT tried (pip install 'govrun[llamacpp]')",
)


def words(**changes: object) -> list[str]:
    options: dict[str, object] = {
        "model": MODEL,
        "prompt_descriptor": 0,
        "ctx": 256,
        "batch": 512,
        "threads": 1,
        "n_predict": 64,
        "temp": 0,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "repeat_penalty": 1,
        "repeat_last_n": 64,
        "seed": 0,
    }
    return [w for name, value in {**options, **changes}.items() for w in (f"--{name.replace('_', '-')}", str(value))]


def run(prompt: bytes, argv: list[str] | None = None, **changes: object) -> tuple[int, bytes, dict[str, Any]]:
    """(exit code, stdout, report) of one run."""
    child = subprocess.run(
        [sys.executable, "-I", "-B", RUNNER, *(words(**changes) if argv is None else argv)],
        input=prompt,
        capture_output=True,
        timeout=120,
    )
    reports = [line for line in child.stderr.decode().split("\n")[:-1] if line.startswith(REPORT_PREFIX)]
    assert len(reports) == 1, child.stderr[-2000:]
    return child.returncode, child.stdout, json.loads(reports[0][len(REPORT_PREFIX) :])


def test_the_tiny_model_is_what_its_script_writes(tmp_path: Path) -> None:
    model = runpy.run_path(str(ROOT / "examples" / "make_tiny_model.py"))["model"]
    expected = hashlib.sha256(model()).hexdigest()
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() == expected
    assert MODEL.stat().st_size <= 700_000


def test_the_script_of_the_tiny_model_writes_where_it_is_told(tmp_path: Path) -> None:
    script = ROOT / "examples" / "make_tiny_model.py"
    subprocess.run([sys.executable, "-I", "-S", script, tmp_path / "m.gguf"], check=True, capture_output=True)
    assert (tmp_path / "m.gguf").read_bytes() == MODEL.read_bytes()


@live
def test_the_answer_stands_on_stdout_and_the_counts_in_the_report() -> None:
    code, text, report = run(b"abc")
    assert (code, text) == (0, ALPHABET)
    engine = report.pop("engine")
    assert report == {"finishReason": "stop", "generatedTokens": 25, "promptTokens": 4, "textBytes": len(ALPHABET)}
    assert engine


@live
def test_the_token_limit_ends_an_answer_with_length() -> None:
    code, text, report = run(b"-", n_predict=7)
    assert (code, text, report["finishReason"], report["generatedTokens"]) == (0, b"=-=-=-=", "length", 7)


@live
def test_the_context_that_was_asked_for_is_the_one_that_holds() -> None:
    # The engine rounds 20 up to 256.
    code, text, report = run(b"-", ctx=20, n_predict=19)
    assert (code, len(text), report["finishReason"]) == (0, 18, "length")


@live
def test_an_answer_may_be_empty() -> None:
    code, text, report = run(b"z.")
    assert (code, text, report["finishReason"], report["textBytes"]) == (0, b"", "stop", 0)


@live
def test_two_runs_with_one_seed_give_one_text_and_another_seed_another() -> None:
    first, second, other = (run(b" ", temp=1, seed=seed, n_predict=32)[1] for seed in (7, 7, 8))
    assert first == second
    assert first != other


@live
def test_temperature_zero_gives_one_text_whatever_the_seed() -> None:
    assert run(b"abc", seed=1)[1] == run(b"abc", seed=2)[1] == ALPHABET


@live
def test_the_text_is_utf8_even_where_the_model_is_not() -> None:
    code, text, report = run(b" ", temp=3, top_k=0, top_p=1, min_p=0, seed=7)
    text.decode("utf-8")
    assert (code, report["textBytes"]) == (0, len(text))


@live
def test_a_special_token_in_a_prompt_is_text() -> None:
    # Parsed it would be one token; as text it is one for each character. Begin-of-sequence is counted besides.
    assert run(b"a<unk>")[2]["promptTokens"] == 1 + 1 + 5
    assert run(b"a</s>")[2]["promptTokens"] == 1 + 1 + 4


@live
def test_a_prompt_that_leaves_no_room_is_refused_and_not_cut() -> None:
    code, text, report = run(b"a" * 300)
    assert (code, text, report) == (EXIT_CODES["llamacpp.promptTooLong"], b"", {"error": "llamacpp.promptTooLong"})


@live
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"garbage" * 1000,
        lambda data: data[: len(data) // 2],
        lambda data: b"GGUF\x63\0\0\0" + data[8:],
        lambda data: data.replace(b"bitnet", b"bitnot"),
    ],
    ids=["empty", "garbage", "truncated", "version 99", "unknown architecture"],
)
def test_a_model_that_cannot_be_loaded_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bad.gguf").write_bytes(spoil(MODEL.read_bytes()))
    code, text, report = run(b"abc", model=tmp_path / "bad.gguf")
    assert (code, text, report) == (EXIT_CODES["llamacpp.modelRefused"], b"", {"error": "llamacpp.modelRefused"})


def test_a_model_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    code, _, report = run(b"abc", model=tmp_path / "none.gguf")
    assert (code, report["error"]) == (EXIT_CODES["llamacpp.modelUnreadable"], "llamacpp.modelUnreadable")


@pytest.mark.parametrize("prompt", [b"\xff", b"a" * ((1 << 20) + 1)], ids=["not UTF-8", "too large"])
def test_a_prompt_that_is_no_text_or_too_large_is_refused(prompt: bytes) -> None:
    assert run(prompt)[0] == EXIT_CODES["llamacpp.promptUnreadable"]


def test_a_prompt_descriptor_that_is_not_open_is_refused() -> None:
    assert run(b"abc", prompt_descriptor=99)[0] == EXIT_CODES["llamacpp.promptUnreadable"]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--model"],
        words()[:-2],
        [*words(), "--seed", "1"],
        [*words(), "--unknown", "1"],
        words(seed="x"),
        words(temp=""),
    ],
)
def test_options_that_are_not_each_given_once_are_refused(argv: list[str]) -> None:
    assert run(b"abc", argv)[0] == EXIT_CODES["llamacpp.usage"]


@live
def test_no_port_is_opened_and_nothing_is_left_behind(tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("govrun-*"))
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", RUNNER, *words(ctx=1024, n_predict=1000)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.write(b"-")
    child.stdin.close()
    ports: set[str] = set()
    inodes: set[str] = set()
    while child.poll() is None:
        inodes |= sockets(child.pid)
        ports |= inodes & listening()
    assert child.returncode == 0
    child.stderr.close() if child.stderr else None
    assert ports == set()
    assert set(Path("/tmp").glob("govrun-*")) <= before


def sockets(pid: int) -> set[str]:
    """The inode numbers of the sockets that a process has open."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # the process has ended, or has closed the descriptor meanwhile
    return found


def listening() -> set[str]:
    """The inode numbers of TCP sockets of this machine, whatever their state."""
    files = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    return {line.split()[9] for file in files if file.exists() for line in file.read_text().splitlines()[1:]}


@live
def test_a_signal_ends_the_runner_at_once(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        (tmp_path / "prompt").write_bytes(b"-")
        with (tmp_path / "prompt").open("rb") as prompt:
            child = subprocess.Popen(
                [sys.executable, "-I", "-B", RUNNER, *words(ctx=4096, n_predict=4000)],
                stdin=prompt,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        try:
            wait_until_generating(child.pid)
            child.send_signal(number)
            text, _ = child.communicate(timeout=30)
        finally:
            child.kill()
            child.wait()
        assert (child.returncode, text) == (-number, b"")


def wait_until_generating(pid: int) -> None:
    # Loading takes a tenth of this; the whole answer takes five times as long.
    deadline = time.monotonic() + 60
    while cpu_seconds(pid) < 0.4:
        assert time.monotonic() < deadline, "the runner did not start to generate"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@live
def test_an_answer_that_nobody_can_take_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:
        child = subprocess.run(
            [sys.executable, "-I", "-B", RUNNER, *words()], input=b"abc", stdout=full, stderr=subprocess.PIPE
        )
    assert child.returncode == EXIT_CODES["llamacpp.outputLost"]


# What the real engine does not do here: an engine that is missing, old, or answers nonsense.

STANDIN = """
__version__ = "0"
class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = (type("Part", (), {{}})() for _ in range(3))
class Server:
    def __init__(self, params):
        import socket, threading
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(params.hostnames[0])
        self.listener.listen()
        threading.Thread(target=self.answer, daemon=True).start()
    def answer(self):
        connection, _ = self.listener.accept()
        connection.recv(1 << 16)
        connection.sendall({tokenized!r})
        connection.close()
    def handle_completions(self, body):
        return {completed!r}
"""
TOKENS = b'HTTP/1.1 200 OK\r\n\r\n{"tokens":[1,2]}'
COMPLETION = {
    "choices": [{"text": "ok", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1},
}


def run_with(tmp_path: Path, engine: str) -> tuple[int, bytes, str]:
    (tmp_path / "xllamacpp.py").write_text(engine)
    program = (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r});"
        f"sys.argv = ['runner', *{words()!r}]; runpy.run_path({str(RUNNER)!r}, run_name='__main__')"
    )
    child = subprocess.run([sys.executable, "-B", "-c", program], input=b"abc", capture_output=True, timeout=60)
    return child.returncode, child.stdout, child.stderr.decode()


def test_the_standin_engine_is_a_good_one_by_default(tmp_path: Path) -> None:
    code, text, _ = run_with(tmp_path, STANDIN.format(tokenized=TOKENS, completed=COMPLETION))
    assert (code, text) == (0, b"ok")


def test_an_engine_that_is_missing_is_told_apart(tmp_path: Path) -> None:
    assert run_with(tmp_path, "raise ImportError('no engine')")[0] == EXIT_CODES["llamacpp.engineMissing"]


def test_an_engine_that_is_too_old_is_told_apart(tmp_path: Path) -> None:
    old = "class CommonParams:\n    __slots__ = ()\n    model = type('M', (), {})()\n"
    code, _, stderr = run_with(tmp_path, old)
    assert code == EXIT_CODES["llamacpp.engineUnsupported"]
    assert "install a newer" in stderr


@pytest.mark.parametrize(
    "tokenized",
    [
        b"",
        b"HTTP/1.1 401 Unauthorized\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\nnot json",
        b'HTTP/1.1 200 OK\r\n\r\n{"tokens":[]}',
        b'HTTP/1.1 200 OK\r\n\r\n{"tokens":["a"]}',
        b"HTTP/1.1 200 OK\r\n\r\n[]",
    ],
)
def test_an_engine_that_does_not_tokenise_is_a_failure(tmp_path: Path, tokenized: bytes) -> None:
    engine = STANDIN.format(tokenized=tokenized, completed=COMPLETION)
    assert run_with(tmp_path, engine)[0] == EXIT_CODES["llamacpp.engineRefused"]


def test_an_engine_that_does_not_listen_is_a_failure(tmp_path: Path) -> None:
    engine = STANDIN.format(tokenized=TOKENS, completed=COMPLETION).replace("self.listener.listen()", "return")
    assert run_with(tmp_path, engine)[0] == EXIT_CODES["llamacpp.engineRefused"]


@pytest.mark.parametrize(
    "completed",
    [
        {"error": {"code": 400, "message": "abc is bad", "type": "invalid_request_error"}},
        {"choices": [], "usage": {}},
        {**COMPLETION, "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        {"choices": None},
    ],
)
def test_an_engine_that_does_not_complete_is_a_failure(tmp_path: Path, completed: dict[str, object]) -> None:
    code, text, stderr = run_with(tmp_path, STANDIN.format(tokenized=TOKENS, completed=completed))
    assert (code, text) == (EXIT_CODES["llamacpp.engineRefused"], b"")
    assert "abc" not in stderr


def test_without_a_place_for_temporary_files_the_runner_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(llamacpp_runner.RunnerError, match="no directory"):
        llamacpp_runner._make_private_directory()
