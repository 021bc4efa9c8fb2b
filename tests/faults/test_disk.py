"""The disk of the harness forgets what was not synced, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from faults.disk import SECTOR, Disk


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - what stays of a write, not a secret


def hexed(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return "".join(f"\\x{one:02x}" for one in data)


class Trace:
    """A disk below a directory, and the lines that strace would show of work on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = Disk(root)

    def open(self, number: int, name: str, flags: str = "O_RDWR|O_CREAT") -> None:
        self.play(f'openat(AT_FDCWD<x>, "{hexed(f"{self.root}/{name}")}", {flags}, 0600) = {number}<x>')

    def pwrite(self, number: int, data: bytes, at: int) -> None:
        self.play(f'pwrite64({number}<x>, "{hexed(data)}", {len(data)}, {at}) = {len(data)}')

    def play(self, line: str) -> str | None:
        return self.disk.play(line)

    def rename(self, old: str, new: str) -> None:
        self.play(f'rename("{hexed(f"{self.root}/{old}")}", "{hexed(f"{self.root}/{new}")}") = 0')

    def sync(self, number: int) -> None:
        self.play(f"fdatasync({number}<x>) = 0")

    def sync_directory(self, name: str) -> None:
        self.open(99, name, "O_RDONLY|O_DIRECTORY")
        self.play("fsync(99<x>) = 0")
        self.play("close(99<x>) = 0")

    def least(self, target: Path) -> dict[str, bytes]:
        self.disk.crash(target, None)
        return files(target)


def files(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    root = tmp_path / "disk"
    (root / "d").mkdir(parents=True)
    (root / "d" / "old").write_bytes(b"before")
    return Trace(root)


def test_a_write_is_lost_until_its_file_is_synced(trace: Trace, tmp_path: Path) -> None:
    trace.open(5, "d/old")
    trace.pwrite(5, b"AFTER!", 0)
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")
    trace.sync(5)
    assert {"d/old": b"AFTER!"} == trace.least(tmp_path / "2")
    trace.play("ftruncate(5<x>, 2) = 0")
    assert {"d/old": b"AFTER!"} == trace.least(tmp_path / "3")


def test_a_call_that_failed_does_nothing(trace: Trace, tmp_path: Path) -> None:
    trace.open(5, "d/old")
    trace.pwrite(5, b"AFTER!", 0)
    trace.play("fdatasync(5<x>) = -1 EIO (Input/output error)")
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")


def test_a_new_name_is_lost_until_its_directory_is_synced(trace: Trace, tmp_path: Path) -> None:
    trace.open(5, "d/new")
    trace.pwrite(5, b"data", 0)
    trace.sync(5)
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")
    trace.sync_directory("d")
    assert {"d/old": b"before", "d/new": b"data"} == trace.least(tmp_path / "2")


def test_a_rename_is_lost_whole_or_not_at_all(trace: Trace, tmp_path: Path) -> None:
    trace.rename("d/old", "d/renamed")
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")
    for seed in range(20):
        trace.disk.crash(tmp_path / f"some{seed}", chance(seed))
        assert files(tmp_path / f"some{seed}") in ({"d/old": b"before"}, {"d/renamed": b"before"})
    trace.sync_directory("d")
    assert {"d/renamed": b"before"} == trace.least(tmp_path / "2")


def test_a_new_directory_takes_what_is_in_it_along(trace: Trace, tmp_path: Path) -> None:
    trace.play(f'mkdir("{hexed(f"{trace.root}/d/e")}", 0700) = 0')
    trace.open(5, "d/e/file")
    trace.pwrite(5, b"data", 0)
    trace.sync(5)
    trace.sync_directory("d/e")
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")
    trace.sync_directory("d")
    assert {"d/old": b"before", "d/e/file": b"data"} == trace.least(tmp_path / "2")


def test_of_what_is_not_synced_any_sector_may_stay(trace: Trace, tmp_path: Path) -> None:
    trace.open(5, "d/old")
    trace.pwrite(5, b"x" * 2 * SECTOR, 0)
    found = set()
    for seed in range(40):
        trace.disk.crash(tmp_path / str(seed), chance(seed))
        data = files(tmp_path / str(seed))["d/old"]
        found.add((data[:SECTOR].count(b"x"), data[SECTOR:].count(b"x")))
    # The first sector holds the old bytes where the new ones are lost.
    assert {(0, 0), (0, SECTOR), (SECTOR, 0), (SECTOR, SECTOR)} == found


def test_what_is_removed_stays_until_the_directory_is_synced(trace: Trace, tmp_path: Path) -> None:
    trace.open(7, "d", "O_RDONLY|O_DIRECTORY")
    trace.play(f'unlinkat(7<x>, "{hexed("old")}", 0) = 0')
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")
    trace.disk.crash(tmp_path / "2", chance(0), names_only=True)
    assert {} == files(tmp_path / "2")
    trace.sync_directory("d")
    assert {} == trace.least(tmp_path / "3")


def test_what_is_said_is_told_and_written_nowhere(trace: Trace, tmp_path: Path) -> None:
    said = hexed("done\n")
    assert "done\n" == trace.play(f'write(1<x>, "{said}", 5) = 5')
    assert {"d/old": b"before"} == trace.least(tmp_path / "1")
