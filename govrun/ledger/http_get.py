"""One GET at a time over a connection that is kept: deadlines, limits, and no way that the server chooses.

Python's own client reads and writes HTTP/1.1; around it stand a deadline for each whole answer, which it lacks, and a
limit. Certificates are verified, redirects are not followed, and no proxy is taken from the environment. Whoever
answers decides the bytes, so nothing here is trusted with more than time and memory, both bounded.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import os
import re
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.world import World

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_URL_CHARS: Final = 2_048

_NS: Final = 1_000_000_000
_PATH: Final = re.compile(r"/[!$&-;=@-Z_a-z~%]*")
_HOST: Final = re.compile(r"[0-9A-Za-z.:_-]{1,253}")
_CHUNK: Final = 1 << 20


@frozen
class Address:
    """Where a ledger is served: a scheme, a host, a port, and a path that ends with a slash."""

    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def label(self) -> str:
        """Whose answers these are, for errors."""
        return f"{self.host}:{self.port}"


@frozen
class Patience:
    """Seconds: to connect, to wait for the next bytes, and for one whole answer."""

    connect_s: float = 10.0
    silence_s: float = 10.0
    answer_s: float = 60.0


def parse_address(url: str, allow_http: bool) -> Address:
    """Read the address of a published ledger; GovrunError (could-not-check) for anything that is not plainly one.

    http is for this machine only, unless allow_http: a verdict rests on signatures and not on the way that the bytes
    took, but whoever is on that way sees what is read, and can change what is only shown.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _malformed("another form") from error
    host = parts.hostname or ""
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or "\\" in url:
        raise _malformed("a long address, or one with other characters")
    if parts.scheme not in ("http", "https"):
        raise _malformed(f"{parts.scheme}://")
    if "@" in parts.netloc:
        raise _malformed("a name or a password in it")
    if "?" in url or "#" in url:
        raise _malformed("? or # in it")
    path = parts.path.rstrip("/") + "/"
    if not _HOST.fullmatch(host) or port == 0 or not _PATH.fullmatch(path):
        raise _malformed("no host, a port that cannot be, or other characters in the path")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "url.http",
            "plain http to another machine is not used unasked",
            found="http://",
            expected="https://",
            fix="with --allow-http others on the way see what is read, and can change what list and show display;"
            " they cannot change what a key signed",
        )
    return Address(parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80), path)


class Connection:
    """A connection to one server, opened when it is first needed; at most one request is under way.

    Errors are GovrunError: could-not-check under a rule for each cause (`url.unreachable`, `url.tls`, `url.slow`,
    `url.redirect`, `url.status`, `url.answer`), ledger-inconsistent for a file beyond its limit.
    """

    def __init__(self, address: Address, world: World, patience: Patience, context: ssl.SSLContext | None) -> None:
        self._address = address
        self._world = world
        self._patience = patience
        self._http = _Http(address, world, patience, context)
        self._name = ""

    def ask(self, name: str) -> None:
        """Send the request for the file of a name; it is answered later."""
        self._name = name
        was_kept = self._http.timed is not None
        try:
            self._send()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not was_kept:
                raise self._refused(error) from error
            # A connection that was kept may be gone by now; once more, on a fresh one.
            self.ask(name)

    def answer(self, limit: int) -> bytes | None:
        """The bytes of the file that was asked for, at most limit; None if the server has no such file."""
        try:
            return self._answer(limit)
        except (ConnectionError, http.client.HTTPException):
            # The same: a server closes what was idle for too long, and nothing that a GET asks for is done twice.
            self.close()
            try:
                self._send()
                return self._answer(limit)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise self._refused(error) from error
        except OSError as error:
            self.close()
            raise self._refused(error) from error
        except GovrunError:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; it is opened again when it is needed."""
        self._http.close()
        if self._http.timed is not None:
            self._http.timed.end()
            self._http.timed = None

    def _send(self) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "govrun"}
        self._http.request("GET", self._address.path + self._name, headers=headers)

    def _answer(self, limit: int) -> bytes | None:
        if (timed := self._http.timed) is not None:
            timed.deadline_ns = self._world.monotonic_ns() + int(self._patience.answer_s * _NS)
        response = self._http.getresponse()
        if response.status in (404, 410):
            self.close()
            return None
        self._check_head(response)
        if response.length is not None and response.length > limit:
            raise self._too_large(limit)
        data = bytearray()
        while len(data) <= limit and (piece := response.read(min(_CHUNK, limit + 1 - len(data)))):
            data += piece
        if len(data) > limit:
            raise self._too_large(limit)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        if response.will_close:
            self.close()
        response.close()
        return bytes(data)

    def _check_head(self, response: http.client.HTTPResponse) -> None:
        if 300 <= response.status < 400:
            raise self._error(
                "url.redirect",
                "the server points to another place, which is not followed",
                f"{response.status} to {response.getheader('Location', 'nowhere')[:200]!a}",
                "the file itself",
                "name the address that it points to, if that is the publisher's",
            )
        if response.status != 200:
            raise self._error("url.status", "the server does not give the file", f"status {response.status}", "200")
        if (encoding := response.getheader("Content-Encoding", "identity")).lower() != "identity":
            raise self._error(
                "url.answer", "the server gives the file in another encoding", f"{encoding[:40]!a}", "its exact bytes"
            )

    def _too_large(self, limit: int) -> GovrunError:
        from govrun.ledger.read_published import too_large

        return too_large(f"{self._name} at {self._address.label}", limit)

    def _refused(self, error: OSError | http.client.HTTPException) -> GovrunError:
        """What an error says about the server."""
        if isinstance(error, ssl.SSLError):
            found = getattr(error, "verify_message", "") or error.reason or type(error).__name__
            return self._error(
                "url.tls",
                "the server could not be identified",
                found,
                f"a certificate for {self._address.host} by an authority that this machine trusts",
                "put the authority's certificate into a file and name that in SSL_CERT_FILE",
            )
        if isinstance(error, TimeoutError):
            patience = self._patience
            return self._error(
                "url.slow",
                "the server took too long",
                "no answer in time",
                f"a connection within {patience.connect_s:g} s, the next bytes within {patience.silence_s:g} s,"
                f" all of them within {patience.answer_s:g} s",
            )
        if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
            return self._error(
                "url.answer", "the server's answer is cut off or is not HTTP", type(error).__name__, "a whole answer"
            )
        number = error.errno if isinstance(error, OSError) else None
        # Failed look-ups of names have negative numbers and words of their own.
        reason = os.strerror(number) if number is not None and number > 0 else f"{error}"
        return self._error("url.unreachable", "the server cannot be reached", reason, "a server that answers")

    def _error(self, rule: str, what: str, found: str, expected: str, fix: str | None = None) -> GovrunError:
        where = f"{self._name} at {self._address.label}: {what}"
        return GovrunError(ExitCode.COULD_NOT_CHECK, rule, where, found=found, expected=expected, fix=fix)


def trusting_context() -> ssl.SSLContext:
    """A TLS client that verifies certificate and name, by the authorities of this machine (or SSL_CERT_FILE's)."""
    # Not `create_default_context`: that one writes session keys where an environment variable says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Http(http.client.HTTPConnection):
    """Python's client over a socket whose reads end at a deadline."""

    def __init__(self, address: Address, world: World, patience: Patience, context: ssl.SSLContext | None) -> None:
        super().__init__(address.host, address.port)
        self.default_port = 443 if address.is_tls else 80
        self.timed: _Timed | None = None
        self._address = address
        self._world = world
        self._patience = patience
        self._context = context

    def connect(self) -> None:
        plain = socket.create_connection((self._address.host, self._address.port), self._patience.connect_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            whole = plain
            if self._context is not None:
                # The timeout is for the handshake as a whole.
                whole = self._context.wrap_socket(plain, server_hostname=self._address.host)
            whole.settimeout(self._patience.silence_s)
        except BaseException:
            plain.close()
            raise
        self.timed = _Timed(whole, self._world, self._patience)
        self.sock: Any = self.timed


class _Timed:
    """As much of a socket as Python's client uses."""

    def __init__(self, inner: socket.socket, world: World, patience: Patience) -> None:
        self.deadline_ns = world.monotonic_ns() + int(patience.answer_s * _NS)
        self._inner = inner
        self._world = world
        self._silence_s = patience.silence_s

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(self._silence_s)
        self._inner.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode  # the client reads through it, and nothing else
        return io.BufferedReader(_Bytes(self))

    def read_into(self, buffer: WriteableBuffer) -> int:
        left_s = (self.deadline_ns - self._world.monotonic_ns()) / _NS
        if left_s <= 0:
            raise TimeoutError
        self._inner.settimeout(min(self._silence_s, left_s))
        return self._inner.recv_into(buffer)

    def close(self) -> None:
        """Nothing yet: the client closes before it reads a last answer."""

    def end(self) -> None:
        """Close the socket."""
        self._inner.close()


class _Bytes(io.RawIOBase):
    """The bytes that one answer is read from."""

    def __init__(self, timed: _Timed) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._timed.read_into(buffer)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _malformed(found: str) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "url.form",
        "this is not the address of a published ledger",
        found=found,
        expected="https://HOST[:PORT]/PATH",
        fix="name the directory in which the file checkpoint is served",
    )
