"""How the tests start the fault harness: in a process of its own, since it forks what it traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, patience_s: float = 400) -> dict[str, Any]:
    """The document of `python -m faults --json`; the test is skipped aloud for what this machine cannot show."""
    # The harness traces its children: nothing of the coverage of this process may run in them.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--json", *words],
        cwd=ROOT,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=patience_s,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    if found["notShown"] and not found["rows"]:
        pytest.skip(f"SKIPPED ALOUD: {'; '.join(found['notShown'])}")
    return found


def broken(found: dict[str, Any]) -> list[str]:
    """Every statement that did not hold, over all rows."""
    return [words for row in found["rows"] for words in row["broken"]]
