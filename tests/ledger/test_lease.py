"""A lease is held exactly as long as its invocation runs, and its room takes an outcome on a full disk."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.lease import LEASES_DIRECTORY, RESERVED_BYTES, acquire, is_held, seize, sweep
from tests.ledger.ledger_world import Child, Home, invocation

ID = invocation(7)


def test_a_lease_is_held_until_it_is_released_and_leaves_no_file(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "leases", ID)
    with acquire(tmp_path / "leases", ID) as lease:
        assert is_held(tmp_path / "leases", ID)
        assert ID == lease.invocation_id
        assert 0o600 == stat.S_IMODE((tmp_path / "leases" / ID).stat().st_mode)
        assert 0o700 == stat.S_IMODE((tmp_path / "leases").stat().st_mode)
        assert not is_held(tmp_path / "leases", invocation(8))
    lease.release()
    assert not is_held(tmp_path / "leases", ID)
    assert [] == os.listdir(tmp_path / "leases")


def test_a_lease_is_held_by_one(tmp_path: Path) -> None:
    with acquire(tmp_path, ID):
        assert seize(tmp_path, ID) is None
        with pytest.raises(GovrunError) as caught:
            acquire(tmp_path, ID)
        assert (ExitCode.LEDGER_UNAVAILABLE, "lease.held") == (caught.value.code, caught.value.rule)
        assert is_held(tmp_path, ID)


def test_looking_at_a_lease_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ID).write_bytes(b"left behind")
    before = (tmp_path / ID).stat()
    assert not is_held(tmp_path, ID)
    assert before == (tmp_path / ID).stat()


def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    home = Home(tmp_path)
    child = Child(home, "lease", ID).ready()
    assert is_held(home.directory / LEASES_DIRECTORY, ID)
    child.kill()
    assert not is_held(home.directory / LEASES_DIRECTORY, ID)
    assert [ID] == os.listdir(home.directory / LEASES_DIRECTORY)
    seized = seize(home.directory / LEASES_DIRECTORY, ID)
    assert seized is not None
    seized.release()
    assert [] == os.listdir(home.directory / LEASES_DIRECTORY)


def test_children_do_not_inherit_a_lease(tmp_path: Path) -> None:
    lease = acquire(tmp_path, ID)
    with subprocess.Popen(
        [sys.executable, "-c", "print(); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
        bufsize=0,
    ) as child:
        assert child.stdout is not None
        assert b"\n" == child.stdout.read(1)
        # As if its holder had died: only the child is left.
        os.close(lease._descriptor)
        assert not is_held(tmp_path, ID)
        child.communicate(b"\n")


def test_a_lease_reserves_room_and_an_outcome_is_kept_in_it(tmp_path: Path) -> None:
    with acquire(tmp_path / "leases", ID) as lease:
        file = tmp_path / "leases" / ID
        assert RESERVED_BYTES == file.stat().st_size
        assert RESERVED_BYTES <= file.stat().st_blocks * 512
        lease.keep(b"an outcome", tmp_path / "kept")
        assert not file.exists()
        assert b"an outcome" == (tmp_path / "kept").read_bytes()
    assert b"an outcome" == (tmp_path / "kept").read_bytes()


def test_an_outcome_that_finds_no_room_is_not_kept_in_part(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with acquire(tmp_path / "leases", ID) as lease:
        resource.setrlimit(resource.RLIMIT_FSIZE, (RESERVED_BYTES, hard))
        try:
            with pytest.raises(OSError, match="No space left"):
                lease.keep(bytes(RESERVED_BYTES + 1), tmp_path / "kept")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert is_held(tmp_path / "leases", ID)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["", "../" + ID, ID.upper() + "A", ID[:-1], "x" * 32])
def test_only_an_invocation_id_names_a_lease(tmp_path: Path, name: str) -> None:
    for action in (acquire, is_held, seize):
        with pytest.raises(GovrunError) as caught:
            action(tmp_path, name)
        assert "lease.id" == caught.value.rule
    assert [] == os.listdir(tmp_path)


def test_a_lease_that_cannot_be_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert not is_held(tmp_path / "file", ID)
    with pytest.raises(GovrunError) as caught:
        acquire(tmp_path / "file", ID)
    assert (ExitCode.LEDGER_UNAVAILABLE, "lease.unusable") == (caught.value.code, caught.value.rule)


def test_a_lease_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ID).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GovrunError, match="lease"):
        acquire(tmp_path, ID)
    assert not (tmp_path / "elsewhere").exists()


def test_leases_that_nobody_holds_are_swept_and_no_others(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    (tmp_path / invocation(8)).write_bytes(b"of a process that is gone")
    (tmp_path / "notes").write_bytes(b"of somebody else")
    with acquire(tmp_path, ID):
        sweep(tmp_path)
        assert sorted((ID, "notes")) == sorted(os.listdir(tmp_path))
        assert is_held(tmp_path, ID)


def test_a_lease_that_is_swept_at_the_moment_it_is_taken_is_taken_all_the_same(tmp_path: Path) -> None:
    sweeper = seize(tmp_path, ID)
    assert sweeper is not None
    timer = threading.Timer(0.02, sweeper.release)
    timer.start()
    with acquire(tmp_path, ID):
        assert [ID] == os.listdir(tmp_path)
    timer.join()
