"""What needs a process without threads, in which children can be forked; `test_workers` runs each in one of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from govrun.audit import workers
from govrun.audit.verify import Question, verify_ledger
from govrun.audit.workers import Batch, Job, judge_all
from govrun.errors import ExitCode, GovrunError
from govrun.formats import as_json
from govrun.ledger.read import open_ledger
from tests.audit import ledgers
from tests.audit.ledgers import LOG, ORIGIN, RECEIPT, TRUSTED, Ledger


def job() -> Job:
    return Job(ORIGIN, (RECEIPT.verifier,), (LOG.verifier,))


def batches(ledger: Ledger, width: int) -> list[Batch]:
    return [
        Batch(start, tuple(ledger.leaves[start : start + width]), None, ())
        for start in range(0, len(ledger.leaves), width)
    ]


def same_report(path: str) -> None:
    one, *others = [
        as_json.render(
            verify_ledger(open_ledger(Path(path)), TRUSTED, Question(workers=count, alone_below=0, batch=64))
        )
        for count in (1, 2, 3)
    ]
    assert b"signature.suspect" in one
    assert others == [one, one]


def in_order() -> None:
    found = [judged.start for _, judged in judge_all(job, batches(ledgers.many(41), 4), 3)]
    assert found == list(range(0, 41, 4))


def few_at_a_time() -> None:
    sent = 0

    def counted() -> Iterator[Batch]:
        nonlocal sent
        for batch in batches(ledgers.many(41), 2):
            sent += 1
            yield batch

    for number, _ in enumerate(judge_all(job, counted(), 2)):
        assert number < sent <= number + workers.IN_FLIGHT * 2 + 1


def nobody_is_left() -> None:
    list(judge_all(job, batches(ledgers.many(41), 4), 2))
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Batch):
    """A batch that ends the process which takes it out of its parcel."""

    def __reduce__(self) -> tuple[object, ...]:
        return (_die, ())


def death_is_no_verdict() -> None:
    with pytest.raises(GovrunError) as refusal:
        list(judge_all(job, [Deadly(0, (), None, ())], 2))
    assert (refusal.value.code, refusal.value.rule) == (ExitCode.COULD_NOT_CHECK, "audit.worker")
