"""Several writers, some stopped or killed, full and read-only disks, failing commits: nothing acknowledged is lost.

Real processes on a real SQLite file. What a machine cannot do (mount, trace) is skipped aloud.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lease, pending
from govrun.ledger.append import Writer
from govrun.ledger.merkle import leaf_hash
from govrun.ledger.read import open_ledger
from govrun.ledger.recovery import recover
from govrun.ledger.sqlite import Connect
from tests.ledger.ledger_world import Child, Home, denied, intent, invocation, outcome_of, payloads, tree_size


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def present(home: Home, acknowledged: list[str]) -> None:
    """Assert that every acknowledged entry stands where it was acknowledged, in a ledger that verifies."""
    home.size()
    reader = open_ledger(home.path)
    hashes = [leaf_hash(leaf).hex() for batch in reader.leaves(0, reader.size) for leaf in batch]
    reader.close()
    for line in acknowledged:
        index, expected = line.split()
        assert expected == hashes[int(index)]
    assert len(acknowledged) == len(set(acknowledged))


@pytest.mark.parametrize("writers", [2, 8])
def test_writers_at_once_lose_nothing_and_fork_nothing(home: Home, writers: int) -> None:
    each = 120 // writers
    children = [Child(home, "append", str(each)) for _ in range(writers)]
    acknowledged = [line for child in children for line in child.finish() if line != "ready"]
    assert 120 == len(acknowledged)
    assert 121 == home.size()
    present(home, acknowledged)
    assert list(range(1, 121)) == sorted(int(line.split()[0]) for line in acknowledged)


def test_a_writer_that_is_stopped_holds_others_up_until_their_deadline_only(home: Home) -> None:
    with home.writer(wait_ms=150) as writer:
        holder = Child(home, "hold").ready()
        os.kill(holder.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(GovrunError) as caught:
            writer.append([denied()])
        assert (ExitCode.APPEND_FAILED, "ledger.locked") == (caught.value.code, caught.value.rule)
        assert 0.15 <= time.monotonic() - began < 5
        with pytest.raises(GovrunError) as caught:
            home.store(wait_ms=50)
        assert (ExitCode.LEDGER_UNAVAILABLE, "ledger.locked") == (caught.value.code, caught.value.rule)
        assert 1 == home.size()
        os.kill(holder.process.pid, signal.SIGCONT)
        holder.finish()
        assert 1 == writer.append([denied()])[0].index
    assert 2 == home.size()


def test_reading_in_the_process_of_a_writer_does_not_let_go_of_its_locks(home: Home) -> None:
    with home.writer() as writer:
        assert 1 == home.size()
        with home.writer() as other:
            other.append([denied()])
        Child(home, "append", "1").finish()
        assert 3 == writer.append([denied()])[0].index
    assert 4 == home.size()


def test_closing_while_another_holds_the_lock_leaves_folding_to_the_next(home: Home) -> None:
    with home.writer(wait_ms=50) as writer:
        writer.append([denied()])
        holder = Child(home, "hold").ready()
    assert 2 == home.size()
    holder.finish()
    assert 2 == home.size()


def test_a_writer_killed_while_it_holds_the_lock_keeps_nobody_out(home: Home) -> None:
    holder = Child(home, "hold").ready()
    holder.kill()
    with home.writer(wait_ms=1000) as writer:
        assert 1 == writer.append([denied()])[0].index
    assert 2 == home.size()


def test_eight_writers_of_which_one_is_stopped_and_one_killed_lose_nothing(home: Home) -> None:
    children = [Child(home, "append", "20") for _ in range(8)]
    stopped, killed, *others = children
    while home.size() < 15:
        assert killed.process.poll() is None
    os.kill(stopped.process.pid, signal.SIGSTOP)
    acknowledged = [line for line in killed.kill() if line != "ready"]
    size = home.size()
    # It holds the lock, or it does not; the others wait less than their ten seconds.
    os.kill(stopped.process.pid, signal.SIGCONT)
    for child in (stopped, *others):
        said = [line for line in child.finish() if line != "ready"]
        assert 20 == len(said)
        acknowledged += said
    present(home, acknowledged)
    # The killed one may have made one durable without saying so.
    assert 0 <= home.size() - 1 - len(acknowledged) <= 1
    assert home.size() >= size


def test_a_program_that_locks_the_database_itself_is_refused_by_name(home: Home) -> None:
    with home.writer(wait_ms=100) as writer:
        other = sqlite3.connect(home.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GovrunError) as caught:
            writer.append([denied()])
        assert (ExitCode.APPEND_FAILED, "ledger.locked") == (caught.value.code, caught.value.rule)
        other.execute("ROLLBACK")
        other.close()
        writer.append([denied()])
    assert 2 == home.size()


@pytest.mark.slow
def test_killed_at_any_instant_what_was_acknowledged_is_there(home: Home) -> None:
    acknowledged: list[str] = []
    chance = random.Random(20261122)  # noqa: S311 - instants, not secrets
    began = time.monotonic()
    kills = 0
    while time.monotonic() - began < 10:
        child = Child(home, "append", "100000").ready()
        # The first append loads what signing needs; most kills are to strike later than that.
        time.sleep(chance.uniform(0, 0.25))
        acknowledged += child.kill()
        kills += 1
        present(home, acknowledged)
    with home.writer() as writer:
        acknowledged.append(" ".join(str(x) for x in _told(writer.append([denied()])[0])))
    present(home, acknowledged)
    assert kills >= 3
    assert len(acknowledged) > 3


def _told(appended: Any) -> tuple[int, str]:
    return appended.index, appended.leaf_hash


class Failing(sqlite3.Connection):
    """A connection whose COMMIT fails, before or after it was really made; `plan` says how, one word each time."""

    plan: list[str] = []  # noqa: RUF012 - set by each test for the connections it causes

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.plan:
            word = self.plan.pop(0)
            if word == "after":
                super().execute(sql)
            if word == "gone":
                self.close()
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
            raise error
        return super().execute(sql, parameters)


def failing(*plan: str, opens: int = 1_000) -> Connect:
    """Connections that fail so; only so many can be opened."""
    left = [opens]
    Failing.plan = list(plan)

    def connect(path: Path, wait_s: float) -> sqlite3.Connection:
        left[0] -= 1
        if left[0] < 0:
            raise sqlite3.OperationalError("unable to open database file")
        return sqlite3.connect(path, timeout=wait_s, isolation_level=None, factory=Failing)

    return connect


def test_a_commit_that_failed_but_is_there_is_acknowledged(home: Home) -> None:
    with home.writer(connect=failing("after")) as writer:
        (appended,) = writer.append([denied()])
        assert 2 == tree_size(appended.checkpoint)
        assert 2 == writer.append([denied()])[0].index
    assert 3 == home.size()


@pytest.mark.parametrize("how", ["before", "gone"])
def test_a_commit_that_failed_and_is_not_there_is_refused(home: Home, how: str) -> None:
    with home.writer(connect=failing(how)) as writer:
        with pytest.raises(GovrunError) as caught:
            writer.append([denied(1)])
        assert (ExitCode.APPEND_FAILED, "ledger.io") == (caught.value.code, caught.value.rule)
        assert "nothing was appended" == caught.value.effect
        assert 1 == writer.append([denied(2)])[0].index
    assert [2] == [one["count"] for one in payloads(home.path)[1:]]
    assert 2 == home.size()


def test_a_commit_of_which_nothing_can_be_read_is_refused_as_unknown(home: Home) -> None:
    with home.writer(connect=failing("after", opens=1)) as writer:
        with pytest.raises(GovrunError) as caught:
            writer.append([denied()])
        assert ExitCode.APPEND_FAILED is caught.value.code
        assert caught.value.effect is not None
        assert caught.value.effect.startswith("unknown")
        # Nothing is signed before the head can be read again.
        with pytest.raises(GovrunError):
            writer.append([denied()])
    assert 2 == home.size()


def test_a_commit_that_readers_keep_from_being_made_sure_is_refused(home: Home) -> None:
    with home.writer(wait_ms=50, connect=failing("after")) as writer:
        reader = sqlite3.connect(home.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM entry").fetchall()
        with pytest.raises(GovrunError) as caught:
            writer.append([denied()])
        assert caught.value.effect is not None
        assert caught.value.effect.startswith("unknown")
        reader.close()
        assert 2 == writer.append([denied()])[0].index
    assert 3 == home.size()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB of room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(place)])
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def mount(arguments: list[str]) -> None:
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("SKIPPED ALOUD: only root can mount a file system")
    if subprocess.run(["mount", *arguments], capture_output=True).returncode:
        pytest.skip("SKIPPED ALOUD: this machine lets nobody mount a file system")


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def append_until_refused(writer: Writer) -> None:
    for _ in range(50):  # the write-ahead log may have room for some
        writer.append([denied()])


def test_on_a_full_disk_nothing_is_acknowledged_and_the_outcome_is_kept(small_disk: Path, tmp_path: Path) -> None:
    home = Home(small_disk)
    home.heads = tmp_path / "heads"
    home.create()
    with home.writer() as writer:
        held = lease.acquire(home.directory / lease.LEASES_DIRECTORY, invocation(1))
        (announced,) = writer.append([intent(invocation(1))])
        (home.directory / "pending").mkdir(0o700)
        fill(small_disk / "filler")
        draft = outcome_of(invocation(1), announced)
        with pytest.raises(GovrunError) as caught:
            append_until_refused(writer)
        before = writer.store.size()
        assert ExitCode.APPEND_FAILED is caught.value.code
        assert caught.value.rule in ("ledger.full", "ledger.io")
        with pytest.raises(GovrunError) as caught:
            lease.acquire(home.directory / lease.LEASES_DIRECTORY, invocation(2))
        assert (ExitCode.LEDGER_UNAVAILABLE, "lease.full") == (caught.value.code, caught.value.rule)
        with pytest.raises(GovrunError) as caught:
            writer.append([draft])
        pending.keep(home.directory / "pending", held, draft)
        held.release()
        assert before == writer.store.size()
        assert before == home.size()
    assert before == home.size()
    (small_disk / "filler").unlink()
    with home.writer() as writer:
        assert before == recover(writer).outcomes[0].index
    assert before + 1 == home.size()
    assert "outcome" == payloads(home.path)[-1]["kind"]


def test_a_ledger_is_not_made_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    home = Home(small_disk)
    home.heads = tmp_path / "heads"
    home.directory.mkdir(0o700)
    fill(small_disk / "filler")
    with pytest.raises(GovrunError) as caught:
        home.create()
    assert caught.value.rule in ("ledger.full", "ledger.io", "ledger.unwritable")
    assert not home.path.exists()


def test_a_limit_on_file_size_is_refused_by_name(home: Home) -> None:
    with home.writer() as writer:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = home.path.with_name("ledger.sqlite-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(GovrunError) as caught:
                writer.append([denied()])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ExitCode.APPEND_FAILED is caught.value.code
        assert caught.value.rule in ("ledger.full", "ledger.io")
        assert 1 == home.size()
        writer.append([denied()])
    assert 2 == home.size()


def test_a_read_only_disk_is_refused_by_name(home: Home) -> None:
    mount(["--bind", str(home.directory), str(home.directory)])
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(home.directory)], check=True)
        with pytest.raises(GovrunError) as caught:
            home.store()
        assert (ExitCode.LEDGER_UNAVAILABLE, "ledger.unwritable") == (caught.value.code, caught.value.rule)
        assert 1 == home.size()
    finally:
        subprocess.run(["umount", "-l", str(home.directory)], check=True)
    assert 1 == home.size()


def test_a_read_only_file_is_refused_by_name(home: Home) -> None:
    if shutil.which("chattr") is None:
        pytest.skip("SKIPPED ALOUD: no chattr here")
    if subprocess.run(["chattr", "+i", str(home.path)], capture_output=True).returncode:
        pytest.skip("SKIPPED ALOUD: this file system or user cannot make a file immutable")
    try:
        with pytest.raises(GovrunError) as caught, home.writer() as writer:
            writer.append([denied()])
        assert caught.value.rule in ("ledger.unwritable", "ledger.readOnly")
    finally:
        subprocess.run(["chattr", "-i", str(home.path)], check=True)
    assert 1 == home.size()


def test_the_write_ahead_log_is_folded_under_the_lock_only(home: Home, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("SKIPPED ALOUD: no strace here")
    log = tmp_path / "trace"
    wrapper = ("strace", "-f", "-y", "-e", "trace=pwrite64,flock", "-o", str(log))
    # So many that they are folded once between two appends, and once at the end.
    child = Child(home, "append", "70", wrapper=wrapper)
    try:
        child.finish()
    except AssertionError:
        pytest.skip("SKIPPED ALOUD: strace may not trace here")
    held = False
    folded = 0
    for line in log.read_text().splitlines():
        if "flock(" in line and "ledger.lock" in line and line.endswith("= 0"):
            held = "LOCK_EX" in line
        if "pwrite64(" in line and "ledger.sqlite>" in line:
            folded += 1
            assert held, line
    assert folded > 20


def test_an_append_syncs_before_it_acknowledges(home: Home, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("SKIPPED ALOUD: no strace here")
    log = tmp_path / "trace"
    child = Child(
        home,
        "append",
        "5",
        wrapper=("strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write,flock", "-o", str(log)),
    )
    try:
        acknowledged = [line for line in child.finish() if line != "ready"]
    except AssertionError:
        pytest.skip("SKIPPED ALOUD: strace may not trace here")
    assert 5 == len(acknowledged)
    calls = log.read_text().splitlines()
    at = next(n for n, line in enumerate(calls) if "write(1" in line and "ready" in line)
    for _ in range(5):
        end = next(n for n in range(at + 1, len(calls)) if "write(1" in calls[n])
        synced = [n for n in range(at, end) if "sync(" in calls[n] and "-wal" in calls[n] and calls[n].endswith("= 0")]
        let_go = [n for n in range(at, end) if "LOCK_UN" in calls[n] and "ledger.lock" in calls[n]]
        assert synced
        assert max(synced) < let_go[0] < end
        at = end
