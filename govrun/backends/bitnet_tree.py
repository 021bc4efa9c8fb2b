"""The files of a bitnet.cpp checkout: which ones a run loads, and whether somebody else could have changed them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from govrun.backends.elf import read_dynamic
from govrun.backends.files import kind_of, refusal
from govrun.errors import GovrunError

# Files that only the chat generation of llama.cpp builds (since mid-2026).
_CHAT_GENERATION: Final = (
    "build/bin/llama-completion",
    "build/bin/libllama-*-impl.so*",
    "build/bin/libllama-common.so*",
)
_ENGINE_LIBRARY: Final = re.compile(r"lib(?:llama|ggml|mtmd|bitnet)[A-Za-z0-9_-]*\.so[0-9.]*")
_BATCH: Final = re.compile(rb"""["']-b["']\s*,\s*["']([1-9][0-9]{0,5})["']""")
_MAX_SCRIPT_BYTES: Final = 1 << 20
_MAX_LIBRARIES: Final = 64


def chat_generation_marks(root: Path) -> tuple[str, ...]:
    """The files, relative to root, that show the chat generation of llama-cli; empty for the generation we can run."""
    return tuple(sorted(str(found.relative_to(root)) for mark in _CHAT_GENERATION for found in root.glob(mark)))


def script_batch(script: Path) -> int | None:
    """The batch size that run_inference.py passes to llama-cli (`-b 1` before July 2026); None when it passes none."""
    with script.open("rb") as file:
        found = _BATCH.search(file.read(_MAX_SCRIPT_BYTES))
    return None if found is None else int(found[1])


def find_libraries(binary: Path, cwd: Path) -> tuple[Path, ...]:
    """The shared libraries that the loader takes from the program's own directories, sorted.

    Each needed name is looked for the way ld.so(8) does without LD_LIBRARY_PATH: in the RUNPATH of the file that needs
    it, then of the program; an empty element is cwd, the child's working directory. Names found in none are the
    system's and left out, except the engine's own. Raises GovrunError (preflight-refused): an engine library is
    nowhere, or a directory holds a second set of libraries.
    """
    own = _search(binary, cwd)
    found: dict[str, Path] = {}
    waiting = [binary]
    while waiting:
        path = waiting.pop()
        search = dict.fromkeys((*_search(path, cwd), *own))
        for name in _needed(path):
            if name in found or len(found) >= _MAX_LIBRARIES:
                continue
            library = next((place / name for place in search if (place / name).is_file()), None)
            if library is not None:
                found[name] = library
                waiting.append(library)
            elif _ENGINE_LIBRARY.fullmatch(name):
                raise _missing(name)
    for directory in {library.parent for library in found.values()}:
        # The loader prefers glibc-hwcaps/<level>/ to the directory itself.
        if (directory / "glibc-hwcaps").exists():
            what = "a directory holds a second set of libraries, which the loader prefers"
            raise refusal("bitnet.libraries.present", what, "glibc-hwcaps", "one set", "remove it")
    return tuple(sorted(found.values()))


def _needed(path: Path) -> tuple[str, ...]:
    dynamic = read_dynamic(path)
    return () if dynamic is None else dynamic.needed


def _search(path: Path, cwd: Path) -> tuple[Path, ...]:
    dynamic = read_dynamic(path)
    if dynamic is None:
        return ()
    origin = os.path.dirname(os.path.realpath(path))
    expanded = (part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for part in dynamic.search)
    return tuple(Path(os.path.realpath(cwd / part)) for part in expanded)


def require_safe(path: Path, rule: str, name: str) -> None:
    """Refuse (preflight-refused) a file or directory that anybody but the user and root could have changed."""
    status = _status(path, rule, name)
    if status.st_uid not in (os.geteuid(), 0):
        owner, expected = f"owner {status.st_uid}", f"owner {os.geteuid()} or 0"
        fix = "install it as the user who runs govrun, or as root"
        raise refusal(rule, f"{name} belongs to somebody else", owner, expected, fix)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode, expected = f"mode {stat.S_IMODE(status.st_mode):04o}", "not writable by group or others"
        raise refusal(rule, f"{name} can be changed by others", mode, expected, f"chmod go-w {path.name}")


def require_directory(path: Path, rule: str, name: str, fix: str) -> None:
    """Refuse (preflight-refused) what is not a directory."""
    status = _status(path, rule, name, fix)
    if not stat.S_ISDIR(status.st_mode):
        raise refusal(rule, f"{name} is not a directory", kind_of(status), "a directory", fix)


def _status(path: Path, rule: str, name: str, fix: str | None = None) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise refusal(rule, f"{name} is not there", error.strerror or "an error", "an existing file", fix) from error


def _missing(name: str) -> GovrunError:
    return refusal(
        "bitnet.libraries.present",
        f"{name} is in none of the directories that the program names",
        "no such file",
        "the library where the build left it",
        "build bitnet.cpp again where it stands now; a moved tree keeps its old library paths",
    )
