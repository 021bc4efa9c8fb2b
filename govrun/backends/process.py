"""The `process` backend: a program and its words, from a task of the policy or, where the policy allows, the caller's.

A task's words are literal; `{input.N}` and `{output.N}`, each a whole word, stand for the N-th declared file, from 1.
The program is an absolute path, or a bare name looked up in SEARCH_PATH and nowhere else: neither the caller's PATH nor
the working directory decides what runs, and the receipt names the file that was found by its digest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from govrun.backends.files import (
    explicit_path,
    kind_of,
    not_writable_by_others,
    owned_by_user_or_root,
    program_file,
    readable_file,
    refusal,
)
from govrun.backends.interface import (
    INTERFACE_VERSION,
    Captured,
    Check,
    CommandPlan,
    Dependency,
    Determinism,
    Facts,
    Inquiry,
)
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.request import ParameterSpec, SettingSpec
from govrun.template import Argument, Hole, Template, Word

SEARCH_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin")
ENVIRONMENT: Final = (("LANG", "C.UTF-8"), ("PATH", ":".join(SEARCH_PATH)))

_FILE = re.compile(r"\{(input|output)\.([1-9][0-9]{0,2})\}")
_FILE_LIKE = re.compile(r"\{(?:input|output)\b")
_SHEBANG = re.compile(rb"#![ \t]*(/[^ \t\r\n]+)")


@frozen
class Process:
    """The backend. search: the directories in which a bare program name is looked up, in order."""

    search: tuple[str, ...] = SEARCH_PATH
    name: str = "process"
    interface: int = INTERFACE_VERSION

    def settings(self) -> Sequence[SettingSpec]:
        return ()

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:  # noqa: ARG002 - there are none
        return ()

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        def check(name: str, what: str, run: Callable[[Inquiry], bool], *needs: str) -> Check:
            return Check(
                f"process.{name}", what, lambda: run(inquiry), needs=tuple(f"process.{need}" for need in needs)
            )

        return (
            check("command", "the policy has a command for the task, or lets callers bring one", _command_given),
            check("request", "the request has nothing that this backend would ignore", _request),
            check("cwd", "the working directory is there", _cwd),
            check("program", "the program is found", self._program_found, "command"),
            check("program.executable", "the program can be executed", self._program_executable, "program"),
            check("program.private", "only its owner or root can change the program", self._program_private, "program"),
            check("program.pin", "the program has the pinned digest", self._program_pin, "program"),
            check("holes", "every file hole of the task has its file", _holes, "command"),
            check("inputs", "every input is a regular file that can be read", _inputs, "cwd"),
            check("outputs", "every output has a place of its own to be written", _outputs, "cwd"),
            check("files", "no file is declared in two ways", _files, "inputs", "outputs"),
        )

    def _program(self, inquiry: Inquiry) -> Path:
        word = _words(inquiry)[0]
        if word.startswith("/"):
            return explicit_path("process.program", "the program", word, "give the program's absolute path")
        if "/" not in word:
            return self._look_up(word)
        if inquiry.task is not None:
            raise refusal(
                "process.program",
                "the task's program is relative",
                "a relative path",
                "an absolute path or a bare name",
                "write the program's absolute path into the task",
            )
        # The caller wrote the whole command, so the caller's directory is part of it.
        path = os.path.join(inquiry.request.cwd, word)
        return explicit_path("process.program", "the program", path.replace("/./", "/"), "give its absolute path")

    def _look_up(self, name: str) -> Path:
        for folder in self.search:
            path = Path(folder, name)
            if path.is_file() and os.access(path, os.X_OK):
                return path
        raise refusal(
            "process.program",
            "there is no such program",
            "no executable file of that name",
            f"one in {', '.join(self.search)}",
            "give the program's absolute path",
        )

    def _program_found(self, inquiry: Inquiry) -> bool:
        self._program(inquiry)
        return True

    def _program_executable(self, inquiry: Inquiry) -> bool:
        fix = "give the absolute path of a program"
        program_file("process.program.executable", "the program", self._program(inquiry), fix)
        return True

    def _program_private(self, inquiry: Inquiry) -> bool:
        program = self._program(inquiry)
        owned_by_user_or_root("process.program.private", "the program", program)
        not_writable_by_others("process.program.private", "the program", program)
        return True

    def _program_pin(self, inquiry: Inquiry) -> bool:
        program = self._program(inquiry)
        pin = inquiry.pins.get(program.name)
        if pin is None:
            return False
        found = inquiry.digest(program).sha256
        if found != pin:
            raise refusal(
                "process.program.pin",
                f"{program.name} is not the pinned program",
                f"sha256 {found}",
                f"sha256 {pin}",
                "put the pinned program back, or have the policy pin this one",
            )
        return True

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        program = self._program(inquiry)
        words = _words(inquiry)[1:]
        if inquiry.task is None:
            name = "process.free"
            rest: list[Argument] = [Hole("free", f"arg.{n}", word) for n, word in enumerate(words, 1)]
        else:
            name = f"process.{inquiry.task.name}"
            rest = [_task_word(inquiry, n, word) for n, word in enumerate(words, 1)]
        return CommandPlan(
            template=Template(name, (Hole("path", "program", str(program)), *rest)),
            cwd=Path(inquiry.request.cwd),
            environment=ENVIRONMENT,
            dependencies=(Dependency("binary", program), *_interpreter(program)),
            determinism=Determinism("notApplicable"),
        )

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:  # noqa: ARG002 - any output is good
        if captured.stdout.truncated:
            raise GovrunError(
                ExitCode.OUTPUT_UNPARSABLE,
                "process.truncated",
                "the output was cut off",
                found=f"{captured.stdout.size} bytes",
                expected=f"at most {len(captured.stdout.data)} bytes",
            )
        return Facts(captured.stdout.data)

    def explain(self, captured: Captured) -> str:  # noqa: ARG002 - the exit code itself stands in the receipt
        return "process.exit"


def _words(inquiry: Inquiry) -> tuple[str, ...]:
    """The command, program first; never empty. Raises GovrunError where the policy and the request give none."""
    request, task = inquiry.request, inquiry.task
    if task is not None:
        if request.argv:
            raise refusal(
                "process.command",
                "the task has a command of its own",
                "words after --",
                "none",
                "leave the words out, or leave the task out",
            )
        if not task.argv:
            raise refusal("process.command", "the task's command is empty", "no words", "a program")
        return task.argv
    if not inquiry.free_argv:
        found = "a task without argv" if request.task is not None else "no task"
        raise refusal(
            "process.command",
            "the policy gives no command and lets callers bring none",
            found,
            "a task with argv, or freeArgv",
            "name a task of the policy, or set freeArgv = true under backends.process",
        )
    if not request.argv:
        raise refusal("process.command", "there is no command", "no words", "a program", "write the command after --")
    return request.argv


def _task_word(inquiry: Inquiry, number: int, word: str) -> Argument:
    hole = _FILE.fullmatch(word)
    if hole is not None:
        kind, index = hole[1], int(hole[2])
        return Hole("path", f"{kind}.{index}", str(_file(inquiry, kind, index)))
    # A receipt shows no absolute path; the policy's digest holds the whole of it.
    return Hole("path", f"word.{number}", word) if word.startswith("/") else Word(word)


def _file(inquiry: Inquiry, kind: str, number: int) -> Path:
    declared = inquiry.request.inputs if kind == "input" else inquiry.request.outputs
    if number > len(declared):
        raise refusal(
            "process.holes",
            f"the task needs {kind} {number}",
            f"{len(declared)} declared",
            f"at least {number}",
            f"declare it with --{kind}",
        )
    return _absolute(inquiry, declared[number - 1])


def _absolute(inquiry: Inquiry, given: str) -> Path:
    return Path(inquiry.request.cwd, given)


def _interpreter(program: Path) -> tuple[Dependency, ...]:
    """The interpreter that a script's first line names; the kernel starts that, not the script."""
    try:
        with program.open("rb") as file:
            first = _SHEBANG.match(file.read(256))
    except OSError:
        return ()  # what can be executed but not read cannot be a script
    return () if first is None else (Dependency("interpreter", Path(os.fsdecode(first[1]))),)


def _command_given(inquiry: Inquiry) -> bool:
    _words(inquiry)
    return True


def _request(inquiry: Inquiry) -> bool:
    if inquiry.request.prompt is not None:
        raise refusal(
            "process.request",
            "this backend takes no prompt",
            f"{len(inquiry.request.prompt)} bytes",
            "none",
            "declare a file with --input",
        )
    return True


def _cwd(inquiry: Inquiry) -> bool:
    cwd = explicit_path("process.cwd", "the working directory", inquiry.request.cwd, "give an absolute path")
    if not cwd.is_dir():
        raise refusal("process.cwd", "the working directory is not there", "no directory", "a directory")
    return True


def _holes(inquiry: Inquiry) -> bool:
    if inquiry.task is None:
        return False
    for number, word in enumerate(inquiry.task.argv):
        if _FILE_LIKE.search(word) is not None and (_FILE.fullmatch(word) is None or number == 0):
            raise refusal(
                "process.holes",
                f"word {number} of the task has a file hole in the wrong place",
                "a hole inside a word",
                "the hole as a word of its own",
                "write {input.1} or {output.1} alone, after the program",
            )
        _task_word(inquiry, number, word)
    return True


def _inputs(inquiry: Inquiry) -> bool:
    for number, given in enumerate(inquiry.request.inputs, 1):
        readable_file("process.inputs", f"input {number}", _absolute(inquiry, given), "declare a file that exists")
    return bool(inquiry.request.inputs)


def _outputs(inquiry: Inquiry) -> bool:
    for number, given in enumerate(inquiry.request.outputs, 1):
        _check_output(inquiry, f"output {number}", given)
    return bool(inquiry.request.outputs)


def _check_output(inquiry: Inquiry, what: str, given: str) -> None:
    if ".." in given.split("/"):
        raise refusal("process.outputs", f"{what} leaves its directory", "parent steps", "a path without them")
    path = _absolute(inquiry, given)
    if not path.parent.is_dir():
        raise refusal("process.outputs", f"{what} has no directory", "no directory", "one that exists", "make it first")
    if not _is_direct(inquiry, path):
        raise refusal(
            "process.outputs",
            f"{what} would be written through a symbolic link",
            "a symbolic link in its path",
            "a path without one",
            "give the path without symbolic links",
        )
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise refusal("process.outputs", f"{what} has no usable name", type(error).__name__, "a name") from error
    if not stat.S_ISREG(status.st_mode):
        raise refusal("process.outputs", f"{what} exists and is no file", kind_of(status), "a regular file or nothing")


def _is_direct(inquiry: Inquiry, path: Path) -> bool:
    # The working directory may itself be reached through a link: it is where the caller stands. Below it none may be.
    cwd, parent = Path(inquiry.request.cwd), path.parent
    start, base = (cwd, Path(os.path.realpath(cwd))) if parent.is_relative_to(cwd) else (Path("/"), Path("/"))
    return os.path.realpath(parent) == str(base / parent.relative_to(start))


def _files(inquiry: Inquiry) -> bool:
    request = inquiry.request
    inputs = [_identity(_absolute(inquiry, given)) for given in request.inputs]
    outputs = [_identity(_absolute(inquiry, given)) for given in request.outputs]
    if len(set(outputs)) != len(outputs):
        raise refusal("process.files", "two outputs are one file", "the same file twice", "different files")
    if set(inputs) & set(outputs):
        raise refusal(
            "process.files",
            "an input is also an output",
            "the same file",
            "different files",
            "write the output to another file",
        )
    return bool(inputs or outputs)


def _identity(path: Path) -> tuple[int, int] | str:
    """What tells two files apart, hard links and symbolic links included; the path itself where there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


BACKEND: Final = Process()
