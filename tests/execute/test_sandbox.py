"""Finding, asking and understanding bubblewrap."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from govrun.execute import sandbox


def an_executable(path: Path, mode: int = 0o755) -> str:
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_the_first_trustworthy_place_is_taken(tmp_path: Path) -> None:
    missing, first, second = str(tmp_path / "missing"), an_executable(tmp_path / "a"), an_executable(tmp_path / "b")
    assert sandbox.locate((missing, first, second)) == first
    assert sandbox.bubblewrap_works((missing, first, second))


@pytest.mark.parametrize("mode", [0o644, 0o775, 0o757, 0o777])
def test_what_others_may_write_or_nobody_may_execute_is_not_taken(mode: int, tmp_path: Path) -> None:
    place = an_executable(tmp_path / "bwrap", mode)
    assert sandbox.locate((place,)) is None
    assert not sandbox.bubblewrap_works((place,))


def test_a_directory_is_not_taken(tmp_path: Path) -> None:
    assert sandbox.locate((str(tmp_path),)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_not_taken(tmp_path: Path) -> None:
    place = an_executable(tmp_path / "bwrap")
    os.chown(place, 12345, 12345)
    assert sandbox.locate((place,)) is None


def test_every_place_is_absolute() -> None:
    assert all(place.startswith("/") for place in sandbox.PLACES)


def test_the_command_is_always_the_same() -> None:
    assert sandbox.command("/usr/bin/bwrap", ("/bin/echo", "--", "-x"), "/srv") == (
        *("/usr/bin/bwrap", "--unshare-pid", "--die-with-parent", "--new-session", "--json-status-fd", "3"),
        *("--dev-bind", "/", "/", "--proc", "/proc", "--chdir", "/srv", "--", "/bin/echo", "--", "-x"),
    )


def test_the_status_tells_whether_the_command_was_executed() -> None:
    begun = b'{ "child-pid": 9626, "mnt-namespace": 4026532177, "pid-namespace": 4026532180 }\n'
    assert sandbox.parse_status(begun + b'{ "exit-code": 139 }\n') == 139
    assert sandbox.parse_status(begun) is None
    assert sandbox.parse_status(b"") is None


def test_only_scripts_and_native_programs_are_executed_as_they_are(tmp_path: Path) -> None:
    own = Path(sys.executable).read_bytes()[:64]
    foreign = own[:18] + struct.pack("<H", 0xFFFF) + own[20:]
    contents = {"native": own, "script": b"#!/x", "foreign": foreign, "text": b"echo", "empty": b"", "short": own[:5]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    taken = {name for name in contents if sandbox.is_executed_as_it_is(str(tmp_path / name))}
    assert taken == {"native", "script"}


def test_what_cannot_be_read_is_not_executed_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not sandbox.is_executed_as_it_is(str(tmp_path / "missing"))
    assert not sandbox.is_executed_as_it_is(str(tmp_path))
    assert not sandbox.is_executed_as_it_is(str(tmp_path / "pipe"))
