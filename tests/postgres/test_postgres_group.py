"""Threads of several machines append in groups to one ledger in PostgreSQL."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Appended, Writer
from govrun.ledger.group import GroupWriter
from govrun.receipt import Draft
from tests.ledger.ledger_world import denied, intent, invocation, outcome_of, verified_size, world
from tests.postgres.shared_world import Shared


def group(shared: Shared, place: str, held: contextlib.ExitStack) -> GroupWriter:
    def open_writer() -> Writer:
        return held.enter_context(shared.machine(place=place).writer())

    return GroupWriter(open_writer, world(), wait_ms=10_000)


def test_threads_of_two_machines_append_in_groups_and_fork_nothing(shared: Shared) -> None:
    runs = 24

    def run(n: int) -> tuple[Appended, Appended]:
        writer = groups[n % 2]
        with writer.store.leases.acquire(invocation(n)):
            (announced,) = writer.append([intent(invocation(n), f"r{n}")])
            return announced, writer.append([outcome_of(invocation(n), announced)])[0]

    with contextlib.ExitStack() as held:
        groups = [held.enter_context(group(shared, place, held)) for place in ("one", "two")]
        with ThreadPoolExecutor(12) as pool:
            told = list(pool.map(run, range(runs)))
        with pytest.raises(GovrunError) as caught:
            groups[0].append([denied(1), Draft("denied", {})])
        assert ExitCode.RECEIPT_INVALID == caught.value.code
        assert () == groups[1].store.open_intents()
    assert 2 * runs == len({one.index for pair in told for one in pair})
    assert 1 + 2 * runs == verified_size(shared.url("rita"))
