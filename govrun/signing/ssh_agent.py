"""A signer that is an ssh-agent: it signs with an Ed25519 key that this process cannot read.

The agent protocol over the Unix socket that SSH_AUTH_SOCK names (draft-miller-ssh-agent):

    request   uint32 length, byte 11                                          which keys are there
    answer    uint32 length, byte 12, uint32 n, n times (string blob, string comment)
    request   uint32 length, byte 13, string blob, string data, uint32 flags  sign data
    answer    uint32 length, byte 14, string (string "ssh-ed25519", string of 64 bytes)

An agent is asked while a ledger's head is held, so every exchange has a deadline, every answer a bound, and every
signature is verified before it is used: an agent that lies or stalls costs one refusal. Whoever may talk to the agent
can have anything signed, but cannot take the key along.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.signing.keys import SIGNATURE_BYTES, Verifier, verifier_for
from govrun.signing.ssh_wire import (
    ED25519,
    blob_of,
    fingerprint,
    fingerprint_of_blob,
    public_of,
    read_string,
    read_uint32,
    string,
)
from govrun.world import World

if TYPE_CHECKING:
    import socket

# One exchange, from connecting to the last byte; below the ten seconds that other writers wait for the ledger.
WAIT_MS: Final = 5_000
# What OpenSSH's own agent allows.
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 2048
MAX_COMMENT_BYTES: Final = 4096

_REQUEST_IDENTITIES: Final = 11
_IDENTITIES: Final = 12
_SIGN_REQUEST: Final = 13
_SIGNATURE: Final = 14
_FAILURES: Final = (5, 30, 102)  # of the protocol, and what older and other agents say


@frozen
class AgentKey:
    """An Ed25519 key that an agent holds: 32 bytes, and the comment that came with it."""

    public: bytes
    comment: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)


@frozen
class AgentSigner:
    """Signs as one key of the agent behind a socket; wait_ms is the deadline of one signature.

    Once it was missed, nothing is asked for as long again: a group of receipts must not wait for each of its members.
    """

    verifier: Verifier
    socket_path: str
    world: World
    wait_ms: int = WAIT_MS
    _quiet_until: list[int] = attrs.field(factory=list, init=False, repr=False, eq=False)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over message, verified; GovrunError (signing-failed) if there is none in time."""
        asked = bytes([_SIGN_REQUEST]) + string(blob_of(self.verifier.public)) + string(message) + bytes(4)
        answer = self._ask(asked)
        if answer[0] in _FAILURES:
            raise GovrunError(
                ExitCode.SIGNING_FAILED,
                "agent.refused",
                "the ssh-agent does not sign",
                found=f"a failure for {fingerprint(self.verifier.public)}",
                expected="a signature",
                fix="look whether it is locked, has lost the key (`ssh-add -l`), or asks a person to confirm",
            )
        signature = _signature_in(answer)
        if not self.verifier.is_signature(message, signature):
            raise GovrunError(
                ExitCode.SIGNING_FAILED,
                "agent.signature",
                "the ssh-agent answered with a signature that is not that of the key",
                expected=f"a signature by {fingerprint(self.verifier.public)}",
                fix="do not use this agent",
            )
        return signature

    def _ask(self, request: bytes) -> bytes:
        if self._quiet_until and self.world.monotonic_ns() < self._quiet_until[0]:
            raise _too_late(ExitCode.SIGNING_FAILED)
        self._quiet_until.clear()
        try:
            return _exchange(self.socket_path, request, self.world, ExitCode.SIGNING_FAILED, self.wait_ms)
        except GovrunError as error:
            if error.rule == "agent.deadline":
                self._quiet_until.append(self.world.monotonic_ns() + self.wait_ms * 1_000_000)
            raise


def agent_signer(environ: Mapping[str, str], wanted: str, name: str, world: World) -> AgentSigner:
    """The signer under a name for the key of a fingerprint (`SHA256:...`) in the agent that SSH_AUTH_SOCK names.

    GovrunError (ledger-unavailable): no agent (`agent.none`, `agent.socket`), no such key (`agent.key`), one of
    another type (`agent.type`), no answer in time (`agent.deadline`), or one that is malformed (`agent.answer`).
    """
    path = socket_path(environ)
    blobs = _blobs(path, world)
    blob = next((blob for blob, _ in blobs if fingerprint_of_blob(blob) == wanted), None)
    if blob is None:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "agent.key",
            "the ssh-agent does not hold the key",
            found=f"{len(blobs)} other keys" if blobs else "no keys, as in an agent that is empty or locked",
            expected=wanted,
            fix="`ssh-add` the key, or unlock the agent with `ssh-add -X`",
        )
    public = public_of(blob)
    if public is None:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "agent.type",
            "the key in the ssh-agent is of a type that govrun does not use",
            found=ascii(_type_of(blob))[2:-1],
            expected=ED25519.decode(),
            fix="make one: ssh-keygen -t ed25519",
        )
    return AgentSigner(verifier_for(name, public), path, world)


def list_keys(environ: Mapping[str, str], world: World) -> tuple[AgentKey, ...]:
    """Every Ed25519 key of the agent, in its order; GovrunError as `agent_signer`."""
    found = ((public_of(blob), comment) for blob, comment in _blobs(socket_path(environ), world))
    return tuple(
        AgentKey(public, comment.decode("utf-8", "backslashreplace")) for public, comment in found if public is not None
    )


def socket_path(environ: Mapping[str, str]) -> str:
    """The agent's socket: a Unix socket of this user or root under an absolute path; else ledger-unavailable."""
    path = environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise _unavailable("agent.none", "there is no ssh-agent", "no SSH_AUTH_SOCK", "start one: eval $(ssh-agent)")
    if not path.startswith("/") or "\0" in path:
        raise _unavailable("agent.socket", "SSH_AUTH_SOCK is not an absolute path", ascii(path[:100]), None)
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unavailable(
            "agent.none", "there is no ssh-agent where SSH_AUTH_SOCK says", error.strerror, "start it"
        ) from error
    if not stat.S_ISSOCK(status.st_mode):
        raise _unavailable("agent.socket", "SSH_AUTH_SOCK does not name a Unix socket", "another kind of file", None)
    if status.st_uid not in (os.geteuid(), 0):
        raise _unavailable(
            "agent.owner", "the ssh-agent's socket belongs to another user", f"user {status.st_uid}", None
        )
    return path


def _blobs(path: str, world: World) -> tuple[tuple[bytes, bytes], ...]:
    """(blob, comment) of every key of the agent, of whatever type."""
    answer = _exchange(path, bytes([_REQUEST_IDENTITIES]), world, ExitCode.LEDGER_UNAVAILABLE)
    if answer[0] in _FAILURES:
        raise _unavailable("agent.refused", "the ssh-agent does not tell its keys", "a failure", "unlock it")
    try:
        if answer[0] != _IDENTITIES:
            raise ValueError(f"an answer of type {answer[0]}")
        count, at = read_uint32(answer, 1)
        if count > MAX_KEYS:
            raise ValueError(f"{count} keys")
        found = []
        for _ in range(count):
            blob, at = read_string(answer, at)
            comment, at = read_string(answer, at)
            found.append((blob, comment[:MAX_COMMENT_BYTES]))
        if at != len(answer):
            raise ValueError("bytes behind the last key")
    except ValueError as error:
        raise _malformed(ExitCode.LEDGER_UNAVAILABLE, str(error)) from error
    return tuple(found)


def _signature_in(answer: bytes) -> bytes:
    try:
        if answer[0] != _SIGNATURE:
            raise ValueError(f"an answer of type {answer[0]}")
        inner, end = read_string(answer, 1)
        kind, at = read_string(inner, 0)
        signature, behind = read_string(inner, at)
        if end != len(answer) or behind != len(inner):
            raise ValueError("bytes behind the signature")
        if kind != ED25519 or len(signature) != SIGNATURE_BYTES:
            raise ValueError(f"a signature of type {ascii(kind[:32])[2:-1]} and {len(signature)} bytes")
    except ValueError as error:
        raise _malformed(ExitCode.SIGNING_FAILED, str(error)) from error
    return signature


def _type_of(blob: bytes) -> bytes:
    try:
        return read_string(blob, 0)[0][:64]
    except ValueError:
        return b"unknown"


def _exchange(path: str, request: bytes, world: World, code: ExitCode, wait_ms: int = WAIT_MS) -> bytes:
    """One request and its answer, at least one byte; GovrunError with the code for whatever keeps it from coming."""
    deadline = world.monotonic_ns() + wait_ms * 1_000_000
    with _connected(path, world, deadline, code) as connection:
        try:
            _wait_until(connection, world, deadline)
            connection.sendall(string(request))
            size = int.from_bytes(_receive(connection, 4, world, deadline, code), "big")
            if not 1 <= size <= MAX_ANSWER_BYTES:
                raise _malformed(code, f"an answer of {size} bytes")
            return _receive(connection, size, world, deadline, code)
        except TimeoutError as error:
            raise _too_late(code) from error
        except OSError as error:
            raise _lost(code, error) from error


@contextmanager
def _connected(path: str, world: World, deadline: int, code: ExitCode) -> Iterator[socket.socket]:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _wait_until(connection, world, deadline)
            connection.connect(path)
            peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        except TimeoutError as error:
            raise _too_late(code) from error
        except OSError as error:
            raise _lost(code, error) from error
        if peer not in (os.geteuid(), 0):
            raise GovrunError(
                code, "agent.owner", "another user answers at the ssh-agent's socket", found=f"user {peer}"
            )
        yield connection


def _wait_until(connection: socket.socket, world: World, deadline: int) -> None:
    left = (deadline - world.monotonic_ns()) / 1e9
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _receive(connection: socket.socket, size: int, world: World, deadline: int, code: ExitCode) -> bytes:
    data = bytearray()
    while len(data) < size:
        # Anew for each part: an agent that sends a byte now and then does not get more time for it.
        _wait_until(connection, world, deadline)
        part = connection.recv(min(size - len(data), 65_536))
        if not part:
            raise _malformed(code, f"{len(data)} of {size} bytes")
        data += part
    return bytes(data)


def _too_late(code: ExitCode) -> GovrunError:
    return GovrunError(
        code,
        "agent.deadline",
        "the ssh-agent does not answer",
        found="no whole answer within its deadline",
        expected="an answer",
        fix="look at the agent; a key that a person has to confirm is confirmed too late",
    )


def _lost(code: ExitCode, error: OSError) -> GovrunError:
    return GovrunError(
        code,
        "agent.none",
        "the ssh-agent cannot be reached",
        found=error.strerror or str(error)[:100],
        expected="an agent at SSH_AUTH_SOCK",
        fix="start it, and `ssh-add` the key",
    )


def _malformed(code: ExitCode, found: str) -> GovrunError:
    return GovrunError(
        code,
        "agent.answer",
        "the ssh-agent's answer is malformed",
        found=found,
        expected=f"an answer of the agent protocol, at most {MAX_ANSWER_BYTES} bytes",
        fix="do not use this agent",
    )


def _unavailable(rule: str, what: str, found: str | None, fix: str | None) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        rule,
        what,
        found=found,
        expected="a Unix socket of yours, named by SSH_AUTH_SOCK",
        fix=fix,
    )
