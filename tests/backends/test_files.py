"""What a file must be before a command may use it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from govrun.backends.files import kind_of, not_writable_by_others, readable_file
from govrun.errors import GovrunError


def test_a_file_that_vanished_is_refused_and_not_a_crash(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "x\0y"):
        with pytest.raises(GovrunError) as caught:
            not_writable_by_others("x.private", "the file", path)
        assert caught.value.rule == "x.private"


def test_a_file_without_permission_to_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    # Root may read everything, so the answer of the system is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(GovrunError) as caught:
        readable_file("x.readable", "the file", tmp_path / "file", "chmod")
    assert caught.value.found == "no permission to read"


def test_every_kind_of_file_has_its_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        names = [kind_of(path.lstat()) for path in (tmp_path / "s", Path("/dev/null"), tmp_path, Path(__file__))]
    assert names == ["a socket", "a character device", "a directory", "a regular file"]
