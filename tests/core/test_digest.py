"""A digest is of one regular file that stood still; a commitment is an HMAC that anybody with the salt can repeat."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.digest import (
    CHUNK,
    Commitment,
    FileDigest,
    commit,
    digest_file,
    field_salt,
    identity_of,
    sha256_hex,
    unreadable,
)
from govrun.errors import ExitCode, GovrunError

Refuses = Callable[..., GovrunError]
REFUSED = ExitCode.PREFLIGHT_REFUSED
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_of_nothing_is_the_published_one() -> None:
    assert sha256_hex(b"") == EMPTY


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_a_file_is_hashed_whole_and_its_progress_told(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    told: list[int] = []
    assert digest_file(tmp_path / "f", told.append) == FileDigest(size, hashlib.sha256(data).hexdigest())
    assert sum(told) == size


def test_a_missing_file_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    refuses(REFUSED, "file.readable", digest_file, tmp_path / "none")


def test_a_name_that_no_file_can_have_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    refuses(REFUSED, "file.readable", digest_file, tmp_path / "a\0b")
    refuses(REFUSED, "file.readable", digest_file, tmp_path / "\ud800")


def test_what_is_no_regular_file_is_refused_without_waiting(refuses: Refuses, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    refuses(REFUSED, "file.regular", digest_file, tmp_path / "fifo")
    refuses(REFUSED, "file.readable", digest_file, tmp_path)
    refuses(REFUSED, "file.regular", digest_file, Path("/dev/null"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        refuses(REFUSED, "file.readable", digest_file, tmp_path / "socket")


def test_a_read_error_is_a_refusal(refuses: Refuses) -> None:
    error = refuses(REFUSED, "file.readable", digest_file, Path("/proc/self/mem"))
    assert error.found == "Input/output error"


def test_an_error_without_words_is_still_told() -> None:
    assert unreadable(Path("f"), OSError()).found == "an error"


def test_a_file_that_grows_while_it_is_read_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)

    def grow(_: int) -> None:
        if path.stat().st_size < 20:
            with path.open("ab") as file:
                file.write(b"y" * 10)

    refuses(REFUSED, "file.stable", digest_file, path, grow)


def test_a_file_that_is_rewritten_in_place_while_it_is_read_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    os.utime(path, ns=(1, 1))

    def rewrite(_: int) -> None:
        path.write_bytes(b"y" * 10)

    refuses(REFUSED, "file.stable", digest_file, path, rewrite)


def test_equal_identities_need_every_field(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    a, b = (identity_of(os.stat(tmp_path / name)) for name in "ab")
    assert a != b
    assert a == identity_of(os.stat(tmp_path / "a"))


@given(st.lists(st.binary(max_size=50), max_size=5), st.none() | st.binary(min_size=32, max_size=32))
def test_a_streamed_commitment_is_that_of_the_whole(parts: list[bytes], salt: bytes | None) -> None:
    streamed = Commitment(salt)
    for part in parts:
        streamed.update(part)
    whole = b"".join(parts)
    expected = hashlib.sha256(whole) if salt is None else hmac.new(salt, whole, "sha256")
    assert (streamed.algorithm, streamed.size) == ("sha256" if salt is None else "hmacSha256", len(whole))
    assert expected.hexdigest() == streamed.hex() == commit(whole, salt).hex()


def test_each_field_has_a_salt_of_its_own() -> None:
    salt = bytes(range(32))
    expected = hmac.new(salt, b"govrun-field-salt:prompt", hashlib.sha256).digest()
    assert expected == field_salt(salt, "prompt")
    assert len({field_salt(salt, name) for name in ("prompt", "stdout", "stderr", "text", "arg.1")}) == 5
