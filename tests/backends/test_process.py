"""The process backend: what it lets run, from where, and what it refuses."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import attrs
import pytest

from govrun.backends import process
from govrun.backends.interface import Captured, Inquiry, TaskTemplate
from govrun.backends.process import BACKEND, Process
from govrun.errors import ExitCode, GovrunError
from govrun.preflight import examine
from govrun.request import Request
from govrun.template import redacted, render
from govrun.testing import BackendConformance, make_captured, make_inquiry


class TestFreeCommand(BackendConformance):
    def backend(self) -> Process:
        return BACKEND

    def inquiry(self, directory: Path) -> Inquiry:
        return make_inquiry(BACKEND, Request("process", argv=("true", "-x", "/y"), cwd=str(directory)), free_argv=True)

    def captured(self) -> Captured:
        return make_captured(b"some\xffbytes", b"")


class TestTask(BackendConformance):
    def backend(self) -> Process:
        return BACKEND

    def inquiry(self, directory: Path) -> Inquiry:
        (directory / "in.txt").write_text("x")
        request = Request("process", task="copy", inputs=("in.txt",), outputs=("out.txt",), cwd=str(directory))
        return make_inquiry(BACKEND, request, task=TaskTemplate("copy", ("cp", "-p", "{input.1}", "{output.1}")))


def free(tmp_path: Path, *argv: str, **fields: object) -> Inquiry:
    request = attrs.evolve(Request("process", argv=argv, cwd=str(tmp_path)), **fields)
    return make_inquiry(BACKEND, request, free_argv=True)


def task(tmp_path: Path, *argv: str, **fields: object) -> Inquiry:
    request = attrs.evolve(Request("process", task="t", cwd=str(tmp_path)), **fields)
    return make_inquiry(BACKEND, request, task=TaskTemplate("t", argv))


def refusal(inquiry: Inquiry, backend: Process = BACKEND) -> GovrunError:
    """The one refusal that a check of the inquiry gives."""
    errors = [result.error for result in examine(backend.checks(inquiry)) if result.error is not None]
    assert len(errors) == 1, errors
    return errors[0]


def statuses(inquiry: Inquiry) -> dict[str, str]:
    return {result.id: result.status for result in examine(BACKEND.checks(inquiry))}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\necho hello\n")
    path.chmod(0o755)
    return path


def test_a_bare_name_is_found_in_the_fixed_search_path_only(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    error = refusal(free(tmp_path, "tool"))
    assert error.rule == "process.program"
    assert error.found == "no executable file of that name"


def test_the_first_directory_of_the_search_path_wins(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "two" / "tool").chmod(0o755)
    backend = Process(search=(str(tmp_path / "one"), str(tmp_path / "two")))
    plan = backend.plan(free(tmp_path, "tool"))
    assert render(plan.template)[0] == str(tmp_path / "two" / "tool")


def test_a_program_with_a_slash_is_the_callers_own_in_a_free_command(tmp_path: Path, program: Path) -> None:
    inquiry = free(tmp_path, "./tool", "a b")
    assert "refused" not in statuses(inquiry).values()
    plan = BACKEND.plan(inquiry)
    assert render(plan.template) == (str(tmp_path / "tool"), "a b")
    assert plan.template.name == "process.free"
    assert redacted(plan.template) == ("<tool>", "{arg.1}")


def test_a_program_with_a_slash_is_refused_in_a_task(tmp_path: Path, program: Path) -> None:
    assert refusal(task(tmp_path, "./tool")).found == "a relative path"


def test_a_program_above_the_working_directory_is_refused(tmp_path: Path, program: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert refusal(free(tmp_path / "sub", "../tool")).found == "a path with parent steps"


def test_a_script_brings_its_interpreter_as_a_dependency(tmp_path: Path, program: Path) -> None:
    roles = [(d.role, d.path.name) for d in BACKEND.plan(free(tmp_path, str(program))).dependencies]
    assert roles == [("binary", "tool"), ("interpreter", "sh")]


def test_a_binary_has_no_interpreter(tmp_path: Path) -> None:
    assert [d.role for d in BACKEND.plan(free(tmp_path, "true")).dependencies] == ["binary"]


def test_a_program_that_cannot_be_read_has_no_interpreter_to_tell(tmp_path: Path) -> None:
    assert process._interpreter(tmp_path / "nothing") == ()


@pytest.mark.parametrize(("mode", "rule"), [(0o644, "process.program.executable"), (0o757, "process.program.private")])
def test_a_program_that_is_not_executable_or_writable_by_others_is_refused(
    tmp_path: Path, program: Path, mode: int, rule: str
) -> None:
    program.chmod(mode)
    error = refusal(free(tmp_path, str(program)))
    assert error.rule == rule
    assert error.found == f"mode {mode:o}"


def test_a_program_in_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    tool = tmp_path / "open" / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (tmp_path / "open").chmod(0o777)
    assert refusal(free(tmp_path, str(tool))).rule == "process.program.private"
    # The sticky bit keeps others from replacing what is not theirs.
    (tmp_path / "open").chmod(0o1777)
    assert "refused" not in statuses(free(tmp_path, str(tool))).values()


def test_a_link_to_a_program_is_judged_by_its_own_directory_too(tmp_path: Path, program: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link").symlink_to(program)
    (tmp_path / "open").chmod(0o777)
    assert refusal(free(tmp_path, str(tmp_path / "open" / "link"))).rule == "process.program.private"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_program_of_another_user_is_refused(tmp_path: Path, program: Path) -> None:
    os.chown(program, 12345, 12345)
    error = refusal(free(tmp_path, str(program)))
    assert (error.rule, error.found) == ("process.program.private", "owner 12345")


def test_a_directory_is_no_program(tmp_path: Path) -> None:
    results = examine(BACKEND.checks(free(tmp_path, str(tmp_path))))
    errors = {result.id: result.error for result in results if result.error is not None}
    assert errors["process.program.executable"].found == "a directory"


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    results = examine(BACKEND.checks(free(tmp_path, str(tmp_path / "none"))))
    assert {result.id for result in results if result.error} == {
        "process.program.executable",
        "process.program.private",
    }


def test_a_pinned_program_must_have_its_digest(tmp_path: Path, program: Path) -> None:
    inquiry = free(tmp_path, str(program))
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    assert statuses(attrs.evolve(inquiry, pins={"tool": digest}))["process.program.pin"] == "passed"
    assert statuses(inquiry)["process.program.pin"] == "notApplicable"
    assert refusal(attrs.evolve(inquiry, pins={"tool": "0" * 64})).rule == "process.program.pin"


def test_without_task_and_without_free_commands_nothing_runs(tmp_path: Path) -> None:
    inquiry = attrs.evolve(free(tmp_path, "true"), free_argv=False)
    error = refusal(inquiry)
    assert (error.rule, error.found) == ("process.command", "no task")
    named = attrs.evolve(inquiry, request=attrs.evolve(inquiry.request, task="t"))
    assert refusal(named).found == "a task without argv"


def test_a_free_command_without_words_is_refused(tmp_path: Path) -> None:
    assert refusal(free(tmp_path)).found == "no words"


def test_a_task_takes_no_words_from_the_caller(tmp_path: Path) -> None:
    assert refusal(task(tmp_path, "true", argv=("rm",))).found == "words after --"


def test_a_task_with_an_empty_command_is_refused(tmp_path: Path) -> None:
    assert refusal(task(tmp_path)).rule == "process.command"


def test_a_prompt_is_refused(tmp_path: Path) -> None:
    assert refusal(free(tmp_path, "true", prompt=b"secret text")).found == "11 bytes"


def test_a_working_directory_that_is_missing_or_relative_is_refused(tmp_path: Path) -> None:
    assert refusal(free(tmp_path / "none", "true")).rule == "process.cwd"
    assert refusal(free(tmp_path, "true", cwd="here")).found == "a relative path"


def test_the_words_of_a_task_are_literal_and_its_files_absolute(tmp_path: Path) -> None:
    (tmp_path / "-rf").write_text("x")
    inquiry = task(tmp_path, "cp", "-p", "/etc/hostname", "{input.1}", "{output.1}", inputs=("-rf",), outputs=("out",))
    assert "refused" not in statuses(inquiry).values()
    plan = BACKEND.plan(inquiry)
    program = render(plan.template)[0]
    assert render(plan.template) == (program, "-p", "/etc/hostname", str(tmp_path / "-rf"), str(tmp_path / "out"))
    assert plan.template.name == "process.t"
    assert redacted(plan.template) == ("<cp>", "-p", "<hostname>", "<-rf>", "<out>")
    assert plan.cwd == tmp_path
    assert plan.environment == (("LANG", "C.UTF-8"), ("PATH", "/usr/local/bin:/usr/bin:/bin"))


@pytest.mark.parametrize(
    "word", ["--in={input.1}", "{input.1}x", "{input.x}", "{output.}", "{input}", "{input.0}", "{input.01}"]
)
def test_a_file_hole_inside_a_word_is_refused(tmp_path: Path, word: str) -> None:
    (tmp_path / "in").write_text("x")
    assert refusal(task(tmp_path, "cat", word, inputs=("in",))).rule == "process.holes"


def test_a_file_hole_as_the_program_is_refused(tmp_path: Path) -> None:
    results = examine(BACKEND.checks(task(tmp_path, "{input.1}", inputs=())))
    assert "process.holes" in {result.id for result in results if result.error is not None}


def test_braces_that_are_no_file_holes_are_literal(tmp_path: Path) -> None:
    plan = BACKEND.plan(task(tmp_path, "awk", "{print $1}"))
    assert render(plan.template)[1:] == ("{print $1}",)


def test_a_file_hole_without_its_file_is_refused(tmp_path: Path) -> None:
    error = refusal(task(tmp_path, "cat", "{input.2}"))
    assert (error.rule, error.found, error.expected) == ("process.holes", "0 declared", "at least 2")


@pytest.mark.parametrize("name", ["none", ".", "fifo"])
def test_an_input_that_is_no_readable_file_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(free(tmp_path, "true", inputs=(name,))).rule == "process.inputs"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_input_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").touch(mode=0)
    assert refusal(free(tmp_path, "true", inputs=("in",))).found == "no permission to read"


def test_an_output_may_be_new_or_replace_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    assert statuses(free(tmp_path, "true", outputs=("old", "new")))["process.outputs"] == "passed"


def test_an_output_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "fifo")
    found = [refusal(free(tmp_path, "true", outputs=(name,))).found for name in ("folder", "link", "fifo")]
    assert found == ["a directory", "a symbolic link", "a FIFO"]


def test_an_output_with_no_directory_or_with_parent_steps_is_refused(tmp_path: Path) -> None:
    assert refusal(free(tmp_path, "true", outputs=("none/out",))).found == "no directory"
    assert refusal(free(tmp_path, "true", outputs=("../out",))).found == "parent steps"


def test_an_output_whose_name_cannot_be_is_refused(tmp_path: Path) -> None:
    assert refusal(free(tmp_path, "true", outputs=("x" * 300,))).rule == "process.outputs"


@pytest.mark.parametrize("is_absolute", [False, True])
def test_an_output_that_leaves_through_a_symbolic_link_is_refused(tmp_path: Path, is_absolute: bool) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "link").symlink_to(tmp_path / "outside")
    name = str(tmp_path / "cwd" / "link" / "out") if is_absolute else "link/out"
    error = refusal(free(tmp_path / "cwd", "true", outputs=(name,)))
    assert error.found == "a symbolic link in its path"
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_working_directory_that_is_itself_a_link_is_no_escape(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "refused" not in statuses(free(tmp_path / "link", "true", outputs=("out",))).values()


def test_an_output_elsewhere_is_allowed_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    assert "refused" not in statuses(free(tmp_path / "cwd", "true", outputs=(str(tmp_path / "out"),))).values()


@pytest.mark.parametrize("other", ["in", "./in", "hard", "link"])
def test_an_input_that_is_also_an_output_is_refused(tmp_path: Path, other: str) -> None:
    (tmp_path / "in").write_text("x")
    os.link(tmp_path / "in", tmp_path / "hard")
    (tmp_path / "link").symlink_to("in")
    inputs, outputs = ((other,), ("in",)) if other == "link" else (("in",), (other,))
    assert refusal(free(tmp_path, "true", inputs=inputs, outputs=outputs)).rule == "process.files"


def test_two_outputs_that_are_one_file_are_refused(tmp_path: Path) -> None:
    assert refusal(free(tmp_path, "true", outputs=("out", "./out"))).found == "the same file twice"


def test_stdout_is_the_text_to_the_byte(tmp_path: Path) -> None:
    plan = BACKEND.plan(free(tmp_path, "true"))
    assert BACKEND.parse(plan, make_captured(b"a\xff\n\n")).text == b"a\xff\n\n"


def test_stdout_that_was_cut_off_is_no_text(tmp_path: Path) -> None:
    plan = BACKEND.plan(free(tmp_path, "true"))
    with pytest.raises(GovrunError) as caught:
        BACKEND.parse(plan, make_captured(b"abc", truncated=True))
    assert caught.value.code is ExitCode.OUTPUT_UNPARSABLE
    assert caught.value.rule == "process.truncated"
