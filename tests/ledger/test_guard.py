"""An older copy, a fork or another log under the same origin is refused, and nothing is refused that only grew."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Writer, create_ledger
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint, sign_verified, verify_checkpoint
from govrun.ledger.guard import SLOT_BYTES, Guard, heads_directory
from govrun.ledger.sqlite import open_store
from govrun.signing.keys import signer_from_seed
from tests.ledger.ledger_world import LOG, ORIGIN, RECEIPT, Home, denied, genesis, tree_size, world


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def append(home: Home, count: int = 1) -> None:
    with home.writer() as writer:
        for n in range(count):
            writer.append([denied(n + 1)])
        assert writer.warning is None


def refused(home: Home, rule: str = "ledger.rolledBack") -> GovrunError:
    before = home.size()
    with home.writer() as writer, pytest.raises(GovrunError) as caught:
        writer.append([denied(77)])
    assert (ExitCode.LEDGER_ROLLED_BACK, rule) == (caught.value.code, caught.value.rule)
    assert before == home.size()
    return caught.value


def test_the_head_is_remembered_outside_the_ledger(home: Home) -> None:
    append(home, 3)
    seen = home.guard().seen()
    assert seen is not None
    assert (ORIGIN, 4) == (seen.origin, seen.size)
    (file,) = home.heads.iterdir()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert 0o700 == stat.S_IMODE(home.heads.stat().st_mode)


def test_an_older_copy_is_refused(home: Home, tmp_path: Path) -> None:
    append(home)
    shutil.copy(home.path, tmp_path / "backup")
    append(home)
    shutil.copy(tmp_path / "backup", home.path)
    home.path.chmod(0o600)
    error = refused(home)
    assert ("tree size 2", "at least 3") == (error.found, error.expected)
    seen = home.guard().seen()
    assert seen is not None
    assert 3 == seen.size


def test_a_fork_of_the_same_size_is_refused(home: Home, tmp_path: Path) -> None:
    shutil.copy(home.path, tmp_path / "backup")
    append(home, 2)
    shutil.copy(tmp_path / "backup", home.path)
    home.path.chmod(0o600)
    fork(home, 2)
    refused(home)


def test_a_fork_that_has_grown_further_is_refused(home: Home, tmp_path: Path) -> None:
    shutil.copy(home.path, tmp_path / "backup")
    append(home, 2)
    shutil.copy(tmp_path / "backup", home.path)
    home.path.chmod(0o600)
    fork(home, 9)
    refused(home)


def fork(home: Home, count: int) -> None:
    """Go on with other entries, as a machine would that remembers another head."""
    other = Guard(home.heads / "other", LOG.verifier, world())
    with open_store(home.path, world()) as store:
        for n in range(count):
            Writer(store, RECEIPT, LOG, other).append([denied(100 + n)])


def test_a_guard_that_lags_does_not_refuse(home: Home) -> None:
    shutil.copytree(home.heads, home.heads.with_name("older"))
    append(home, 5)
    shutil.rmtree(home.heads)
    home.heads.with_name("older").rename(home.heads)
    append(home)
    assert 7 == home.size()


def test_a_guard_that_is_gone_or_empty_says_nothing(home: Home) -> None:
    append(home)
    for data in (b"", bytes(300), bytes(3 * SLOT_BYTES)):
        home.guard().path.write_bytes(data)
        assert home.guard().seen() is None
        append(home)
        assert home.guard().seen() is not None
    shutil.rmtree(home.heads)
    append(home)
    assert 6 == home.size()


def test_a_lesser_head_does_not_replace_a_greater(home: Home) -> None:
    append(home, 3)
    guard = home.guard()
    for size in (1, 4):
        guard.merge(sign_verified(Checkpoint(ORIGIN, size, b"x" * 32), LOG))
    seen = home.guard().seen()
    assert seen is not None
    assert 4 == seen.size
    assert b"x" * 32 != seen.root


def test_the_same_origin_cannot_begin_anew(home: Home) -> None:
    home.path.unlink()
    with pytest.raises(GovrunError) as caught:
        create_ledger(home.path, genesis(), RECEIPT, LOG, home.guard(), world())
    assert (ExitCode.LEDGER_ROLLED_BACK, "ledger.rolledBack") == (caught.value.code, caught.value.rule)
    assert ["ledger.lock"] == os.listdir(home.directory)


@pytest.mark.parametrize("data", [b"not a note", b"x" * 100_000])
def test_a_remembered_head_of_another_kind_is_refused(home: Home, data: bytes) -> None:
    home.guard().path.write_bytes(data)
    refused(home, "guard.foreign")
    with pytest.raises(GovrunError, match="log key"):
        home.guard().seen()


def test_a_remembered_head_of_another_key_is_refused(home: Home) -> None:
    other = signer_from_seed(ORIGIN, b"x" * 32)
    home.guard().path.write_bytes(sign_checkpoint(Checkpoint(ORIGIN, 1, b"x" * 32), other))
    error = refused(home, "guard.foreign")
    assert error.fix is not None
    assert str(home.guard().path) in error.fix


def test_a_head_that_finds_no_room_is_a_warning_and_the_one_before_stays(home: Home) -> None:
    with home.writer() as writer:
        first, _ = (writer.append([denied()])[0].checkpoint for _ in range(2))
        home.guard().path.unlink()
        home.guard().merge(verify_checkpoint(first, ORIGIN, [LOG.verifier]))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit in (SLOT_BYTES, SLOT_BYTES + 100):  # no room, and not enough
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                writer.remember()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert writer.warning is not None
            assert "guard.unusable" == writer.warning.rule
            seen = home.guard().seen()
            assert seen is not None
            assert 2 == seen.size
        writer.remember()
        assert writer.warning is None
    seen = home.guard().seen()
    assert seen is not None
    assert 3 == seen.size


def test_a_head_that_cannot_be_remembered_at_all_is_a_warning(home: Home) -> None:
    with home.writer() as writer:
        shutil.rmtree(home.heads)
        home.heads.symlink_to("/nowhere")
        (appended,) = writer.append([denied()])
        assert 2 == tree_size(appended.checkpoint)
        assert writer.warning is not None
        assert "guard.unusable" == writer.warning.rule
        home.heads.unlink()
        writer.append([denied()])
        assert writer.warning is None
    assert 3 == home.size()


def test_a_torn_slot_leaves_the_head_before_it(home: Home) -> None:
    append(home, 6)
    whole = home.guard().path.read_bytes()
    greatest = 0
    for slot in (0, 1):
        for torn in (b"\0" * 100, b"x" * 100, b"\0" * SLOT_BYTES):
            data = bytearray(whole)
            data[slot * SLOT_BYTES : slot * SLOT_BYTES + len(torn)] = torn
            home.guard().path.write_bytes(data)
            seen = home.guard().seen()
            assert seen is not None
            assert seen.size in (6, 7)
            greatest = max(greatest, seen.size)
    assert 7 == greatest
    home.guard().path.write_bytes(whole[:SLOT_BYTES])
    append(home)
    seen = home.guard().seen()
    assert seen is not None
    assert 8 == seen.size
    assert 2 * SLOT_BYTES == home.guard().path.stat().st_size


@pytest.mark.parametrize("kind", ["link", "directory", "place"])
def test_a_remembered_head_that_cannot_be_read_refuses(home: Home, kind: str) -> None:
    path = home.guard().path
    path.unlink()
    if kind == "link":
        path.symlink_to(home.path)
    elif kind == "directory":
        path.mkdir()
    else:
        shutil.rmtree(home.heads)
        home.heads.write_bytes(b"")
    with home.writer() as writer, pytest.raises(GovrunError) as caught:
        writer.append([denied()])
    assert (ExitCode.APPEND_FAILED, "guard.unusable") == (caught.value.code, caught.value.rule)
    assert 1 == home.size()


def test_a_guard_that_stays_locked_is_a_warning(home: Home) -> None:
    import fcntl

    with home.writer() as writer, open(home.guard().path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer.append([denied()])
        assert writer.warning is not None
        assert "guard.locked" == writer.warning.rule
    assert 2 == home.size()


def test_heads_are_kept_where_state_belongs() -> None:
    assert Path("/s/govrun/heads") == heads_directory({"XDG_STATE_HOME": "/s", "HOME": "/h"})
    assert Path("/h/.local/state/govrun/heads") == heads_directory({"HOME": "/h"})
    assert Path("/h/.local/state/govrun/heads") == heads_directory({"XDG_STATE_HOME": "relative", "HOME": "/h"})
    for environ in ({}, {"HOME": "relative"}):
        with pytest.raises(GovrunError) as caught:
            heads_directory(environ)
        assert "guard.place" == caught.value.rule
