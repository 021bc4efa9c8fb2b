"""A backend of somebody else: built, installed beside govrun into an environment of its own, listed, loaded, tested."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARROT = ROOT / "tests" / "data" / "third_party"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("pip", "hatchling")),
        reason="pip or hatchling is not installed: a third-party backend was NOT built and installed",
    ),
]

LIST = """
import json, sys
from govrun.backends.registry import list_backends
found = [(r.name, r.distribution, r.version, r.target) for r in list_backends()]
print(json.dumps([found, [name for name in sys.modules if "parrot" in name]]))
"""

LOAD = """
import json
from govrun.backends.registry import find, load
from govrun.errors import GovrunError
try:
    load(find("parrot-broken"))
except GovrunError as error:
    print(json.dumps([load(find("parrot")).name, error.rule, error.found, error.code]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with both wheels, and the present one's packages for what they need."""
    folder = tmp_path_factory.mktemp("third_party")
    for name, source in (("govrun", ROOT), ("parrot", PARROT)):
        # Built from a copy, so that a build leaves nothing in the tree.
        copy = folder / name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder / "wheels"), str(copy))
    venv.create(folder / "venv", with_pip=False)
    interpreter = folder / "venv" / "bin" / "python"
    wheels = [str(path) for path in (folder / "wheels").glob("*.whl")]
    pip("--python", str(interpreter), "install", *wheels)
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    (site / "present.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def pip(*words: str) -> None:
    command, rest = (words[:3], words[3:]) if words[0] == "--python" else (words[:1], words[1:])
    fixed = ("--no-index", "--no-deps", "--quiet", "--disable-pip-version-check")
    argv = [sys.executable, "-m", "pip", *command, *fixed, *rest]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def run(python: Path, *words: str) -> str:
    # Neither the checkout nor a coverage run may lend the environment its govrun.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    argv = [str(python), *words]
    done = subprocess.run(argv, env=environment, cwd=python.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_backend_is_listed_without_being_imported(python: Path) -> None:
    found, imported = json.loads(run(python, "-c", LIST))
    assert ["parrot", "govrun-parrot", "1.2.3", "govrun_parrot:BACKEND"] in found
    assert ["process", "govrun"] in [row[:2] for row in found]
    assert imported == []


def test_a_broken_backend_refuses_its_own_name_only(python: Path) -> None:
    assert json.loads(run(python, "-c", LOAD)) == ["parrot", "registry.import", "RuntimeError", 12]


def test_a_third_party_backend_passes_the_conformance_suite_where_it_is_installed(python: Path, tmp_path: Path) -> None:
    shutil.copy(PARROT / "tests" / "test_parrot.py", tmp_path)
    output = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path))
    assert " passed" in output
    assert "skipped" not in output


def test_the_suite_runs_on_the_installed_govrun_and_not_on_the_checkout(python: Path) -> None:
    place = Path(run(python, "-c", "import govrun; print(govrun.__file__)").strip())
    assert python.parents[1] in place.parents


def test_an_installed_backend_runs_governed_by_an_installed_govrun(python: Path, tmp_path: Path) -> None:
    def govrun(*words: str) -> str:
        place = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": f"{tmp_path}/c", "XDG_STATE_HOME": f"{tmp_path}/s"}
        argv = [str(python), "-m", "govrun", *words]
        done = subprocess.run(
            argv, env={**place, "PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    govrun("init", "--allow", "parrot")
    assert "hello" in govrun("run", "--backend", "parrot", "--prompt", "hello")
    intent = json.loads(govrun("ledger", "show", "1"))["predicate"]
    assert {"name": "parrot", "distribution": "govrun-parrot", "version": "1.2.3", "interface": 1} == intent["backend"]
    report = json.loads(govrun("verify", "--json"))
    assert ("intact", "keyed") == (report["integrity"]["status"], report["assurance"]["level"])
