"""A signer that is an ssh-agent: real agents sign, and hostile ones cost a refusal and never a signature."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.signing.keys import signer_from_seed
from govrun.signing.ssh_agent import AgentSigner, agent_signer, list_keys
from govrun.signing.ssh_wire import blob_of, fingerprint, is_fingerprint, public_line, string
from govrun.world import real_world
from tests.signing.agents import Agent, Answer, fake_agent, needs_openssh, real_agent

KEY = signer_from_seed("example.com/log", b"\x07" * 32)
PRINT = fingerprint(KEY.verifier.public)
COULD_NOT = ExitCode.LEDGER_UNAVAILABLE
NOT_SIGNED = ExitCode.SIGNING_FAILED


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with real_agent(tmp_path / "a") as one:
        yield one


def refusal(code: ExitCode, rule: str, environ: dict[str, str], wanted: str = PRINT) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        agent_signer(environ, wanted, "example.com/log", real_world())
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def framed(payload: bytes) -> bytes:
    return string(payload)


def identities(*blobs: bytes) -> bytes:
    return framed(bytes([12]) + len(blobs).to_bytes(4, "big") + b"".join(string(b) + string(b"c") for b in blobs))


def honest(request: bytes) -> bytes:
    """What an agent that holds KEY answers."""
    if request[0] == 11:
        return identities(blob_of(KEY.verifier.public))
    size = int.from_bytes(request[1:5], "big")
    data = request[9 + size : -4]
    return framed(bytes([14]) + string(string(b"ssh-ed25519") + string(KEY.sign(data))))


@needs_openssh
def test_a_real_agent_signs_and_the_signature_is_that_of_its_key(agent: Agent) -> None:
    agent.new_key("other")
    wanted = agent.new_key("mine")
    signer = agent_signer(agent.environ, wanted, "example.com/log", real_world())
    assert wanted == fingerprint(signer.verifier.public)
    for message in (b"", b"m", os.urandom(70_000)):
        signer.verifier.verify(message, signer.sign(message))
    assert ["other", "mine"] == [key.comment for key in list_keys(agent.environ, real_world())]
    line = public_line(signer.verifier.public, "x").split()[1]
    assert line == agent.tell("cat", str(agent.directory / "mine.pub")).split()[1]


@needs_openssh
def test_an_agent_that_is_empty_or_lacks_the_key_is_refused(agent: Agent, tmp_path: Path) -> None:
    refusal(COULD_NOT, "agent.key", agent.environ)
    wanted = agent.new_key()
    assert "1 other" in str(refusal(COULD_NOT, "agent.key", agent.environ).found)
    signer = agent_signer(agent.environ, wanted, "example.com/log", real_world())
    agent.tell("ssh-add", "-D")
    with pytest.raises(GovrunError) as caught:
        signer.sign(b"m")
    assert (NOT_SIGNED, "agent.refused") == (caught.value.code, caught.value.rule)


@needs_openssh
def test_a_locked_agent_is_refused_until_it_is_unlocked(agent: Agent) -> None:
    wanted = agent.new_key()
    signer = agent_signer(agent.environ, wanted, "example.com/log", real_world())
    agent.lock("-x")
    assert "locked" in str(refusal(COULD_NOT, "agent.key", agent.environ, wanted).found)
    with pytest.raises(GovrunError) as caught:
        signer.sign(b"m")
    assert (NOT_SIGNED, "agent.refused") == (caught.value.code, caught.value.rule)
    agent.lock("-X")
    signer.verifier.verify(b"m", signer.sign(b"m"))


@needs_openssh
def test_a_key_of_another_type_is_refused(agent: Agent) -> None:
    wanted = agent.new_key("rsa", "rsa")
    assert "ssh-rsa" == refusal(COULD_NOT, "agent.type", agent.environ, wanted).found
    assert () == list_keys(agent.environ, real_world())


@needs_openssh
def test_an_agent_that_ends_is_refused(agent: Agent) -> None:
    wanted = agent.new_key()
    signer = agent_signer(agent.environ, wanted, "example.com/log", real_world())
    agent.end()
    with pytest.raises(GovrunError) as caught:
        signer.sign(b"m")
    assert (NOT_SIGNED, "agent.none") == (caught.value.code, caught.value.rule)


def test_without_an_agent_there_is_a_refusal(tmp_path: Path) -> None:
    refusal(COULD_NOT, "agent.none", {})
    refusal(COULD_NOT, "agent.none", {"SSH_AUTH_SOCK": ""})
    refusal(COULD_NOT, "agent.none", {"SSH_AUTH_SOCK": str(tmp_path / "none")})
    refusal(COULD_NOT, "agent.socket", {"SSH_AUTH_SOCK": "relative/sock"})
    (tmp_path / "file").write_text("")
    refusal(COULD_NOT, "agent.socket", {"SSH_AUTH_SOCK": str(tmp_path / "file")})
    with fake_agent(tmp_path / "s", honest):
        pass
    refusal(COULD_NOT, "agent.none", {"SSH_AUTH_SOCK": str(tmp_path / "s")})  # nobody listens any more


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED ALOUD: only root can give a socket to another user")
def test_a_socket_of_another_user_is_refused(tmp_path: Path) -> None:
    with fake_agent(tmp_path / "s", honest) as environ:
        os.chown(tmp_path / "s", 12345, 12345)
        assert "user 12345" == refusal(COULD_NOT, "agent.owner", environ).found


LISTS: dict[str, tuple[bytes, str]] = {
    "a failure": (framed(b"\x05"), "agent.refused"),
    "nothing": (b"", "agent.answer"),
    "half a length": (b"\0\0", "agent.answer"),
    "an empty answer": (framed(b""), "agent.answer"),
    "half of an answer": (framed(bytes([12]) + bytes(4))[:-2], "agent.answer"),
    "another answer": (framed(b"\x0e" + bytes(8)), "agent.answer"),
    "too much": ((1 << 20).to_bytes(4, "big") + bytes(64), "agent.answer"),
    "4 GiB": (b"\xff\xff\xff\xff", "agent.answer"),
    "more keys than it has": (
        framed(bytes([12]) + (3).to_bytes(4, "big") + string(b"x") + string(b"")),
        "agent.answer",
    ),
    "a million keys": (framed(bytes([12]) + (1_000_000).to_bytes(4, "big")), "agent.answer"),
    "bytes behind": (framed(bytes([12]) + bytes(4) + b"x"), "agent.answer"),
    "a blob that is none": (identities(b"\0\0\0\xffabc", b""), "agent.key"),
    "no keys, as when locked": (identities(), "agent.key"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_an_agent_that_lists_nonsense_is_refused(tmp_path: Path, kind: str) -> None:
    said, rule = LISTS[kind]
    with fake_agent(tmp_path / "s", lambda _: said) as environ:
        refusal(COULD_NOT, rule, environ)


def signed(kind: bytes, signature: bytes, behind: bytes = b"") -> bytes:
    return framed(bytes([14]) + string(string(kind) + string(signature)) + behind)


SIGNATURES: dict[str, tuple[Answer, str]] = {
    "a failure": (lambda _: framed(b"\x05"), "agent.refused"),
    "zeros": (lambda _: signed(b"ssh-ed25519", bytes(64)), "agent.signature"),
    "that of another message": (lambda _: signed(b"ssh-ed25519", KEY.sign(b"other")), "agent.signature"),
    "that of another key": (
        lambda _: signed(b"ssh-ed25519", signer_from_seed("x", b"\x08" * 32).sign(b"m")),
        "agent.signature",
    ),
    "another type": (lambda _: signed(b"ssh-rsa", KEY.sign(b"m")), "agent.answer"),
    "too short": (lambda _: signed(b"ssh-ed25519", KEY.sign(b"m")[:-1]), "agent.answer"),
    "too long": (lambda _: signed(b"ssh-ed25519", KEY.sign(b"m") + b"x"), "agent.answer"),
    "bytes behind": (lambda _: signed(b"ssh-ed25519", KEY.sign(b"m"), b"x"), "agent.answer"),
    "a list of keys": (lambda _: identities(), "agent.answer"),
    "nothing": (lambda _: b"", "agent.answer"),
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_signature_that_is_not_the_keys_is_refused(tmp_path: Path, kind: str) -> None:
    answer, rule = SIGNATURES[kind]
    with fake_agent(tmp_path / "s", lambda r: honest(r) if r[0] == 11 else answer(r)) as environ:
        signer = agent_signer(environ, PRINT, "example.com/log", real_world())
        with pytest.raises(GovrunError) as caught:
            signer.sign(b"m")
    assert (NOT_SIGNED, rule) == (caught.value.code, caught.value.rule)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.booleans())
def test_whatever_an_agent_answers_there_is_a_refusal_and_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, is_framed: bool
) -> None:
    said = framed(noise) if is_framed else noise
    with fake_agent(tmp_path_factory.mktemp("f") / "s", lambda _: said) as environ:
        signer = AgentSigner(KEY.verifier, environ["SSH_AUTH_SOCK"], real_world())
        with pytest.raises(GovrunError) as caught:
            signer.sign(b"m")
        assert NOT_SIGNED == caught.value.code
        with pytest.raises(GovrunError) as caught:
            agent_signer(environ, PRINT, "example.com/log", real_world())
        assert COULD_NOT == caught.value.code


@pytest.mark.parametrize("wait_ms", [1, 200])
def test_an_agent_that_hangs_is_given_up_at_the_deadline(tmp_path: Path, wait_ms: int) -> None:
    with fake_agent(tmp_path / "s", lambda _: None) as environ:
        signer = AgentSigner(KEY.verifier, environ["SSH_AUTH_SOCK"], real_world(), wait_ms)
        began = time.monotonic()
        with pytest.raises(GovrunError) as caught:
            signer.sign(b"m")
    assert (NOT_SIGNED, "agent.deadline") == (caught.value.code, caught.value.rule)
    assert time.monotonic() - began < 10


def test_after_a_missed_deadline_nobody_waits_again_at_once(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def silent(request: bytes) -> None:
        asked.append(request)

    with fake_agent(tmp_path / "s", silent) as environ:
        signer = AgentSigner(KEY.verifier, environ["SSH_AUTH_SOCK"], real_world(), 300)
        for _ in range(64):
            with pytest.raises(GovrunError) as caught:
                signer.sign(b"m")
            assert "agent.deadline" == caught.value.rule
    assert len(asked) <= 2


def test_an_agent_that_sends_a_byte_now_and_then_gets_no_more_time(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    over = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall((200).to_bytes(4, "big"))
            while not over.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        signer = AgentSigner(KEY.verifier, str(path), real_world(), 300)
        with pytest.raises(GovrunError) as caught:
            signer.sign(b"m")
        assert (NOT_SIGNED, "agent.deadline") == (caught.value.code, caught.value.rule)
    finally:
        over.set()
        server.close()
        thread.join(timeout=10)


def test_a_fingerprint_has_one_spelling() -> None:
    assert is_fingerprint(PRINT)
    for other in ("", "SHA256:", PRINT[:-1], PRINT + "A", PRINT.lower(), PRINT + "=", " " + PRINT, "MD5:" + PRINT[7:]):
        assert not is_fingerprint(other), other
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    # The last letter carries four bits: three of four letters say the same and are refused.
    assert 16 == sum(is_fingerprint(PRINT[:-1] + letter) for letter in last)
