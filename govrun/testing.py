"""The conformance suite: subclass `BackendConformance` in a pytest file and every demand on a backend is tested.

    from govrun.testing import BackendConformance, make_inquiry

    class TestMine(BackendConformance):
        def backend(self):
            return BACKEND

        def inquiry(self, directory):
            return make_inquiry(BACKEND, Request("mine", prompt=b"hello"), settings={...})

The suite runs nothing that the backend plans. While the backend is asked, starting a process, opening a socket,
changing a file, reading a clock and drawing random bytes are recorded, and each of them is a failure.
"""
# ruff: noqa: S101 - a test suite asserts

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from govrun.backends.interface import (
    INTERFACE_VERSION,
    Backend,
    Captured,
    Check,
    CommandPlan,
    Containment,
    Dependency,
    Facts,
    Inquiry,
    Stream,
    TaskTemplate,
)
from govrun.digest import FileDigest, digest_file, sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from govrun.preflight import examine
from govrun.request import ParameterSpec, Request, SettingSpec, check_value, resolve_parameters
from govrun.template import Hole, redacted, render

PROMPT_MARK: Final = "zqxprompt"
SECRET_MARK: Final = "zqxsecretzqx"  # noqa: S105 - a mark to look for, no secret
ENVIRONMENT_MARK: Final = "zqxenvironment"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_RULE = re.compile(r"[a-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)+")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")

_FORBIDDEN_EVENTS: Final = (
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.kill",
    "pty.spawn",
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.putenv",
    "os.chdir",
    "shutil.rmtree",
)
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLOCKS: Final = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "gmtime",
    "localtime",
)

_GARBAGE: Final = (
    b"",
    b"\n",
    b"\0",
    b"\xff\xfe\x80" * 50,
    b"{}",
    b'{"error":"x"}\n',
    b"[" * 20_000,
    b"1" * 5_000,
    b"data: [DONE]\n\n",
    b"/etc/passwd ~/.ssh file:///x\n" * 3,
    b"\x1b]0;title\x07\r\n",
)
_BAD_SETTINGS: Final = ("", "x", "~/x", "../x", "/nonexistent/zqx", "https://example.invalid/x", "-1", "/", "a\0b")
_BAD_PROMPTS: Final = (None, b"", b"\xff\xfe", b"-n 1", b"--help", b"a\0b", b"</s>")
_BAD_ARGV: Final = ((), ("",), ("-x",), ("/",), ("/nonexistent/zqx",), ("../x",), ("~/x",))


def make_inquiry(
    backend: Backend,
    request: Request,
    *,
    settings: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    task: TaskTemplate | None = None,
    free_argv: bool = False,
    pins: Mapping[str, str] | None = None,
    digest: Callable[[Path], FileDigest] = digest_file,
) -> Inquiry:
    """An inquiry as govrun itself makes one: parameters resolved from those given, then the backend's defaults.

    Raises GovrunError (request-invalid) for a parameter that the backend does not have or that is out of range.
    """
    known = dict(settings or {})
    resolved = resolve_parameters(backend.parameters(known), [("option", dict(parameters or {}))])
    return Inquiry(request, known, resolved, task, free_argv, dict(pins or {}), digest)


def make_captured(stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0, *, truncated: bool = False) -> Captured:
    """What a child that exited by itself left behind; truncated: both streams were cut off."""

    def stream(data: bytes) -> Stream:
        return Stream(data, len(data), truncated, sha256_hex(data))

    containment = Containment("group", parent_death_signal=True, subreaper=True)
    return Captured("exited", exit_code, None, stream(stdout), stream(stderr), containment, 1, 1, 1)


def plan_text(backend: Backend, inquiry: Inquiry) -> str:
    """One spelling of a plan, for comparison: equal plans have equal texts in every process."""
    return repr(backend.plan(inquiry))


class BackendConformance:
    """The demands of `govrun.backends.interface`, as tests. Subclass it, give it a backend and one inquiry."""

    def backend(self) -> Backend:
        """The backend under test."""
        raise NotImplementedError

    def inquiry(self, directory: Path) -> Inquiry:
        """A request that the backend would run: every check passes.

        directory is for files that it needs. It is called more than once with the same directory, in other processes
        too, and must return the same each time.
        """
        raise NotImplementedError

    def captured(self) -> Captured | None:
        """The output of a run of that inquiry that succeeded, None where there is none to show."""
        return None

    # What the backend says of itself.

    def test_it_has_a_name_the_interface_version_and_every_method(self) -> None:
        backend = self.backend()
        assert _NAME.fullmatch(backend.name), f"name {backend.name!r}"
        assert backend.interface == INTERFACE_VERSION
        for method in ("settings", "parameters", "checks", "plan", "parse", "explain"):
            assert callable(getattr(backend, method)), method

    def test_its_settings_are_well_formed(self) -> None:
        with _watched() as acts:
            specs = tuple(self.backend().settings())
        assert not acts, acts
        assert specs == tuple(self.backend().settings()), "settings differ when asked twice"
        names = [spec.name for spec in specs]
        assert len(set(names)) == len(names), names
        for spec in specs:
            assert isinstance(spec, SettingSpec)
            assert _SETTING.fullmatch(spec.name), spec.name
            assert not spec.name.startswith("GOVRUN_"), f"{spec.name} belongs to govrun"
            assert spec.help, f"{spec.name} has no help"
            assert not (spec.required and spec.default is not None), f"{spec.name} is required and has a default"

    def test_its_parameters_are_well_formed(self, tmp_path: Path) -> None:
        backend, inquiry = self.backend(), self.inquiry(tmp_path)
        settings = {spec.name: spec for spec in backend.settings()}
        with _watched() as acts:
            specs = tuple(backend.parameters(inquiry.settings))
        assert not acts, acts
        assert specs == tuple(backend.parameters(inquiry.settings)), "parameters differ when asked twice"
        assert len({spec.name for spec in specs}) == len(specs), [spec.name for spec in specs]
        for spec in specs:
            assert isinstance(spec, ParameterSpec)
            _assert_parameter(spec)
            assert spec.setting is None or spec.setting in settings, f"{spec.name}: no setting {spec.setting}"

    def test_its_parameters_can_be_asked_for_before_anything_is_set(self) -> None:
        backend = self.backend()
        resolve_parameters(backend.parameters({}), [])

    # Checks.

    def test_its_checks_are_well_formed(self, tmp_path: Path) -> None:
        inquiry = self.inquiry(tmp_path)
        with _watched() as acts:
            checks = tuple(self.backend().checks(inquiry))
        assert not acts, acts
        assert checks, "no checks: that would pass everything"
        seen: set[str] = set()
        for check in checks:
            assert isinstance(check, Check)
            assert _RULE.fullmatch(check.id), f"{check.id!r} is no dotted id"
            assert check.id not in seen, f"{check.id} stands twice"
            assert check.what, f"{check.id} does not say what it is"
            assert set(check.needs) <= seen, f"{check.id} needs what does not stand before it"
            seen.add(check.id)

    def test_its_checks_pass_for_a_good_request_and_act_on_nothing(self, tmp_path: Path) -> None:
        inquiry = self.inquiry(tmp_path)
        with _watched() as acts:
            results = examine(self.backend().checks(inquiry))
        assert not acts, acts
        failing = [f"{r.id}: {r.status} {r.error}" for r in results if r.status not in ("passed", "notApplicable")]
        assert not failing, "\n".join(failing)
        assert any(r.status == "passed" for r in results), "no check says anything"

    def test_its_checks_refuse_with_our_errors_only(self, tmp_path: Path) -> None:
        for inquiry in self._bad_inquiries(tmp_path):
            answered: set[str] = set()
            for check in self.backend().checks(inquiry):
                if set(check.needs) <= answered and self._answers(check, inquiry):
                    answered.add(check.id)

    def _answers(self, check: Check, inquiry: Inquiry) -> bool:
        refusal = None
        try:
            answer = check.run()
        except GovrunError as error:
            refusal = error
        if refusal is None:
            assert answer is True or answer is False, f"{check.id} answered {answer!r}"
            return True
        assert _RULE.fullmatch(refusal.rule), f"{check.id} refuses under {refusal.rule!r}"
        _assert_no_prompt(f"the refusal of {check.id}", str(refusal), inquiry)
        return False

    def test_a_required_setting_that_is_missing_is_refused(self, tmp_path: Path) -> None:
        backend, inquiry = self.backend(), self.inquiry(tmp_path)
        for spec in backend.settings():
            if not spec.required:
                continue
            settings = {name: value for name, value in inquiry.settings.items() if name != spec.name}
            results = examine(backend.checks(evolve(inquiry, settings=settings)))
            assert any(result.status == "refused" for result in results), f"{spec.name} is not missed"

    def _bad_inquiries(self, directory: Path) -> Iterator[Inquiry]:
        good = self.inquiry(directory)
        for spec in self.backend().settings():
            for value in _BAD_SETTINGS:
                yield evolve(good, settings={**good.settings, spec.name: value})
        for prompt in _BAD_PROMPTS:
            yield evolve(good, request=evolve(good.request, prompt=prompt))
        for argv in _BAD_ARGV:
            yield evolve(good, request=evolve(good.request, argv=argv), free_argv=True, task=None)
            yield evolve(good, request=evolve(good.request, argv=argv), free_argv=False)
            yield evolve(good, task=TaskTemplate("task", argv))
        for name in ("/nonexistent/zqx", "../x", "/", "x\0y", "", "zqx/zqx"):
            yield evolve(good, request=evolve(good.request, inputs=(name,)))
            yield evolve(good, request=evolve(good.request, outputs=(name,)))
        yield evolve(good, request=evolve(good.request, cwd="/nonexistent/zqx"))

    # The plan.

    def test_its_plan_is_well_formed(self, tmp_path: Path) -> None:
        plan = self._plan(tmp_path)
        argv = render(plan.template)
        assert argv[0].startswith("/"), f"the program {argv[0]!r} is not absolute"
        assert plan.cwd.is_absolute(), plan.cwd
        names = [name for name, _ in plan.environment]
        assert names == sorted(set(names)), f"the environment is not sorted: {names}"
        assert set(plan.secrets) <= set(names), "a secret is not in the environment"
        assert all(isinstance(d, Dependency) and d.path.is_absolute() for d in plan.dependencies)
        assert argv[0] in {str(d.path) for d in plan.dependencies}, "the program is no dependency"
        numbers = [number for number, _ in plan.descriptors]
        assert len(set(numbers)) == len(numbers), numbers
        assert all(number >= 64 for number in numbers), numbers

    def test_its_plan_acts_on_nothing(self, tmp_path: Path) -> None:
        backend, inquiry = self.backend(), self.inquiry(tmp_path)
        with _watched() as acts:
            backend.plan(inquiry)
        assert not acts, acts

    def test_equal_inquiries_give_equal_plans(self, tmp_path: Path) -> None:
        assert plan_text(self.backend(), self.inquiry(tmp_path)) == plan_text(self.backend(), self.inquiry(tmp_path))

    def test_another_process_makes_the_same_plan(self, tmp_path: Path) -> None:
        here = plan_text(self.backend(), self.inquiry(tmp_path))
        seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        program = "import sys; from govrun import testing; testing._print_plan(*sys.argv[1:])"
        module = type(self).__module__
        file = str(sys.modules[module].__file__)
        words = [sys.executable, "-c", program, module, file, type(self).__qualname__, str(tmp_path)]
        child = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert child.returncode == 0, child.stderr[-2000:]
        assert child.stdout == here

    def test_its_plan_takes_nothing_from_the_environment(self, tmp_path: Path) -> None:
        os.environ["ZQX_CONFORMANCE"] = ENVIRONMENT_MARK
        try:
            plan = self._plan(tmp_path)
        finally:
            del os.environ["ZQX_CONFORMANCE"]
        assert ENVIRONMENT_MARK not in repr(plan)

    def test_the_prompt_stands_in_its_hole_and_nowhere_else(self, tmp_path: Path) -> None:
        inquiry = self.inquiry(tmp_path)
        if inquiry.request.prompt is None:
            return
        request = evolve(inquiry.request, prompt=PROMPT_MARK.encode())
        plan = self.backend().plan(evolve(inquiry, request=request))
        for argument in plan.template.arguments:
            if not (isinstance(argument, Hole) and argument.kind == "prompt"):
                assert PROMPT_MARK not in repr(argument), f"the prompt stands in {argument!r}"
        assert not any(PROMPT_MARK in word for word in redacted(plan.template)), redacted(plan.template)
        rest = evolve(plan, template=evolve(plan.template, arguments=()), descriptors=())
        assert PROMPT_MARK not in repr(rest)

    def test_no_prompt_becomes_a_flag(self, tmp_path: Path) -> None:
        backend, inquiry = self.backend(), self.inquiry(tmp_path)
        if inquiry.request.prompt is None:
            return
        plain = len(render(backend.plan(inquiry).template))
        for prompt in _BAD_PROMPTS:
            changed = evolve(inquiry, request=evolve(inquiry.request, prompt=prompt))
            with contextlib.suppress(GovrunError):
                argv = render(backend.plan(changed).template)
                assert len(argv) == plain, f"prompt {prompt!r} changes the number of words"
                assert (
                    prompt is None or prompt.decode("utf-8", "replace") not in argv[1:] or not prompt.startswith(b"-")
                )

    def test_no_secret_reaches_argv(self, tmp_path: Path) -> None:
        backend, inquiry = self.backend(), self.inquiry(tmp_path)
        secrets = [spec.name for spec in backend.settings() if spec.kind == "secret"]
        settings = {**inquiry.settings, **dict.fromkeys(secrets, SECRET_MARK)}
        plan = backend.plan(evolve(inquiry, settings=settings))
        assert SECRET_MARK not in repr(plan.template)
        assert SECRET_MARK not in repr(plan.descriptors)
        for name, value in plan.environment:
            assert SECRET_MARK not in value or name in plan.secrets, f"{name} holds a secret and does not say so"

    def _plan(self, directory: Path) -> CommandPlan:
        return self.backend().plan(self.inquiry(directory))

    # Reading the output.

    def test_it_reads_the_output_of_a_good_run(self, tmp_path: Path) -> None:
        captured = self.captured()
        if captured is None:
            return
        plan = self._plan(tmp_path)
        with _watched() as acts:
            facts = self.backend().parse(plan, captured)
        assert not acts, acts
        assert isinstance(facts, Facts)
        assert facts == self.backend().parse(plan, captured)

    def test_it_reads_any_output_or_says_why_not(self, tmp_path: Path) -> None:
        plan = self._plan(tmp_path)
        for stdout in _GARBAGE:
            for stderr in (b"", stdout, *_GARBAGE[2:5]):
                self._parses_or_refuses(plan, make_captured(stdout, stderr))
                self._parses_or_refuses(plan, make_captured(stdout, stderr, truncated=True))

    def test_it_reads_a_good_run_that_was_cut_anywhere_or_says_why_not(self, tmp_path: Path) -> None:
        captured = self.captured()
        if captured is None:
            return
        plan = self._plan(tmp_path)
        out, err = captured.stdout.data, captured.stderr.data
        for cut in range(max(len(out), len(err))):
            self._parses_or_refuses(plan, make_captured(out[:cut], err))
            self._parses_or_refuses(plan, make_captured(out, err[:cut]))
            self._parses_or_refuses(plan, make_captured(out, err[:cut] + b"\xff" + err[cut + 1 :]))

    def _parses_or_refuses(self, plan: CommandPlan, captured: Captured) -> None:
        refusal, facts = None, None
        with _watched() as acts:
            try:
                facts = self.backend().parse(plan, captured)
            except GovrunError as error:
                refusal = error
        assert not acts, acts
        if refusal is not None:
            assert refusal.code in (ExitCode.OUTPUT_UNPARSABLE, ExitCode.COMMAND_FAILED), refusal.code.label
            assert _RULE.fullmatch(refusal.rule), refusal.rule
            return
        assert isinstance(facts, Facts)
        assert type(facts.text) is bytes
        for count in (facts.prompt_tokens, facts.generated_tokens):
            assert count is None or (type(count) is int and count >= 0), facts
        assert facts.finish_reason in (None, "stop", "length")

    def test_it_has_a_code_for_every_failing_exit(self) -> None:
        backend = self.backend()
        for number in range(1, 256):
            code = backend.explain(make_captured(b"", b"", number))
            assert _RULE.fullmatch(code), code
            assert code.startswith(f"{backend.name}."), code


def _assert_parameter(spec: ParameterSpec) -> None:
    assert _PARAMETER.fullmatch(spec.name), spec.name
    assert spec.help, f"{spec.name} has no help"
    assert spec.kind in ("integer", "decimal", "choice"), f"{spec.name} is of kind {spec.kind}"
    assert (spec.kind == "choice") == bool(spec.choices), f"{spec.name}: choices and kind disagree"
    assert spec.settable or spec.default is None, f"{spec.name} cannot be set and has a default"
    for value in (spec.minimum, spec.maximum, spec.default):
        if value is not None:
            assert check_value(spec, value) == value, f"{spec.name}: {value} has another spelling"
    if spec.minimum is not None and spec.maximum is not None:
        assert Decimal(spec.minimum) <= Decimal(spec.maximum), spec.name


def _assert_no_prompt(where: str, text: str, inquiry: Inquiry) -> None:
    prompt = (inquiry.request.prompt or b"").decode("utf-8", "replace")
    assert len(prompt) < 8 or prompt not in text, f"{where} quotes the prompt"


def _print_plan(module: str, file: str, qualname: str, directory: str) -> None:
    """Print the plan of a conformance class; the other process of `test_another_process_makes_the_same_plan`."""
    value: Any = _import(module, file)
    for part in qualname.split("."):
        value = getattr(value, part)
    suite = value()
    sys.stdout.write(plan_text(suite.backend(), suite.inquiry(Path(directory))))


def _import(module: str, file: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        # pytest may have loaded the file under a name that no search path leads to.
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module] = loaded
        spec.loader.exec_module(loaded)
        return loaded


# An audit hook cannot be removed again, so there is one, and it records only while somebody watches.
_acts: dict[int, list[str]] = {}
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:  # pragma: no cover - Python traces no audit hook
    acts = _acts.get(threading.get_ident())
    if acts is None:
        return
    if event == "open":
        path, _mode, flags = arguments
        # Python itself writes the byte code of what a backend imports.
        if isinstance(flags, int) and flags & _WRITING and "__pycache__" not in str(path):
            acts.append("open for writing")
    elif event in _FORBIDDEN_EVENTS:
        acts.append(event)


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Record what this thread does and a backend must not do: processes, sockets, changed files, clocks, randomness."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    acts: list[str] = []
    with contextlib.ExitStack() as stack:
        for module, names in ((time, _CLOCKS), (os, ("urandom",)), (random, ("random", "randint", "getrandbits"))):
            for name in names:
                stack.enter_context(_recorded(module, name, acts))
        _acts[threading.get_ident()] = acts
        try:
            yield acts
        finally:
            del _acts[threading.get_ident()]


@contextlib.contextmanager
def _recorded(module: Any, name: str, acts: list[str]) -> Iterator[None]:
    real = getattr(module, name)
    here = threading.get_ident()

    def recorded(*words: Any, **named: Any) -> Any:
        if threading.get_ident() == here:  # pragma: no branch - another thread is somebody else's
            acts.append(f"{module.__name__}.{name}")
        return real(*words, **named)

    setattr(module, name, recorded)
    try:
        yield
    finally:
        setattr(module, name, real)
