"""The commands of docs/verify-with-other-tools.md accept a real receipt and ledger, and refuse damaged ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.interop.golang import HERE, OFFLINE, go

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "verify-with-other-tools.md"


def blocks() -> list[tuple[str, str]]:
    """What each command of the page needs, and its text, in order."""
    return re.findall(r"^<!-- try: ([^\n]+) -->\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


class Stranger:
    """A directory with what the page says a stranger has."""

    def __init__(self, place: Path, keys: dict[str, str]) -> None:
        self.place = place
        self.environ = {**os.environ, **OFFLINE, **keys, "GOVRUN": str(ROOT)}

    def do(self, needs: str, text: str) -> int:
        """The exit code of a command of the page."""
        shell = [sys.executable, "-"] if needs.startswith("python") else ["sh", "-eu", "-s"]
        done = subprocess.run(
            shell, input=text, cwd=self.place, env=self.environ, capture_output=True, text=True, timeout=300
        )
        return done.returncode

    def copy(self, place: Path) -> Stranger:
        shutil.copytree(self.place, place)
        other = Stranger(place, {})
        other.environ = self.environ
        return other


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    place = tmp_path_factory.mktemp("operator")
    environ = {"HOME": str(place), "PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}
    (place / "in.txt").write_text("three short words\n")

    def govrun(*words: str) -> bytes:
        command = [sys.executable, "-m", "govrun", *words]
        return subprocess.run(command, cwd=place, env=environ, capture_output=True, check=True, timeout=120).stdout

    govrun("init", "--origin", "example.com/operator", "--allow", "process")
    files = ("--input", "in.txt", "--output", "out.txt")
    govrun("run", "--backend", "process", *files, "--", "/bin/cp", "in.txt", "out.txt")
    (trust,) = (place / ".config" / "govrun" / "trust").glob("*.toml")
    keys = tomllib.loads(trust.read_text())
    given = tmp_path_factory.mktemp("stranger")
    (given / "receipt.json").write_bytes(govrun("ledger", "show", "2", "--raw"))
    (given / "entry.tlog-proof").write_bytes(govrun("ledger", "prove", "2"))
    (given / "exported.pem").write_bytes(govrun("keys", "export", "receipt", "--pem"))
    shutil.copy(place / "out.txt", given)
    govrun("ledger", "publish", str(given / "ledger"))
    return Stranger(given, {"RECEIPT_KEY": keys["receipt"][0], "LOG_KEY": keys["log"]})


def need(needs: str) -> None:
    """Skip, saying what was not shown, where a tool is not there."""
    for tool in needs.split():
        kind, _, name = tool.partition(":")
        if kind == "go":
            go(name, "list", "-deps", ".", lost="a command of the page was not tried")
        elif kind != "python" and shutil.which(tool) is None:
            pytest.skip(f"no {tool}: a command of {PAGE.name} was not tried")


def prepared(stranger: Stranger, until: int) -> None:
    """Do what stands before on the page, as far as plain tools do it: later commands need its files."""
    for needs, text in blocks()[:until]:
        if not needs.startswith(("cosign", "go:", "python")):
            need(needs)
            assert stranger.do(needs, text) == 0, text


NAMES = [f"{number}-{needs.split()[0]}" for number, (needs, _) in enumerate(blocks())]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_a_command_of_the_page_accepts_what_govrun_wrote(stranger: Stranger, number: int) -> None:
    needs, text = blocks()[number]
    need(needs)
    prepared(stranger, number)
    assert 0 == stranger.do(needs, text), text


def test_the_key_that_govrun_exports_is_the_one_made_from_the_vkey(stranger: Stranger) -> None:
    prepared(stranger, 1)
    assert (stranger.place / "exported.pem").read_bytes() == (stranger.place / "receipt.pem").read_bytes()


# What each command must notice: of a file, one byte is another.
DAMAGE = {
    "1-openssl": "receipt.json",
    "2-jq": "out.txt",
    "4-cosign": "out.txt receipt.json",
    "5-cosign": "out.txt receipt.json",
    "6-python:securesystemslib": "receipt.json",
    "7-go:tessera": "ledger/checkpoint ledger/tile/0/000.p/3 ledger/tile/entries/000.p/3",
    "8-go:go": "ledger/checkpoint ledger/tile/0/000.p/3 ledger/tile/entries/000.p/3 entry.tlog-proof",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_command_of_the_page_refuses_what_was_changed(stranger: Stranger, tmp_path: Path, name: str) -> None:
    number = NAMES.index(name)
    needs, text = blocks()[number]
    need(needs)
    prepared(stranger, number)
    for file in DAMAGE[name].split():
        other = stranger.copy(tmp_path / file.replace("/", "_"))
        damaged = other.place / file
        data = bytearray(damaged.read_bytes())
        at = len(data) // 3
        # Still a letter of base64, and of a text.
        data[at] = ord("A") if data[at] != ord("A") else ord("B")
        damaged.write_bytes(data)
        assert 0 != other.do(needs, text), file


def test_cosign_refuses_another_type_and_another_key(stranger: Stranger) -> None:
    need("cosign")
    number = NAMES.index("4-cosign")
    needs, text = blocks()[number]
    prepared(stranger, number)
    assert 0 != stranger.do(needs, text.replace("urn:govrun:outcome:v1", "urn:govrun:intent:v1"))
    key = "openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out other.pem\n"
    assert 0 != stranger.do(needs, key + text.replace("receipt.pem", "other.pem"))
    assert 0 == stranger.do(needs, text)
