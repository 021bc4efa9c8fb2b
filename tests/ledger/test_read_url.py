"""A published ledger is read from a web server, and a server that means ill costs a bounded time and no verdict."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from govrun.audit.verify import Question, verify_ledger
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.http_get import Address, Patience, parse_address
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.ledger.read_published import PublishedReader
from govrun.ledger.read_url import CONNECTIONS, UrlFiles
from tests.audit import ledgers
from tests.audit.ledgers import LOG, TRUSTED
from tests.ledger.ledger_world import LOG as HOME_LOG
from tests.ledger.ledger_world import Home, denied, verified_size, world
from tests.ledger.web import answering, make_certificate, serve

# Enough for a machine that is busy with other tests, and short enough to wait for.
SHORT = Patience(connect_s=2.0, silence_s=0.4, answer_s=0.8)
ENTRIES = 601


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ledgers.write_published(ledgers.many(ENTRIES), tmp_path_factory.mktemp("ledger"))


@contextlib.contextmanager
def reading(url: str, patience: Patience | None = None) -> Iterator[PublishedReader]:
    files = UrlFiles(url, world(), patience=patience)
    try:
        yield PublishedReader(files)
    finally:
        files.close()


def refused(url: str, patience: Patience | None = SHORT) -> GovrunError:
    with pytest.raises(GovrunError) as caught, reading(url, patience):
        pass
    return caught.value


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_a_served_ledger_verifies_and_each_file_is_asked_for_once(public: Path, protocol: str) -> None:
    with serve(public, protocol) as served, reading(served.url) as reader:
        report = verify_ledger(reader, TRUSTED)
        assert (ExitCode.SUCCESS, ENTRIES) == (report.exit_code, report.size)
    assert 0 == verify_ledger(open_ledger(public), TRUSTED).exit_code
    names = {f"/{path.relative_to(public)}" for path in public.rglob("*") if path.is_file()}
    # The genesis is looked at before everything else.
    expected = {**dict.fromkeys(names - {"/README.md", "/log.vkey"}, 1), "/tile/entries/000": 2}
    assert expected == Counter(served.asked)
    if protocol == "HTTP/1.1":
        assert served.connections <= CONNECTIONS


def test_one_entry_needs_a_few_files_only(public: Path) -> None:
    with serve(public) as served, reading(served.url) as reader:
        assert 1 == len(next(iter(reader.leaves(300, 301))))
    assert ["/checkpoint", "/tile/entries/001"] == served.asked


def test_a_prefix_may_be_in_the_address(public: Path) -> None:
    with serve(public.parent) as served:
        for end in ("/published", "/published/"):
            with reading(served.url + end) as reader:
                assert ENTRIES == reader.size


def test_workers_verify_what_a_server_gives(public: Path) -> None:
    with serve(public) as served, reading(served.url) as reader:
        report = verify_ledger(reader, TRUSTED, Question(workers=2, alone_below=10))
    assert (ExitCode.SUCCESS, ENTRIES) == (report.exit_code, report.size)


def test_a_ledger_that_grows_while_it_is_read_is_the_one_of_its_head(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()

    def grow(size: int) -> None:
        with home.writer() as writer:
            writer.append([denied(n + 1) for n in range(size - writer.store.size())])
        source = open_ledger(home.path)
        publish(source, tmp_path / "public", HOME_LOG.verifier)
        source.close()

    grow(300)
    with serve(tmp_path / "public") as served, reading(served.url) as reader:
        grow(600)
        # The partial tiles of 300 entries are gone; the full ones begin with them.
        assert not (tmp_path / "public" / "tile" / "entries" / "001.p").exists()
        assert 300 == sum(len(batch) for batch in reader.leaves(0, reader.size))
        assert 3 == len(reader.hashes([0, 1, 2]))
        assert 600 == verified_size(served.url)  # type: ignore[arg-type] # a location


def test_a_file_that_is_missing_or_wrong_is_a_broken_ledger(public: Path, tmp_path: Path) -> None:
    for name, change, code in (
        ("tile/entries/001", lambda data: None, ExitCode.LEDGER_INCONSISTENT),
        ("tile/0/001", lambda data: None, ExitCode.LEDGER_INCONSISTENT),
        ("tile/0/001", lambda data: b"<html>not here</html>", ExitCode.LEDGER_INCONSISTENT),
        ("tile/0/001", lambda data: data + b"x", ExitCode.LEDGER_INCONSISTENT),
        ("tile/entries/000", lambda data: data[:-1], ExitCode.LEDGER_INCONSISTENT),
        ("tile/entries/000", lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:], None),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(public, copy)
        data = change((copy / name).read_bytes())
        (copy / name).unlink() if data is None else (copy / name).write_bytes(data)
        with serve(copy) as served, reading(served.url) as reader:
            report = verify_ledger(reader, TRUSTED)
            assert report.exit_code in ({code} if code else {40, 41}), name
        shutil.rmtree(copy)


def test_no_ledger_at_an_address_is_no_verdict(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        error = refused(served.url)
    assert (ExitCode.COULD_NOT_CHECK, "ledger.missing") == (error.code, error.rule)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refused(f"http://127.0.0.1:{port}")
    assert (ExitCode.COULD_NOT_CHECK, "url.unreachable") == (error.code, error.rule)


OK = b"HTTP/1.1 200 OK\r\n"


def silent(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)


def dripping(head: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        for _ in itertools.count():
            connection.sendall(b"x")
            time.sleep(0.05)

    return answer


def endless(head: bytes, piece: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return answer


def saying(data: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, _: connection.sendall(data)


@pytest.mark.parametrize(
    ("answer", "code", "rule"),
    [
        (silent, 45, "url.slow"),
        (dripping(b""), 45, "url.slow"),
        (dripping(OK + b"X: "), 45, "url.slow"),
        (dripping(OK + b"Content-Length: 1000\r\n\r\n"), 45, "url.slow"),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 45, "url.slow"),
        (endless(OK, b"X: y\r\n"), 45, "url.answer"),
        (endless(OK + b"X: ", b"x" * 1000), 45, "url.answer"),
        (endless(OK + b"\r\n", b"x" * 4096), 40, "published.size"),
        (endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nxxxx\r\n"), 40, "published.size"),
        (endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"f" * 4096), 45, "url.answer"),
        (saying(OK + b"Content-Length: 99999999999\r\n\r\n"), 40, "published.size"),
        (saying(OK + b"Content-Length: 100\r\n\r\nshort"), 45, "url.answer"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nab"), 45, "url.answer"),
        (saying(OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"), 45, "url.answer"),
        (saying(b""), 45, "url.unreachable"),
        (saying(b"SSH-2.0-OpenSSH_9.6\r\n"), 45, "url.answer"),
        (saying(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), 45, "url.redirect"),
        (saying(b"HTTP/1.1 301 Moved\r\n\r\n"), 45, "url.redirect"),
        (saying(b"HTTP/1.1 403 Forbidden\r\n\r\n"), 45, "url.status"),
        (saying(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx"), 45, "url.status"),
        (saying(b"HTTP/1.1 503 Busy\r\n\r\n"), 45, "url.status"),
        (saying(b"HTTP/1.1 404 Not Found\r\n\r\n"), 45, "ledger.missing"),
        (saying(OK + b"Content-Length: 5\r\n\r\nhello"), 40, "note.form"),
    ],
)
def test_a_hostile_answer_costs_a_bounded_time_and_gives_no_yes(
    answer: Callable[[socket.socket, bytes], None], code: int, rule: str
) -> None:
    began = time.monotonic()
    with answering(answer) as served:
        error = refused(served.url)
    assert (code, rule) == (error.code, error.rule), error
    assert time.monotonic() - began < 10


def test_a_redirect_is_not_followed(public: Path) -> None:
    with serve(public) as target:
        head = f"HTTP/1.1 307 x\r\nLocation: {target.url}/checkpoint\r\n\r\n".encode()
        with answering(saying(head)) as served:
            assert "url.redirect" == refused(served.url).rule
    assert [] == target.asked


def test_a_server_that_closes_without_saying_so_is_asked_again(public: Path) -> None:
    def answer(connection: socket.socket, path: bytes) -> None:
        data = (public / path.decode()[1:]).read_bytes()
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(data) + data)

    with answering(answer) as served, reading(served.url) as reader:
        assert 0 == verify_ledger(reader, TRUSTED).exit_code
    assert served.connections > CONNECTIONS


def test_several_requests_are_under_way_at_once(public: Path) -> None:
    # Nobody is answered before so many have asked: a reader that asks for one file after another would wait for ever.
    together = threading.Barrier(3, timeout=5)
    ahead = {b"/tile/entries/001", b"/tile/0/001", b"/tile/entries/002.p/89"}

    def answer(connection: socket.socket, path: bytes) -> None:
        if path in ahead:
            together.wait()
        data = (public / path.decode()[1:]).read_bytes()
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(data) + data)

    with answering(answer) as served, reading(served.url) as reader:
        assert ENTRIES == sum(len(batch) for batch in reader.leaves(0, ENTRIES))
    assert not together.broken


def test_files_may_be_fetched_in_any_order_whatever_was_announced(tmp_path: Path) -> None:
    names = [f"tile/63/{index:03d}" for index in range(100)]
    (tmp_path / "tile" / "63").mkdir(parents=True)
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    with serve(tmp_path) as served:
        files = UrlFiles(served.url, world())
        files.ahead([(name, 8_192) for name in names[:20]])
        # Every connection has a request under way, and none of them is for this one.
        assert b"tile/63/050" == files.fetch(names[50], 8_192)
        files.ahead([(name, 100_000) for name in names[20:40]])
        for name in (*reversed(names), *names):
            assert name.encode() == files.fetch(name, 100_000)
        assert files.fetch("tile/63/200", 8_192) is None
        assert served.connections <= CONNECTIONS + 1
        files.close()
        assert b"tile/63/007" == files.fetch(names[7], 8_192)
        files.close()


def test_a_file_that_comes_in_chunks_is_whole(public: Path) -> None:
    def answer(connection: socket.socket, path: bytes) -> None:
        data = (public / path.decode()[1:]).read_bytes()
        pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")

    with answering(answer) as served, reading(served.url) as reader:
        assert 0 == verify_ledger(reader, TRUSTED).exit_code


def test_no_proxy_of_the_environment_is_used(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serve(public) as served, reading(served.url) as reader:
        assert ENTRIES == reader.size


def test_a_certificate_counts_only_from_a_trusted_authority_and_for_its_name(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, other = make_certificate(tmp_path, "127.0.0.1"), make_certificate(tmp_path, "example.com")
    with serve(public, certificate=good) as served:
        error = refused(served.url, None)
        assert (ExitCode.COULD_NOT_CHECK, "url.tls", "self-signed certificate") == (
            error.code,
            error.rule,
            error.found,
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(good))
        with reading(served.url) as reader:
            assert 0 == verify_ledger(reader, TRUSTED).exit_code
        assert served.connections <= CONNECTIONS + 2
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with serve(public, certificate=other) as served:
        error = refused(served.url, None)
        assert ("url.tls", True) == (error.rule, "IP address mismatch" in (error.found or "")), error
        assert [] == served.asked


def test_a_server_that_stops_in_the_middle_of_a_handshake_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = refused(
            f"https://127.0.0.1:{listener.getsockname()[1]}", Patience(connect_s=0.3, silence_s=0.3, answer_s=0.3)
        )
    assert (ExitCode.COULD_NOT_CHECK, "url.slow") == (error.code, error.rule)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com", Address(True, "example.com", 443, "/")),
        ("https://Example.com:8443/a/b/", Address(True, "example.com", 8443, "/a/b/")),
        ("https://[2001:db8::1]/x", Address(True, "2001:db8::1", 443, "/x/")),
        ("http://localhost:80/%20", Address(False, "localhost", 80, "/%20/")),
        ("http://[::1]:8080", Address(False, "::1", 8080, "/")),
        ("http://127.9.9.9", Address(False, "127.9.9.9", 80, "/")),
    ],
)
def test_an_address_says_where(url: str, expected: Address) -> None:
    assert expected == parse_address(url, allow_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com/?a=b",
        "https://example.com/?",
        "https://example.com/#x",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://example.com/a b",
        "https://example.com/a\r\nHost: x",
        "https://example.com/\\x",
        "https://ex\u00e4mple.com/",
        "https://example.com/" + "a" * 3000,
        "ftp://example.com/",
        "https://[::1/",
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(GovrunError) as caught:
        parse_address(url, allow_http=True)
    assert (ExitCode.COULD_NOT_CHECK, "url.form") == (caught.value.code, caught.value.rule)
    assert "secret" not in str(caught.value)


def test_plain_http_to_another_machine_must_be_allowed() -> None:
    for host in ("example.com", "10.0.0.1", "localhost.example.com", "128.0.0.1"):
        with pytest.raises(GovrunError) as caught:
            parse_address(f"http://{host}/", allow_http=False)
        assert (ExitCode.COULD_NOT_CHECK, "url.http") == (caught.value.code, caught.value.rule)
        assert host == parse_address(f"http://{host}/", allow_http=True).host


def test_what_the_public_key_signed_is_the_same_over_any_way(public: Path) -> None:
    with serve(public) as served, reading(served.url) as far:
        near = open_ledger(public)
        assert near.checkpoint() == far.checkpoint()
        assert list(near.leaves(0, ENTRIES)) == list(far.leaves(0, ENTRIES))
        assert LOG.verifier.name == far.origin
