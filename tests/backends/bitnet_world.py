"""A valid world for the backend bitnet: a tree with a stand-in engine, a real tiny model, and a request that passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from govrun import testing
from govrun.backends.bitnet import BACKEND
from govrun.backends.interface import Captured, CommandPlan, Containment, Inquiry, Stream
from govrun.digest import sha256_hex
from govrun.request import Request
from govrun.template import render

DATA = Path(__file__).parents[1] / "data"
RUNS = DATA / "bitnet" / "runs"
MODEL = DATA / "bitnet" / "tiny-ascii-i2_s.gguf"


def make_tree(directory: Path) -> Path:
    """A bitnet.cpp tree whose engine is the stand-in; recorded runs lie beside it for `stub:replay`."""
    tree = directory / "bitnet.cpp"
    binary = tree / "build" / "bin" / "llama-cli"
    binary.parent.mkdir(parents=True)
    shutil.copyfile(DATA / "bitnet-stub" / "run_inference.py", tree / "run_inference.py")
    program = (DATA / "bitnet-stub" / "llama-cli").read_text()
    binary.write_text(f"#!{os.path.realpath(sys.executable)}\n{program}")
    shutil.copytree(RUNS, tree / "recorded")
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path == binary else 0o644)
    return tree


def make_settings(directory: Path, **more: str) -> dict[str, str]:
    """The settings of a valid world in an empty directory."""
    tree = directory / "bitnet.cpp"
    if not tree.exists():
        make_tree(directory)
        shutil.copyfile(MODEL, directory / "model.gguf")
    return {"BITNET_CPP_DIR": str(tree), "BITNET_MODEL_GGUF": str(directory / "model.gguf"), **more}


def make_inquiry(
    settings: Mapping[str, str],
    prompt: bytes | None = b"Hello the world",
    *,
    pins: Mapping[str, str] | None = None,
    argv: tuple[str, ...] = (),
    **parameters: str,
) -> Inquiry:
    """One inquiry with parameters resolved as the core does."""
    request = Request("bitnet", prompt=prompt, argv=argv)
    return testing.make_inquiry(BACKEND, request, settings=settings, parameters=parameters, pins=pins)


def make_captured(
    stdout: bytes, stderr: bytes, exit_code: int | None = 0, signal: int | None = None, **more: Any
) -> Captured:
    """What the core hands to `parse` and `explain`; a negative exit code means a signal."""
    if exit_code is not None and exit_code < 0:
        exit_code, signal = None, -exit_code
    values = {
        "ended": "exited" if signal is None else "signalled",
        "exit_code": exit_code if signal is None else None,
        "signal": signal,
        "stdout": Stream(stdout, len(stdout), False, sha256_hex(stdout)),
        "stderr": Stream(stderr, len(stderr), False, sha256_hex(stderr)),
        "containment": Containment("group", True, True),
        "duration_ms": 1,
        "cpu_ms": 1,
        "max_rss_bytes": 1,
    }
    return Captured(**{**values, **more})


def recorded(directory: Path, name: str) -> tuple[Mapping[str, Any], Captured]:
    """A captured run of a real engine: its index entry, and what came out."""
    entry = json.loads((directory / "index.json").read_text())[name]
    stdout, stderr = ((directory / f"{name}.{end}").read_bytes() for end in ("stdout", "stderr"))
    return entry, make_captured(stdout, stderr, entry["rc"])


def start(plan: CommandPlan) -> subprocess.Popen[bytes]:
    """Start the planned child in a session of its own, with the planned environment and descriptors alone."""
    numbers = tuple(number for number, _ in plan.descriptors)
    for number, content in plan.descriptors:
        memory = os.memfd_create("descriptor")
        os.write(memory, content)
        os.lseek(memory, 0, os.SEEK_SET)
        os.dup2(memory, number)
        os.close(memory)
    try:
        return subprocess.Popen(
            render(plan.template),
            cwd=plan.cwd,
            env=dict(plan.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=numbers,
            start_new_session=True,
        )
    finally:
        for number in numbers:
            os.close(number)


def finish(child: subprocess.Popen[bytes], seconds: float = 60) -> Captured:
    """Wait for a started child and say what it did."""
    stdout, stderr = child.communicate(timeout=seconds)
    return make_captured(stdout, stderr, child.returncode)


def run(plan: CommandPlan) -> Captured:
    """Start the planned child and wait for it."""
    return finish(start(plan))
