"""The conformance suite finds what it says it finds: one thing broken in a good backend fails the test for it."""

# ruff: noqa: S311, S605, PLW0108 - what a backend must not do is done here, and looked up when it is done

from __future__ import annotations

import os
import random
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from govrun import testing
from govrun.backends.interface import Check, Facts, Inquiry
from govrun.errors import ExitCode, GovrunError
from govrun.request import ParameterSpec, Request, SettingSpec
from govrun.template import Hole, Word
from govrun.testing import BackendConformance, make_captured, make_inquiry

PARROT = runpy.run_path(str(Path(__file__).parents[1] / "data" / "third_party" / "govrun_parrot.py"))["Parrot"]
GOOD = PARROT()
INQUIRY = make_inquiry(GOOD, Request("parrot", prompt=b"hello"))


def broken(**changes: Any) -> Any:
    """The parrot with some attributes replaced; a function is called without self."""
    made = {name: staticmethod(value) if callable(value) else value for name, value in changes.items()}
    return type("Broken", (PARROT,), made)()


def suite_of(backend: Any, inquiry: Callable[[Path], Inquiry] = lambda _: INQUIRY, captured: Any = None) -> Any:
    members = {
        "backend": lambda self: backend,
        "inquiry": lambda self, directory: inquiry(directory),
        "captured": lambda self: captured,
    }
    return type("Suite", (BackendConformance,), members)()


def run(suite: Any, test: str, tmp_path: Path) -> None:
    method = getattr(suite, test)
    method(tmp_path) if "tmp_path" in method.__func__.__code__.co_varnames[:2] else method()


def plan_with(**changes: Any) -> Any:
    return broken(plan=lambda inquiry: attrs.evolve(GOOD.plan(inquiry), **changes))


def words_with(*arguments: Any) -> Any:
    def plan(inquiry: Inquiry) -> Any:
        made = GOOD.plan(inquiry)
        more = tuple(argument(inquiry) if callable(argument) else argument for argument in arguments)
        return attrs.evolve(made, template=attrs.evolve(made.template, arguments=(*made.template.arguments, *more)))

    return broken(plan=plan)


def setting(**changes: Any) -> Any:
    fields = {"name": "PARROT_X", "kind": "text", "help": "x", **changes}
    return broken(settings=lambda: [SettingSpec(**fields)])


def parameter(**changes: Any) -> Any:
    fields = {"name": "x", "kind": "integer", "help": "x", **changes}
    return broken(parameters=lambda settings: [ParameterSpec(**fields)])


def checks(*made: Check) -> Any:
    return broken(checks=lambda inquiry: list(made))


def acting(act: Callable[[], object]) -> dict[str, Callable[..., Any]]:
    """Every method of the parrot, doing something it must not do before it answers."""

    def wrap(name: str) -> Callable[..., Any]:
        def method(*words: Any) -> Any:
            act()
            return getattr(GOOD, name)(*words)

        return method

    return {name: wrap(name) for name in ("settings", "parameters", "checks", "plan", "parse")}


HOLDS = Check("parrot.ok", "it holds", lambda: True)

NAME = "test_it_has_a_name_the_interface_version_and_every_method"
SETTINGS = "test_its_settings_are_well_formed"
PARAMETERS = "test_its_parameters_are_well_formed"
CHECKS = "test_its_checks_are_well_formed"
PASSING = "test_its_checks_pass_for_a_good_request_and_act_on_nothing"
REFUSING = "test_its_checks_refuse_with_our_errors_only"
PLAN = "test_its_plan_is_well_formed"
EQUAL = "test_equal_inquiries_give_equal_plans"
PROMPT_HOLE = "test_the_prompt_stands_in_its_hole_and_nowhere_else"
SECRET = "test_no_secret_reaches_argv"
ENVIRONMENT = "test_its_plan_takes_nothing_from_the_environment"
OUTPUT = "test_it_reads_any_output_or_says_why_not"
CODES = "test_it_has_a_code_for_every_failing_exit"


def leak_prompt(inquiry: Inquiry) -> Any:
    return Word("say " + (inquiry.request.prompt or b"").decode("utf-8", "replace"))


def leak_environment(inquiry: Inquiry) -> Any:
    return Word(os.environ.get("ZQX_CONFORMANCE", ""))


def leak_secret(inquiry: Inquiry) -> Any:
    return attrs.evolve(GOOD.plan(inquiry), environment=(("KEY", inquiry.settings.get("PARROT_KEY", "")),))


@pytest.mark.parametrize(
    ("backend", "test"),
    [
        (broken(name="Parrot"), NAME),
        (broken(interface=2), NAME),
        (broken(explain=None), NAME),
        (setting(name="parrot"), SETTINGS),
        (setting(name="GOVRUN_X"), SETTINGS),
        (setting(help=""), SETTINGS),
        (setting(required=True, default="x"), SETTINGS),
        (broken(settings=lambda: [SettingSpec("X", "text", str(random.random()))]), SETTINGS),
        (broken(settings=lambda: [SettingSpec("X", "text", "x")] * 2), SETTINGS),
        (setting(required=True), "test_a_required_setting_that_is_missing_is_refused"),
        (parameter(name="x y"), PARAMETERS),
        (parameter(help=""), PARAMETERS),
        (parameter(kind="text"), PARAMETERS),
        (parameter(kind="choice"), PARAMETERS),
        (parameter(choices=("1",)), PARAMETERS),
        (parameter(settable=False, default="1"), PARAMETERS),
        (parameter(kind="decimal", default="1.0"), PARAMETERS),
        (parameter(minimum="2", default="2", maximum=None, setting="PARROT_NONE"), PARAMETERS),
        (checks(), CHECKS),
        (checks(HOLDS, HOLDS), CHECKS),
        (checks(attrs.evolve(HOLDS, id="ok")), CHECKS),
        (checks(attrs.evolve(HOLDS, what="")), CHECKS),
        (checks(attrs.evolve(HOLDS, needs=("parrot.none",))), CHECKS),
        (checks(attrs.evolve(HOLDS, run=lambda: False)), PASSING),
        (checks(attrs.evolve(HOLDS, run=lambda: 1)), PASSING),
        (checks(attrs.evolve(HOLDS, run=lambda: 1)), REFUSING),
        (plan_with(cwd=Path("here")), PLAN),
        (plan_with(environment=(("B", ""), ("A", ""))), PLAN),
        (plan_with(environment=(("A", ""), ("A", ""))), PLAN),
        (plan_with(secrets=("KEY",)), PLAN),
        (plan_with(dependencies=()), PLAN),
        (plan_with(descriptors=((3, b""),)), PLAN),
        (plan_with(descriptors=((64, b""), (64, b""))), PLAN),
        (broken(plan=lambda i: attrs.evolve(GOOD.plan(i), environment=(("A", str(random.random())),))), EQUAL),
        (words_with(leak_prompt), PROMPT_HOLE),
        (words_with(leak_environment), ENVIRONMENT),
        (broken(plan=leak_secret, settings=lambda: [SettingSpec("PARROT_KEY", "secret", "x")]), SECRET),
        (broken(parse=lambda plan, captured: Facts(captured.stdout.data, prompt_tokens=-1)), OUTPUT),
        (broken(parse=lambda plan, captured: Facts("text")), OUTPUT),  # type: ignore[arg-type]
        (broken(parse=lambda plan, captured: None), OUTPUT),
        (broken(explain=lambda captured: "crow.failed"), CODES),
        (broken(explain=lambda captured: "parrot"), CODES),
    ],
)
def test_one_thing_broken_fails_the_test_for_it(backend: Any, test: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, GovrunError)):
        run(suite_of(backend), test, tmp_path)


@pytest.mark.parametrize(
    ("error", "test"),
    [
        (ValueError("x"), OUTPUT),
        (GovrunError(ExitCode.PREFLIGHT_REFUSED, "parrot.other", "x"), OUTPUT),
        (GovrunError(ExitCode.OUTPUT_UNPARSABLE, "other", "x"), OUTPUT),
    ],
)
def test_an_output_that_raises_something_else_fails(error: Exception, test: str, tmp_path: Path) -> None:
    def parse(plan: Any, captured: Any) -> Any:
        raise error

    with pytest.raises((AssertionError, ValueError)):
        run(suite_of(broken(parse=parse)), test, tmp_path)


@pytest.mark.parametrize("error", [ValueError("x"), GovrunError(ExitCode.PREFLIGHT_REFUSED, "other", "x")])
def test_a_check_that_raises_something_else_fails(error: Exception, tmp_path: Path) -> None:
    def refuse() -> bool:
        raise error

    with pytest.raises((AssertionError, ValueError)):
        run(suite_of(checks(attrs.evolve(HOLDS, run=refuse))), REFUSING, tmp_path)


def test_a_refusal_that_quotes_the_prompt_fails(tmp_path: Path) -> None:
    def check(inquiry: Inquiry) -> list[Check]:
        def refuse() -> bool:
            text = (inquiry.request.prompt or b"").decode("utf-8", "replace")
            raise GovrunError(ExitCode.PREFLIGHT_REFUSED, "parrot.prompt", f"cannot say {text}")

        return [Check("parrot.prompt", "x", refuse)]

    inquiry = attrs.evolve(INQUIRY, request=attrs.evolve(INQUIRY.request, prompt=b"a long prompt"))
    with pytest.raises(AssertionError, match="quotes the prompt"):
        run(suite_of(broken(checks=check), lambda _: inquiry), REFUSING, tmp_path)


@pytest.mark.parametrize(
    "act",
    [
        lambda: subprocess.run(["true"], check=True),
        lambda: os.system("true"),
        lambda: socket.socket().close(),
        lambda: time.time(),
        lambda: time.monotonic_ns(),
        lambda: os.urandom(1),
        lambda: random.random(),
        lambda: Path("/dev/null").open("w").close(),
        lambda: os.close(os.open("/dev/null", os.O_WRONLY)),
        lambda: os.putenv("ZQX_PUT", "1"),
    ],
    ids=["process", "shell", "socket", "clock", "monotonic", "urandom", "random", "write", "descriptor", "environment"],
)
@pytest.mark.parametrize(
    "test",
    [SETTINGS, PARAMETERS, CHECKS, "test_its_plan_acts_on_nothing", OUTPUT, "test_it_reads_the_output_of_a_good_run"],
)
def test_a_backend_that_acts_is_found(act: Callable[[], object], test: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(suite_of(broken(**acting(act)), captured=make_captured(b"hello")), test, tmp_path)


def test_a_check_that_acts_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(suite_of(checks(attrs.evolve(HOLDS, run=lambda: time.time() > 0))), PASSING, tmp_path)


def test_reading_and_writing_outside_the_watch_is_nobodys_business(tmp_path: Path) -> None:
    with testing._watched() as acts:
        assert (tmp_path / "none").exists() is False
        Path(__file__).read_bytes()
    time.time()
    assert acts == []


def test_a_prompt_that_becomes_a_flag_is_found(tmp_path: Path) -> None:
    def word(inquiry: Inquiry) -> Any:
        return Word((inquiry.request.prompt or b"").decode("utf-8", "replace"))

    with pytest.raises(AssertionError):
        run(suite_of(words_with(word)), "test_no_prompt_becomes_a_flag", tmp_path)


def test_other_words_and_holes_are_no_leak(tmp_path: Path) -> None:
    def own_hole(inquiry: Inquiry) -> Hole:
        return Hole("prompt", "prompt", (inquiry.request.prompt or b"").decode(), prefix="--say=")

    run(suite_of(words_with(Hole("text", "loud", "x"), Word(""), own_hole)), PROMPT_HOLE, tmp_path)


def test_a_backend_without_prompt_or_output_has_nothing_to_hide(tmp_path: Path) -> None:
    inquiry = attrs.evolve(INQUIRY, request=attrs.evolve(INQUIRY.request, prompt=None))
    suite = suite_of(GOOD, lambda _: inquiry)
    for test in (PROMPT_HOLE, "test_no_prompt_becomes_a_flag", "test_it_reads_the_output_of_a_good_run"):
        run(suite, test, tmp_path)
    run(suite, "test_it_reads_a_good_run_that_was_cut_anywhere_or_says_why_not", tmp_path)


def test_the_hooks_of_a_suite_are_the_subclass_own(tmp_path: Path) -> None:
    suite = BackendConformance()
    assert suite.captured() is None
    with pytest.raises(NotImplementedError):
        suite.backend()
    with pytest.raises(NotImplementedError):
        suite.inquiry(tmp_path)


def test_the_other_process_prints_the_same_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(f"import sys\nSuite = sys.modules[{__name__!r}].ParrotSuite\n")
    testing._print_plan("module_of_no_search_path", str(tmp_path / "elsewhere.py"), "Suite", str(tmp_path))
    assert capsys.readouterr().out == testing.plan_text(GOOD, INQUIRY)
    del sys.modules["module_of_no_search_path"]


class ParrotSuite(BackendConformance):
    __test__ = False

    def backend(self) -> Any:
        return GOOD

    def inquiry(self, directory: Path) -> Inquiry:
        return INQUIRY
