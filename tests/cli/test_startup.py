"""What a command must not import: the structure that keeps govrun quick to start, whatever machine it starts on."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.e2e.place import Place

_IMPORTED = re.compile(r"^import '([^']+)' #", re.MULTILINE)

# Slow to import, and of use to other commands or to refusals only.
NEVER = (
    "asyncio",
    "concurrent.futures",
    "difflib",
    "http",
    "importlib.metadata",
    "jsonschema",
    "multiprocessing",
    "pdb",
    "ssl",
    "subprocess",
    "unittest",
    "xllamacpp",
    "govrun.audit",
    "govrun.engines",
    "govrun.formats",
    "govrun.testing",
)
# What knows nothing of a ledger needs nothing that reads, signs or checks one.
NEVER_FOR_WORDS = (*NEVER, "attr", "attrs", "cryptography", "hashlib", "jsonschema_rs", "orjson", "sqlite3", "tomllib")
NEVER_FOR_A_RUN = (
    *NEVER,
    "govrun.backends.bitnet",
    "govrun.backends.gguf",
    "govrun.backends.llamacpp",
    "govrun.initialise",
    "bcrypt",
    "getpass",
    "govrun.keychanges",
    "govrun.keystate",
    "govrun.ledger.proof",
    "govrun.ledger.publish",
    "govrun.ledger.read",
    "govrun.ledger.tile",
    "govrun.refusals",
    "govrun.signing.openssh",
    "govrun.signing.ssh_agent",
    "govrun.signing.ssh_wire",
    "govrun.succession",
)


def imported(place: Place, *words: str) -> set[str]:
    """The modules that one command imports, as the interpreter itself lists them."""
    # Measuring coverage imports much of what is forbidden here; -X importtime does not see what importlib imports.
    environ = {name: value for name, value in place.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-v", "-m", "govrun", *words],
        cwd=place.work,
        env=environ,
        capture_output=True,
        timeout=60,
    )
    stderr = os.fsdecode(done.stderr)
    assert 0 == done.returncode, stderr[-2000:]
    return set(_IMPORTED.findall(stderr))


def of(modules: set[str], names: tuple[str, ...]) -> set[str]:
    """Those modules that are one of the names, or below one."""
    return {module for module in modules if any(f"{module}.".startswith(f"{name}.") for name in names)}


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_version_and_help_import_neither_a_ledger_nor_a_command(bare: Place, word: str) -> None:
    modules = imported(bare, word)
    assert "click" in modules
    assert set() == of(modules, NEVER_FOR_WORDS)
    ours = of(modules, ("govrun",))
    assert {"govrun", "govrun.__main__", "govrun.cli", "govrun.cli.commands", "govrun.errors"} >= ours


def test_the_help_of_one_command_imports_that_command_alone(bare: Place) -> None:
    modules = imported(bare, "run", "--help")
    assert {"govrun.cli.run"} <= modules
    assert set() == of(modules, (*NEVER_FOR_A_RUN, "govrun.cli.init", "govrun.cli.verify", "govrun.cli.audit"))


def test_a_run_imports_what_a_run_needs(place: Place) -> None:
    modules = imported(place, "run", "--backend", "process", "--", "true")
    assert {"govrun.invoke", "govrun.backends.process", "jsonschema_rs", "sqlite3"} <= modules
    assert set() == of(modules, NEVER_FOR_A_RUN)
