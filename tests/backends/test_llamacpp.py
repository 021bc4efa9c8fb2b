"""The llamacpp backend: what must hold before it runs, the command it makes, and how it reads the runner."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
from pathlib import Path

import attrs
import pytest

from govrun.backends.interface import Captured, Inquiry
from govrun.backends.llamacpp import BACKEND, LlamaCpp
from govrun.engines.llamacpp_runner import EXIT_CODES, REPORT_PREFIX
from govrun.errors import ExitCode, GovrunError
from govrun.preflight import examine
from govrun.request import Request
from govrun.template import redacted, render
from govrun.testing import BackendConformance, make_captured, make_inquiry

MODEL = Path(__file__).resolve().parents[2] / "examples" / "tiny-bitnet-tq2_0.gguf"
live = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="xllamacpp is not installed: the embedded engine was NOT tried (pip install 'govrun[llamacpp]')",
)

REPORT = {"engine": "1", "finishReason": "stop", "generatedTokens": 3, "promptTokens": 4, "textBytes": 5}


def engine(folder: Path) -> Path:
    """A directory of installed packages that has the wheel's files, as far as a backend looks at them."""
    for name in (
        "xllamacpp/__init__.py",
        "xllamacpp/memory.py",
        "xllamacpp/xllamacpp.abi3.so",
        "xllamacpp.libs/libgomp-1.so.1.0.0",
        "xllamacpp-1.dist-info/RECORD",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def backend(folder: Path, cores: int = 4) -> LlamaCpp:
    return attrs.evolve(BACKEND, packages=(folder / "none", engine(folder / "site")), cores=cores)


def inquiry(given: LlamaCpp, model: Path | str = MODEL, prompt: bytes | None = b"abc", **parameters: str) -> Inquiry:
    request = Request("llamacpp", prompt=prompt)
    return make_inquiry(given, request, settings={"LLAMACPP_MODEL_GGUF": str(model)}, parameters=parameters)


def good(stdout: bytes = b"hello", **changes: object) -> Captured:
    return make_captured(stdout, b"log\n\n" + report(**changes) + b"late log\n")


def report(**changes: object) -> bytes:
    fields = {key: value for key, value in {**REPORT, **changes}.items() if value is not None}
    return (REPORT_PREFIX + json.dumps(fields) + "\n").encode()


@live
class TestConformance(BackendConformance):
    def backend(self) -> LlamaCpp:
        return BACKEND

    def inquiry(self, directory: Path) -> Inquiry:
        return inquiry(BACKEND)

    def captured(self) -> Captured:
        return good()


def refusal(given: LlamaCpp, asked: Inquiry) -> GovrunError:
    """The one refusal that a check of the inquiry gives."""
    errors = [result.error for result in examine(given.checks(asked)) if result.error is not None]
    assert len(errors) == 1, errors
    return errors[0]


def statuses(given: LlamaCpp, asked: Inquiry) -> dict[str, str]:
    return {result.id: result.status for result in examine(given.checks(asked))}


def test_a_request_with_everything_in_place_passes(tmp_path: Path) -> None:
    given = backend(tmp_path)
    found = statuses(given, inquiry(given))
    assert {name for name, status in found.items() if status != "passed"} == {
        "llamacpp.engine.pin",
        "llamacpp.model.pin",
    }


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("", "nothing"),
        ("~/m.gguf", "a path that begins with a tilde"),
        ("m.gguf", "a relative path"),
        ("/srv/../m.gguf", "a path with parent steps"),
        ("https://example.invalid/m.gguf", "a URL"),
        ("/srv/m\0.gguf", "NUL"),
    ],
)
def test_a_model_that_is_not_named_outright_is_refused(tmp_path: Path, model: str, found: str) -> None:
    given = backend(tmp_path)
    error = refusal(given, inquiry(given, model))
    assert (error.rule, error.found) == ("llamacpp.model", found)
    assert error.fix is not None
    assert "LLAMACPP_MODEL_GGUF" in error.fix


def test_a_model_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    given = backend(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    found = [refusal(given, inquiry(given, path)).found for path in (tmp_path / "none", tmp_path, tmp_path / "fifo")]
    assert found == ["No such file or directory", "a directory", "a FIFO"]


def test_a_model_that_others_may_write_is_refused(tmp_path: Path) -> None:
    given = backend(tmp_path)
    model = tmp_path / "m.gguf"
    model.write_bytes(MODEL.read_bytes())
    model.chmod(0o666)
    assert refusal(given, inquiry(given, model)).rule == "llamacpp.model.private"


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    given = backend(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"not a model")
    assert refusal(given, inquiry(given, tmp_path / "m.gguf")).rule == "gguf.magic"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # A tensor's type stands before its offset; the first tensor has offset 0.
        (b"\x23\0\0\0" + bytes(8), b"\x24\0\0\0" + bytes(8), "a model for bitnet.cpp"),
        (b"general.architecture", b"general.architectura", "no architecture or no tensors"),
    ],
)
def test_a_model_of_another_engine_is_refused(tmp_path: Path, old: bytes, new: bytes, found: str) -> None:
    given = backend(tmp_path)
    (tmp_path / "m.gguf").write_bytes(MODEL.read_bytes().replace(old, new, 1))
    error = refusal(given, inquiry(given, tmp_path / "m.gguf"))
    assert (error.rule, error.found) == ("llamacpp.model.kind", found)


def test_a_context_beyond_the_models_own_is_refused(tmp_path: Path) -> None:
    given = backend(tmp_path)
    error = refusal(given, inquiry(given, context="4097"))
    assert (error.rule, error.expected) == ("llamacpp.model.context", "at most 4096")


def test_a_model_that_does_not_tell_its_context_is_not_judged_by_it(tmp_path: Path) -> None:
    given = backend(tmp_path)
    (tmp_path / "m.gguf").write_bytes(MODEL.read_bytes().replace(b"context_length", b"context_lengtt"))
    asked = inquiry(given, tmp_path / "m.gguf", context="99999")
    assert statuses(given, asked)["llamacpp.model.context"] == "notApplicable"


def test_an_answer_that_fills_the_context_is_refused(tmp_path: Path) -> None:
    given = backend(tmp_path)
    assert refusal(given, inquiry(given, context="64", maxTokens="64")).rule == "llamacpp.context"


def test_more_threads_than_cores_are_refused(tmp_path: Path) -> None:
    given = backend(tmp_path, cores=2)
    error = refusal(given, inquiry(given, threads="3"))
    assert (error.rule, error.found, error.expected) == ("llamacpp.threads", "3 threads", "at most 2")


def test_threads_default_to_the_cores_and_at_most_four(tmp_path: Path) -> None:
    defaults = [
        {spec.name: spec.default for spec in backend(tmp_path, cores).parameters({})}["threads"] for cores in (1, 64)
    ]
    assert defaults == ["1", "4"]


@pytest.mark.parametrize("pin", ["model", MODEL.name])
def test_a_pinned_model_must_have_its_digest(tmp_path: Path, pin: str) -> None:
    given = backend(tmp_path)
    asked = inquiry(given)
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert statuses(given, attrs.evolve(asked, pins={pin: digest}))["llamacpp.model.pin"] == "passed"
    error = refusal(given, attrs.evolve(asked, pins={pin: "0" * 64}))
    assert (error.rule, error.found) == ("llamacpp.model.pin", f"sha256 {digest}")


def test_a_pinned_library_must_have_its_digest(tmp_path: Path) -> None:
    given = backend(tmp_path)
    digest = hashlib.sha256(b"xllamacpp/xllamacpp.abi3.so").hexdigest()
    asked = attrs.evolve(inquiry(given), pins={"xllamacpp.abi3.so": digest})
    assert statuses(given, asked)["llamacpp.engine.pin"] == "passed"
    assert refusal(given, attrs.evolve(asked, pins={"xllamacpp.abi3.so": "0" * 64})).rule == "llamacpp.engine.pin"


def test_without_the_wheel_the_fix_is_the_command_that_installs_it(tmp_path: Path) -> None:
    error = refusal(attrs.evolve(BACKEND, packages=(tmp_path,)), inquiry(BACKEND))
    assert (error.rule, error.fix) == ("llamacpp.engine", "pip install 'govrun[llamacpp]'")


def test_a_wheel_without_its_library_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp").mkdir()
    (tmp_path / "xllamacpp" / "__init__.py").touch()
    assert refusal(attrs.evolve(BACKEND, packages=(tmp_path,)), inquiry(BACKEND)).rule == "llamacpp.engine"


def test_an_interpreter_or_runner_that_is_not_there_is_refused(tmp_path: Path) -> None:
    given = backend(tmp_path)
    for change, rule in (
        ({"interpreter": Path("python")}, "llamacpp.interpreter"),
        ({"interpreter": tmp_path / "none"}, "llamacpp.interpreter"),
        ({"runner": tmp_path / "none"}, "llamacpp.runner"),
    ):
        broken = attrs.evolve(given, **change)
        assert refusal(broken, inquiry(broken)).rule == rule


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"argv": ("ls",)}, "words"),
        ({"outputs": ("out",)}, "outputs"),
        ({"prompt": None}, "nothing"),
        ({"prompt": b""}, "nothing"),
    ],
)
def test_what_this_backend_would_ignore_is_refused(tmp_path: Path, change: dict[str, object], found: str) -> None:
    given = backend(tmp_path)
    asked = inquiry(given)
    error = refusal(given, attrs.evolve(asked, request=attrs.evolve(asked.request, **change)))
    assert (error.rule, error.found) == ("llamacpp.request", found)


@pytest.mark.parametrize(
    ("prompt", "found"), [(b"ab\xff", "a bad byte at 2"), (b"a" * ((1 << 20) + 1), "1048577 bytes")]
)
def test_a_prompt_that_is_no_text_or_too_large_is_refused(tmp_path: Path, prompt: bytes, found: str) -> None:
    given = backend(tmp_path)
    error = refusal(given, inquiry(given, prompt=prompt))
    assert (error.rule, error.found) == ("llamacpp.prompt", found)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "-1"), ("topP", "1.1"), ("seed", "4294967295"), ("maxTokens", "-1"), ("context", "0")],
)
def test_a_parameter_out_of_range_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(GovrunError) as caught:
        inquiry(backend(tmp_path), **{name: value})
    assert caught.value.code is ExitCode.REQUEST_INVALID


def test_every_parameter_can_come_from_a_setting(tmp_path: Path) -> None:
    settings = {spec.name for spec in BACKEND.settings()}
    assert {spec.setting for spec in BACKEND.parameters({})} == settings - {"LLAMACPP_MODEL_GGUF"}
    assert {"LLAMACPP_THREADS", "LLAMACPP_CTX", "LLAMACPP_TEMP", "LLAMACPP_N_PREDICT", "LLAMACPP_SEED"} <= settings


def test_the_command_says_every_value_and_shows_no_path(tmp_path: Path) -> None:
    given = attrs.evolve(backend(tmp_path), interpreter=Path("/opt/py/bin/python"))
    plan = given.plan(inquiry(given, threads="2", temperature="0.70"))
    options = (
        "-I -B <llamacpp_runner.py> --model <tiny-bitnet-tq2_0.gguf> --prompt-descriptor 64 --ctx 2048 --batch 512 "
        "--threads 2 --n-predict 128 --temp 0.7 --top-k 40 --top-p 0.95 --min-p 0.05 --repeat-penalty 1 "
        "--repeat-last-n 64 --seed 0"
    )
    assert redacted(plan.template) == ("<python>", *options.split())
    assert plan.environment == (("LANG", "C.UTF-8"), ("PATH", "/usr/local/bin:/usr/bin:/bin"))
    assert plan.descriptors == ((64, b"abc"),)
    assert plan.cwd == Path("/")


def test_what_the_engine_is_made_of_is_a_dependency(tmp_path: Path) -> None:
    given = backend(tmp_path)
    assert [(d.role, d.path.name) for d in given.plan(inquiry(given)).dependencies] == [
        ("interpreter", given.interpreter.name),
        ("script", "llamacpp_runner.py"),
        ("script", "__init__.py"),
        ("script", "memory.py"),
        ("library", "xllamacpp.abi3.so"),
        ("data", "RECORD"),
        ("library", "libgomp-1.so.1.0.0"),
        ("model", MODEL.name),
    ]


def test_temperature_zero_is_deterministic_and_any_other_is_seeded(tmp_path: Path) -> None:
    given = backend(tmp_path)
    found = [given.plan(inquiry(given, temperature=temp, seed="9", threads="1")).determinism for temp in ("0.0", "0.1")]
    assert [(d.level, d.seed, d.temperature, d.batch, d.threads) for d in found] == [
        ("deterministic", 9, "0", 512, 1),
        ("seeded", 9, "0.1", 512, 1),
    ]


def test_a_parameter_without_a_value_makes_no_command(tmp_path: Path) -> None:
    asked = inquiry(BACKEND)
    unset = tuple(attrs.evolve(p, value=None) for p in asked.parameters)
    with pytest.raises(GovrunError) as caught:
        BACKEND.plan(attrs.evolve(asked, parameters=unset))
    assert caught.value.code is ExitCode.TEMPLATE_REFUSED


def test_an_answer_is_read_with_its_counts_wherever_the_report_stands() -> None:
    plan = BACKEND.plan(inquiry(BACKEND, seed="5"))
    facts = BACKEND.parse(plan, good())
    assert facts.text == b"hello"
    assert (facts.prompt_tokens, facts.generated_tokens, facts.finish_reason, facts.seed) == (4, 3, "stop", 5)
    assert BACKEND.parse(plan, make_captured(b"hello", report(finishReason="length"))).finish_reason == "length"


@pytest.mark.parametrize(
    ("captured", "rule"),
    [
        (make_captured(b"hello", report(), truncated=True), "llamacpp.truncated"),
        (make_captured(b"hello", b"log only\n"), "llamacpp.report"),
        (make_captured(b"hello", report()[:-1]), "llamacpp.report"),
        (make_captured(b"hello", b"E " + report()), "llamacpp.report"),
        (make_captured(b"hello", report() * 2), "llamacpp.report"),
        (make_captured(b"hello", report(engine="x" * 5000)), "llamacpp.report"),
        (make_captured(b"hello", REPORT_PREFIX.encode() + b"{\n"), "llamacpp.report"),
        (make_captured(b"hello", REPORT_PREFIX.encode() + b"[]\n"), "llamacpp.report"),
        (good(promptTokens=None), "llamacpp.counts"),
        (good(generatedTokens=True), "llamacpp.counts"),
        (good(generatedTokens=-1), "llamacpp.counts"),
        (good(textBytes="5"), "llamacpp.counts"),
        (good(b"hell"), "llamacpp.textSize"),
        (good(b"hello\n"), "llamacpp.textSize"),
        (good(finishReason=None), "llamacpp.finishReason"),
        (good(finishReason="eos"), "llamacpp.finishReason"),
    ],
)
def test_an_output_that_is_not_whole_is_no_answer(captured: Captured, rule: str) -> None:
    with pytest.raises(GovrunError) as caught:
        BACKEND.parse(BACKEND.plan(inquiry(BACKEND)), captured)
    assert (caught.value.code, caught.value.rule) == (ExitCode.OUTPUT_UNPARSABLE, rule)


@pytest.mark.parametrize(
    ("error", "rule"), [("llamacpp.modelRefused", "llamacpp.modelRefused"), ("anything", "llamacpp.report"), (7, "")]
)
def test_a_reported_failure_with_exit_code_zero_is_a_failure(error: object, rule: str) -> None:
    with pytest.raises(GovrunError) as caught:
        BACKEND.parse(BACKEND.plan(inquiry(BACKEND)), good(error=error))
    assert (caught.value.code, caught.value.rule) == (ExitCode.COMMAND_FAILED, rule or "llamacpp.report")


def test_every_exit_code_of_the_runner_has_its_name() -> None:
    assert {code: BACKEND.explain(make_captured(exit_code=number)) for code, number in EXIT_CODES.items()} == {
        code: code for code in EXIT_CODES
    }
    assert BACKEND.explain(make_captured(exit_code=1)) == "llamacpp.crashed"


@live
def test_the_planned_command_gives_the_answer_that_is_read(tmp_path: Path) -> None:
    plan = BACKEND.plan(inquiry(BACKEND, threads="1"))
    [(number, prompt)] = plan.descriptors
    (tmp_path / "prompt").write_bytes(prompt)
    descriptor = os.open(tmp_path / "prompt", os.O_RDONLY)
    try:
        os.dup2(descriptor, number)
        child = subprocess.run(
            render(plan.template), cwd=plan.cwd, env=dict(plan.environment), pass_fds=(number,), capture_output=True
        )
    finally:
        os.close(descriptor)
        os.close(number)
    facts = BACKEND.parse(plan, make_captured(child.stdout, child.stderr, child.returncode))
    assert (facts.text, facts.finish_reason) == (b"defghijklmnopqrstuvwxyz.", "stop")
