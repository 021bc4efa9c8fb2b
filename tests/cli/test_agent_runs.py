"""Runs whose keys are in a real ssh-agent: no key file is needed, and an agent that fails costs no evidence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.place import Done, Place, until
from tests.signing.agents import Agent, fake_agent, needs_openssh, real_agent
from tests.signing.test_ssh_agent import PRINT, honest

pytestmark = needs_openssh


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with real_agent(tmp_path / "agent") as one:
        yield one


@pytest.fixture
def agents(bare: Place, agent: Agent) -> Place:
    """A home both of whose signing keys are in an agent."""
    bare.extra.update(agent.environ)
    where = [f"ssh-agent:{agent.new_key(name)}" for name in ("receipt", "log")]
    done = bare.go("init", "--allow", "process", "--signer", where[0], "--log-signer", where[1])
    assert 0 == done.code, done.err
    return bare


def refused(done: Done, code: int, rule: str) -> None:
    assert (code, True) == (done.code, f"[{rule}]" in done.err), done.err


def test_a_run_works_with_no_key_file_in_the_home(agents: Place) -> None:
    (agents.home / "keys" / "root.key").rename(agents.root / "offline.key")
    assert [] == list((agents.home / "keys").glob("*.key"))
    assert 0 == agents.run("--", *agents.mark).code
    assert (1, ["genesis", "intent", "outcome"]) == (agents.runs, agents.kinds())
    verified = agents.go("verify")
    assert 0 == verified.code
    assert "writers-hold-log-key: both keys are in an ssh-agent that writers ask" in verified.words
    rows = {row["role"]: row for row in agents.go("keys", "list", "--json").json}
    assert {"root": "not here", "log": "ssh-agent", "receipt": "ssh-agent"} == {
        role: row["where"] for role, row in rows.items()
    }
    assert {True} == {row["inUse"] for row in rows.values()}
    assert 0 == agents.go("verify", env={"SSH_AUTH_SOCK": ""}).code  # who verifies needs no agent
    assert 0 == agents.go("ledger", "publish", str(agents.root / "out"), env={"SSH_AUTH_SOCK": ""}).code


def test_the_settings_say_where_the_keys_are_and_a_project_may_not(agents: Place) -> None:
    shown = agents.go("config", "show", "--json").json
    assert ("config", "config") == (shown["signer"]["origin"], shown["logSigner"]["origin"])
    named = {name: shown[name]["value"] for name in ("signer", "logSigner")}
    agents.config("")
    refused(agents.run("--", *agents.mark), 15, "key.missing")
    words = ("--signer", named["signer"], "--log-signer", named["logSigner"])
    assert 0 == agents.run(*words, "--", *agents.mark).code
    environ = {"GOVRUN_SIGNER": named["signer"], "GOVRUN_LOG_SIGNER": named["logSigner"]}
    assert 0 == agents.run("--", *agents.mark, env=environ).code
    # An option beats the environment.
    refused(agents.run("--signer", "file", "--", *agents.mark, env=environ), 15, "key.missing")
    (agents.work / "govrun.toml").write_text(f'signer = "{named["signer"]}"\n')
    refused(agents.run("--", *agents.mark, env=environ), 10, "schema.project-v1")
    (agents.work / "govrun.toml").unlink()
    for value in ("", "agent", "ssh-agent:", "ssh-agent:MD5:00", "ssh-agent:SHA256:short", "/a/file"):
        refused(agents.run("--signer", value, "--", *agents.mark), 10, "settings.signer")
        refused(agents.run("--", *agents.mark, env={"GOVRUN_LOG_SIGNER": value}), 10, "settings.logSigner")
    assert 2 == agents.runs


def test_before_a_launch_an_agent_that_cannot_sign_keeps_anything_from_running(agents: Place, agent: Agent) -> None:
    refused(agents.run("--", *agents.mark, env={"SSH_AUTH_SOCK": ""}), 15, "agent.none")
    agent.tell("ssh-add", "-D")
    refused(agents.run("--", *agents.mark), 15, "agent.key")
    agent.stop()
    refused(agents.run("--", *agents.mark), 15, "agent.deadline")
    agent.end()
    refused(agents.run("--", *agents.mark), 15, "agent.none")
    assert (0, 1) == (agents.runs, agents.size)


def test_after_a_launch_an_agent_that_refuses_leaves_the_outcome_pending(agents: Place, agent: Agent) -> None:
    os.mkfifo(agents.work / "fifo")
    words = ("run", "--backend", "process", "--", "/bin/sh", "-c", "touch started; read x <fifo")
    running = agents.start(*words)
    until((agents.work / "started").exists, "the child started")
    agent.tell("ssh-add", "-D")
    (agents.work / "fifo").write_text("on\n")
    _, err = running.communicate(timeout=60)
    assert 31 == running.returncode
    assert re.search(rb"signing-failed: .* \[agent\.refused\]", err)
    assert b"kept in pending/" in err
    assert (["genesis", "intent"], 1) == (agents.kinds(), len(list((agents.home / "pending").iterdir())))


def test_an_outcome_that_was_pending_is_appended_once_the_agent_is_back(bare: Place, tmp_path: Path) -> None:
    refuse = tmp_path / "refuse"

    def moody(request: bytes) -> bytes:
        return b"\0\0\0\x01\x05" if request[0] == 13 and refuse.exists() else honest(request)

    with fake_agent(tmp_path / "s", moody) as environ:
        bare.extra.update(environ)
        assert 0 == bare.go("init", "--allow", "process", "--log-signer", f"ssh-agent:{PRINT}").code
        # The command itself makes the log's agent refuse: the intent was signed for, the outcome is not.
        done = bare.run("--", "/bin/sh", "-c", f"touch {refuse}")
        refused(done, 33, "agent.refused")
        assert "its outcome is kept in pending/" in done.err
        refuse.unlink()
        assert 0 == bare.run("--", *bare.mark).code
        assert ["genesis", "intent", "outcome", "intent", "outcome"] == bare.kinds()
        assert (
            "the log key is in an ssh-agent that writers ask and the receipt key in a file" in bare.go("verify").words
        )


def test_the_key_of_a_running_ledger_moves_into_an_agent(place: Place, agent: Agent) -> None:
    place.extra.update(agent.environ)
    old = next(row for row in place.go("keys", "list", "--json").json if row["role"] == "receipt")
    where = f"ssh-agent:{agent.new_key()}"
    # A key that the ledger does not name signs nothing, whoever holds it.
    refused(place.run("--signer", where, "--", *place.mark), 15, "ledger.receiptKey")
    done = place.go("keys", "add", "--role", "receipt", "--new-key", where)
    assert (0, True) == (done.code, f'signer = "{where}"' in done.err), done.err
    place.config(f'signer = "{where}"\n')
    refused(place.go("keys", "rotate", "receipt"), 15, "keys.agent")
    assert 0 == place.go("keys", "revoke", old["fingerprint"], "--reason", "superseded").code
    (place.home / "keys" / "receipt.key").unlink()
    assert 0 == place.run("--", *place.mark).code
    assert ["genesis", "keyAdded", "keyRevoked", "intent", "outcome"] == place.kinds()


def test_a_root_key_in_an_agent_signs_key_changes(place: Place, agent: Agent) -> None:
    place.extra.update(agent.environ)
    where = f"ssh-agent:{agent.new_key('root')}"
    assert 0 == place.go("keys", "add", "--role", "root", "--new-key", where).code
    (place.home / "keys" / "root.key").unlink()
    assert 0 == place.go("keys", "rotate", "receipt", "--root-key", where).code
    assert ["genesis", "keyAdded", "keyAdded"] == place.kinds()


def test_an_init_with_an_agent_that_does_not_serve_makes_nothing(bare: Place, agent: Agent) -> None:
    where = f"ssh-agent:{agent.new_key()}"
    refused(bare.go("init", "--signer", where), 15, "agent.none")
    bare.extra.update(agent.environ)
    refused(bare.go("init", "--signer", where, "--log-signer", where), 2, "init.sameKey")
    refused(bare.go("init", "--signer", "nowhere"), 2, "init.signer")
    assert not bare.home.exists()
    assert [] == [path for path in (bare.root / "state").rglob("*") if path.is_file()]
