"""The words that people read, as they stand: every help text, and what a refusal and a failure look like."""

from __future__ import annotations

import re

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.e2e.place import Place

COMMANDS = [
    (),
    ("init",),
    ("run",),
    ("preflight",),
    ("backends",),
    ("verify",),
    ("audit",),
    ("ledger",),
    ("ledger", "list"),
    ("ledger", "show"),
    ("ledger", "checkpoint"),
    ("ledger", "prove"),
    ("ledger", "consistency"),
    ("ledger", "disclose"),
    ("ledger", "erase"),
    ("ledger", "publish"),
    ("ledger", "export"),
    ("ledger", "migrate"),
    ("keys",),
    ("keys", "list"),
    ("keys", "rotate"),
    ("keys", "add"),
    ("keys", "revoke"),
    ("keys", "encrypt"),
    ("keys", "decrypt"),
    ("keys", "export"),
    ("config",),
    ("config", "show"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(("govrun", *words)))
def test_help(bare: Place, snapshot: SnapshotAssertion, words: tuple[str, ...]) -> None:
    done = bare.go(*words, "--help")
    assert (0, "") == (done.code, done.err)
    assert snapshot == done.out.decode()
    assert max(map(len, done.out.decode().splitlines())) <= 100


def test_every_command_has_its_help_here(bare: Place) -> None:
    listed = re.findall(r"^  ([a-z]+) ", bare.go("--help").out.decode().partition("Commands:")[2], re.MULTILINE)
    assert listed == list(dict.fromkeys(words[0] for words in COMMANDS if words))


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--backend", "proces", "--", "true"),
        ("run", "--backend", "process", "--input", "missing.txt", "--", "true"),
        ("run", "--backend", "llamacpp", "--prompt", "x"),
        ("run", "--backend", "process", "--agent", "a b", "--", "true"),
        ("run", "--backend", "process", "--", "sh", "-c", "exit 3"),
        ("run", "--backend", "process", "--output", "report.txt", "--", "true"),
        ("preflight", "--backend", "process", "--", "true"),
        ("ledger", "show", "7"),
        ("rum",),
    ],
    ids=" ".join,
)
def test_what_is_said(place: Place, snapshot: SnapshotAssertion, words: tuple[str, ...]) -> None:
    done = place.go(*words)
    assert snapshot == f"{done.out.decode()}{done.err}exit code {done.code}\n"


def test_what_is_said_right_after_init(bare: Place, snapshot: SnapshotAssertion) -> None:
    bare.init()
    done = bare.run("--", "true")
    assert snapshot == f"{done.out.decode()}{done.err}exit code {done.code}\n"


def test_a_refusal_where_there_is_no_home(bare: Place, snapshot: SnapshotAssertion) -> None:
    done = bare.run("--", "true")
    assert snapshot == f"{done.out.decode()}{done.err}exit code {done.code}\n"
