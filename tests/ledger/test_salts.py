"""A salt is kept for its receipt alone, and an erased one is gone."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.salts import Salts
from tests.ledger.ledger_world import RECEIPT, Home, denied

SALT = bytes(range(32))


def test_a_salt_is_read_as_it_was_written(tmp_path: Path) -> None:
    salts = Salts(tmp_path / "salts")
    assert salts.read(0) is None
    salts.write(5, [SALT])
    assert SALT == salts.read(5)
    assert [None] * 5 == [salts.read(n) for n in range(5)]
    assert salts.read(6) is None
    assert 0o600 == stat.S_IMODE((tmp_path / "salts").stat().st_mode)
    assert 6 * 32 == (tmp_path / "salts").stat().st_size


def test_an_erased_salt_is_gone_from_the_file(tmp_path: Path) -> None:
    salts = Salts(tmp_path / "salts")
    salts.erase(3)
    assert not (tmp_path / "salts").exists()
    salts.write(1, [SALT])
    salts.write(2, [SALT[::-1]])
    salts.erase(1)
    salts.erase(9)
    assert salts.read(1) is None
    assert SALT[::-1] == salts.read(2)
    assert SALT not in (tmp_path / "salts").read_bytes()


def test_no_salt_clears_what_an_append_that_failed_has_left(tmp_path: Path) -> None:
    salts = Salts(tmp_path / "salts")
    salts.write(4, [None])
    assert not (tmp_path / "salts").exists()
    salts.write(4, [SALT])
    salts.write(4, [None])
    assert salts.read(4) is None
    salts.write(5, [None])
    assert 5 * 32 == (tmp_path / "salts").stat().st_size


def test_a_receipt_finds_the_salt_it_was_appended_with(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with home.writer() as writer:
        writer.append([denied(1), denied(2), denied(3)], salts=[SALT, None, SALT[::-1]])
        assert [None, SALT, None, SALT[::-1], None] == [writer.salts.read(n) for n in range(5)]
    assert not any(SALT in path.read_bytes() for path in home.directory.iterdir() if path.name != "salts")


def test_a_salt_of_an_append_that_failed_is_not_given_to_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with home.writer() as writer:
        with pytest.raises(GovrunError):
            writer.append([denied(1), denied(0)], salts=[SALT, None])
        writer.append([denied(1)])
        assert writer.salts.read(1) is None


def test_a_file_of_salts_that_others_can_read_is_refused(tmp_path: Path) -> None:
    salts = Salts(tmp_path / "salts")
    salts.write(0, [SALT])
    for mode in (0o640, 0o604):
        (tmp_path / "salts").chmod(mode)
        for action in (lambda: salts.read(0), lambda: salts.write(1, [SALT]), lambda: salts.erase(0)):
            with pytest.raises(GovrunError) as caught:
                action()
            assert (ExitCode.LEDGER_UNAVAILABLE, "salts.permissions") == (caught.value.code, caught.value.rule)
    (tmp_path / "salts").chmod(0o600)
    assert SALT == salts.read(0)


def test_a_file_of_salts_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name, action in (
        ("link", lambda s: s.write(0, [SALT])),
        ("directory", lambda s: s.write(0, [SALT])),
        ("file/salts", lambda s: s.read(0)),
    ):
        with pytest.raises(GovrunError) as caught:
            action(Salts(tmp_path / name))
        assert "salts.unusable" == caught.value.rule
    assert not (tmp_path / "elsewhere").exists()


def test_a_salt_that_finds_no_room_is_said(tmp_path: Path) -> None:
    salts = Salts(tmp_path / "salts")
    salts.write(0, [SALT])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        for index in (1, 2):  # cut short, and not written at all
            with pytest.raises(GovrunError) as caught:
                salts.write(index, [SALT])
            assert "salts.unusable" == caught.value.rule
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert SALT == salts.read(0)
    assert salts.read(1) is None


def test_an_append_whose_salt_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    (home.directory / "salts").symlink_to("/nowhere/salts")
    with home.writer() as writer, pytest.raises(GovrunError) as caught:
        writer.append([denied()], salts=[SALT])
    assert (ExitCode.APPEND_FAILED, "salts.unusable") == (caught.value.code, caught.value.rule)
    assert 1 == home.size()
    assert RECEIPT.seed not in b"".join(p.read_bytes() for p in home.directory.iterdir() if p.is_file())
    os.unlink(home.directory / "salts")
