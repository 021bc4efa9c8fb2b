"""Batches are judged in order and within bounds; more processes change the time it takes and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from govrun.audit.verify import Question, verify_ledger
from govrun.audit.workers import judge_all
from govrun.formats import as_json
from govrun.ledger.read import open_ledger
from tests.audit import ledgers
from tests.audit.alone import batches, job
from tests.audit.ledgers import ROOT, SECOND, TRUSTED, Ledger


@pytest.fixture(scope="module")
def damaged() -> Ledger:
    """A thousand entries with one of each kind of damage, a key added and revoked on the way."""
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    while len(ledger.leaves) < 1000:
        number = len(ledger.leaves)
        match number:
            case 301:
                ledger.add(ledgers.key_added(SECOND, second=number), SECOND, ROOT)
            case 400 | 800:
                ledger.add(ledgers.denied(number), SECOND)
            case 701:
                ledger.add(ledgers.key_revoked(SECOND, 350, second=number), ROOT)
            case _:
                ledger.invoke(number, number)
    ledger.add(ledgers.intent(5000, 2000))
    ledger.leaves[120] = ledger.leaves[120].replace(b"A", b"B", 1)
    ledger.nodes[900] = b"\x00" * 32
    ledger.notes[650] = ledger.notes[649]
    return ledger


def run_alone(name: str, *values: str) -> None:
    script = f"import sys\nfrom tests.audit import alone\nalone.{name}(*sys.argv[1:])"
    result = subprocess.run([sys.executable, "-c", script, *values], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")


def test_more_workers_give_the_same_report(damaged: Ledger, tmp_path: Path) -> None:
    run_alone("same_report", str(ledgers.write_sqlite(damaged, tmp_path / "ledger")))


@pytest.mark.parametrize("name", ["in_order", "few_at_a_time", "nobody_is_left", "death_is_no_verdict"])
def test_judging_in_children(name: str) -> None:
    run_alone(name)


def test_batch_width_changes_nothing(damaged: Ledger, tmp_path: Path) -> None:
    path = ledgers.write_sqlite(damaged, tmp_path / "ledger")
    reports = set()
    for width in (1, 7, 512):
        reports.add(as_json.render(verify_ledger(open_ledger(path), TRUSTED, Question(batch=width))))
    assert len(reports) == 1


def test_beside_other_threads_nothing_is_forked() -> None:
    ledger = ledgers.many(9)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        before = set(os.listdir("/proc/self/task"))
        assert len(list(judge_all(job, batches(ledger, 2), 2))) == 5
        assert set(os.listdir("/proc/self/task")) == before
    finally:
        stop.set()
        thread.join()
