"""Build the Go programs of these tests from Go's module cache; nothing is downloaded here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OFFLINE = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}


def go(module: str, *words: str, lost: str) -> str:
    """What the go command prints in tests/interop/<module>; a skip that says what is lost when it cannot."""
    program = shutil.which("go")
    if program is None:
        pytest.skip(f"no Go toolchain: {lost}")
    environ = {**os.environ, **OFFLINE}
    done = subprocess.run(
        [program, *words], cwd=HERE / module, env=environ, capture_output=True, text=True, timeout=300
    )
    if done.returncode and ("GOPROXY=off" in done.stderr or "; running go 1." in done.stderr):
        pytest.skip(f"run `make modules` with a Go that is new enough: {lost}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(module: str, binary: Path, lost: str) -> Path:
    """Build the program in tests/interop/<module>."""
    go(module, "build", "-o", str(binary), ".", lost=lost)
    return binary
