"""A disk that is slow: whoever appends waits, whoever cannot wait is refused, and nothing is dropped."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from tests.ledger.ledger_world import Child, Home, denied

SLOW_MS = 400


def slow_writer(home: Home, directory: Path) -> Child:
    """A process whose every sync of the write-ahead log takes long."""
    if shutil.which("strace") is None:
        pytest.skip("SKIPPED ALOUD: no strace here, so no disk can be made slow")
    delay = f"inject=fdatasync:delay_enter={SLOW_MS * 1000}"
    wrapper = ("strace", "-f", "-e", "trace=fdatasync", "-e", delay, "-o", str(directory / "trace"))
    return Child(home, "append", "1", wrapper=wrapper)


@pytest.mark.slow
def test_on_a_slow_disk_others_wait_or_are_refused_at_their_deadline_and_nothing_is_dropped(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    slow = slow_writer(home, tmp_path).ready()
    while not _is_held(home):
        assert slow.process.poll() is None
    began = time.monotonic()
    with pytest.raises(GovrunError) as caught, home.writer(wait_ms=50) as writer:
        writer.append([denied(7)])
    assert caught.value.code in (ExitCode.LEDGER_UNAVAILABLE, ExitCode.APPEND_FAILED)
    assert "ledger.locked" == caught.value.rule
    assert time.monotonic() - began < SLOW_MS / 1000
    # One that waits longer than the disk takes is served.
    with home.writer(wait_ms=30_000) as writer:
        appended = writer.append([denied(9)])[0]
    said = [line for line in slow.finish() if line != "ready"]
    assert 1 == len(said)
    assert 1 + len(said) + 1 == home.size()
    assert appended.index not in [int(line.split()[0]) for line in said]


def _is_held(home: Home) -> bool:
    """Whether somebody commits at the moment."""
    try:
        home.store(wait_ms=0).close()
    except GovrunError:
        return True
    return False
