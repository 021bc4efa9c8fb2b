"""Agents for tests: a real ssh-agent with keys of its own, and ones that answer as a test says, on real sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HAS_OPENSSH = all(shutil.which(name) for name in ("ssh-agent", "ssh-add", "ssh-keygen"))
needs_openssh = pytest.mark.skipif(
    not HAS_OPENSSH, reason="SKIPPED ALOUD: no OpenSSH here, so no real ssh-agent has signed anything"
)

Answer = Callable[[bytes], bytes | None]


class Agent:
    """A real ssh-agent below a directory; its keys are made by ssh-keygen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "agent.sock"
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self.socket)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not self._listens():
            assert time.monotonic() < deadline, "ssh-agent made no socket"
            time.sleep(0.01)

    def _listens(self) -> bool:
        """The socket's name is there a moment before anybody answers under it."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    @property
    def environ(self) -> dict[str, str]:
        return {"SSH_AUTH_SOCK": str(self.socket)}

    def tell(self, *words: str) -> str:
        done = subprocess.run(
            words, env={**os.environ, **self.environ, "SSH_ASKPASS_REQUIRE": "never"}, capture_output=True, timeout=30
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout.decode()

    def new_key(self, name: str = "key", kind: str = "ed25519") -> str:
        """Make a key that only the agent keeps; its fingerprint."""
        path = self.directory / name
        self.tell("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path))
        self.tell("ssh-add", "-q", str(path))
        path.unlink()
        return self.tell("ssh-keygen", "-l", "-f", f"{path}.pub").split()[1]

    def lock(self, option: str) -> None:
        """Lock it (-x) or unlock it (-X), with a passphrase that a program types."""
        asks = self.directory / "ask"
        asks.write_text("#!/bin/sh\necho secret\n")
        asks.chmod(0o700)
        environ = {**os.environ, **self.environ, "SSH_ASKPASS": str(asks), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", option], env=environ, check=True, capture_output=True, timeout=30)

    def stop(self) -> None:
        """Let it hang: it accepts connections and answers none."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def real_agent(directory: Path) -> Iterator[Agent]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    agent = Agent(directory)
    try:
        yield agent
    finally:
        agent.end()


@contextlib.contextmanager
def fake_agent(path: Path, answer: Answer) -> Iterator[dict[str, str]]:
    """A socket that gives answer(request, without its length) as it is; None keeps the connection open and silent."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(8)
    open_ones: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            open_ones.append(connection)
            with contextlib.suppress(OSError):
                size = int.from_bytes(connection.recv(4), "big")
                request = b""
                while len(request) < size and (part := connection.recv(size - len(request))):
                    request += part
                said = answer(request)
                if said is not None:
                    connection.sendall(said)
                    connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield {"SSH_AUTH_SOCK": str(path)}
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in open_ones:
            connection.close()
        thread.join(timeout=10)
