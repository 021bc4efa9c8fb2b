"""What must hold before bitnet.cpp is started, in the order in which a person would fix it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from govrun.backends.bitnet_model import load_header, model_checks
from govrun.backends.bitnet_request import parameter_checks, prompt_checks
from govrun.backends.bitnet_site import Site, setting_checks
from govrun.backends.bitnet_tree import chat_generation_marks, find_libraries, require_directory, require_safe
from govrun.backends.files import program_file, readable_file, refusal
from govrun.backends.interface import Check, Dependency, Inquiry
from govrun.frozen import evolve

_BUILD = "build bitnet.cpp in BITNET_CPP_DIR, as its README says"


def all_checks(site: Site, inquiry: Inquiry, dependencies: Callable[[], Iterable[Dependency]]) -> tuple[Check, ...]:
    """Every check for one request. dependencies: the files of the plan, asked for only when they are known to exist."""
    header = functools.cache(functools.partial(load_header, Path(site.model)))
    return (
        *setting_checks(site),
        *_tree_checks(site),
        *_library_checks(site),
        *model_checks(Path(site.model), header),
        *_pin_checks(site, inquiry, dependencies),
        *parameter_checks(inquiry, header),
        *prompt_checks(site, inquiry, header),
    )


def _tree_checks(site: Site) -> Iterable[Check]:
    root, interpreter = Path(site.root), Path(site.interpreter)

    def directory() -> bool:
        require_directory(root, "bitnet.dir.present", "BITNET_CPP_DIR", _BUILD)
        return True

    def script() -> bool:
        readable_file("bitnet.script.present", "run_inference.py", site.script, _BUILD)
        return True

    def python() -> bool:
        fix = "set BITNET_PYTHON to a Python interpreter"
        program_file("bitnet.interpreter.present", "the interpreter", interpreter, fix)
        return True

    def binary() -> bool:
        program_file("bitnet.binary.present", "build/bin/llama-cli", site.binary, _BUILD)
        readable_file("bitnet.binary.present", "build/bin/llama-cli", site.binary, _BUILD)
        return True

    yield Check("bitnet.dir.present", "BITNET_CPP_DIR is a directory", directory, ("bitnet.dir.local",))
    yield _safe_check("dir", "BITNET_CPP_DIR", root)
    yield _only_wrapped(site, Check("bitnet.script.present", "the script is there", script, ("bitnet.dir.present",)))
    yield _only_wrapped(site, _safe_check("script", "run_inference.py", site.script))
    needs = ("bitnet.interpreter.local",)
    yield _only_wrapped(site, Check("bitnet.interpreter.present", "the interpreter is there", python, needs))
    yield _only_wrapped(site, _safe_check("interpreter", "the interpreter", interpreter))
    yield Check("bitnet.binary.present", "the engine's program is there", binary, ("bitnet.dir.present",))
    folders = (site.binary.parent, site.binary.parent.parent)
    yield _safe_check("binary", "build/bin/llama-cli", site.binary, *folders)
    what = "llama-cli completes a prompt, and is not the chat program"
    needs = ("bitnet.binary.present",)
    yield Check("bitnet.generation.completion", what, functools.partial(_completion, root), needs)


def _safe_check(key: str, name: str, *paths: Path) -> Check:
    rule = f"bitnet.{key}.safe"

    def run() -> bool:
        for path in paths:
            require_safe(path, rule, name if path == paths[0] else f"the directory {path.name}")
        return True

    return Check(rule, f"{name} can be changed by nobody else", run, (f"bitnet.{key}.present",))


def _only_wrapped(site: Site, check: Check) -> Check:
    # llama-cli needs neither the script nor an interpreter.
    return check if site.wrapped else evolve(check, run=lambda: False)


def _completion(root: Path) -> bool:
    marks = chat_generation_marks(root)
    if marks:
        raise refusal(
            "bitnet.generation.completion",
            "this llama-cli is a chat program: a prompt that begins with /read would load a file, and its stdout is "
            "not the answer; the llama-completion beside it loses output with exit code 0",
            ", ".join(marks[:3]),
            "a bitnet.cpp from before July 2026",
            "check out and build an older bitnet.cpp, or use another backend",
        )
    return True


def _library_checks(site: Site) -> Iterable[Check]:
    root = Path(site.root)

    def safe() -> bool:
        libraries = find_libraries(site.binary, root)
        for library in libraries:
            require_safe(library, "bitnet.libraries.safe", library.name)
            require_safe(library.parent, "bitnet.libraries.safe", f"the directory of {library.name}")
        return bool(libraries)

    what = "the engine's shared libraries are there"
    needs = ("bitnet.binary.present",)
    yield Check("bitnet.libraries.present", what, lambda: bool(find_libraries(site.binary, root)), needs)
    what = "the engine's shared libraries can be changed by nobody else"
    yield Check("bitnet.libraries.safe", what, safe, ("bitnet.libraries.present",))


def _pin_checks(site: Site, inquiry: Inquiry, dependencies: Callable[[], Iterable[Dependency]]) -> Iterable[Check]:
    def model() -> bool:
        return _pinned("bitnet.model.pinned", inquiry, (Dependency("model", Path(site.model)),))

    def files() -> bool:
        others = tuple(dependency for dependency in dependencies() if dependency.role != "model")
        return _pinned("bitnet.files.pinned", inquiry, others)

    yield Check("bitnet.model.pinned", "the model is the pinned one", model, ("bitnet.model.present",))
    needs = ("bitnet.libraries.present", "bitnet.script.present", "bitnet.interpreter.present")
    yield Check("bitnet.files.pinned", "programs and libraries are the pinned ones", files, needs)


def _pinned(rule: str, inquiry: Inquiry, dependencies: Iterable[Dependency]) -> bool:
    applies = False
    for dependency in dependencies:
        for name in (dependency.role, dependency.path.name):
            if name not in inquiry.pins:
                continue
            applies = True
            found = inquiry.digest(dependency.path).sha256
            if found != inquiry.pins[name]:
                what = f"{dependency.path.name} is not the pinned file"
                fix = "find out who changed it; then install the right file or change the policy"
                raise refusal(rule, what, f"sha256 {found}", f"sha256 {inquiry.pins[name]}", fix)
    return applies
