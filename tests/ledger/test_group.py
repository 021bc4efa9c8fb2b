"""Many threads append through one: each is durable when it is told so, and none pays for another's fault."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from govrun.adoption import adopt
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Appended
from govrun.ledger.group import GroupWriter
from govrun.ledger.read import open_ledger
from govrun.receipt import Draft, Position
from tests.ledger.ledger_world import (
    NOW,
    SHA,
    Child,
    Home,
    denied,
    gap,
    intent,
    invocation,
    outcome_of,
    payloads,
    tree_size,
)
from tests.ledger.test_faults import present

Told = Future[tuple[Appended, ...]]
UNFIT = Draft("denied", {})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@contextmanager
def held_up(home: Home, group: GroupWriter) -> Iterator[Told]:
    """While another process keeps the ledger locked: what is submitted waits behind the one that is yielded."""
    holder = Child(home, "hold").ready()
    first = group.submit([denied(900)])
    while not first.running():
        time.sleep(0.001)
    try:
        yield first
    finally:
        holder.finish()


def refusal(told: Told) -> GovrunError:
    error = told.exception(timeout=30)
    assert isinstance(error, GovrunError)
    return error


def test_threads_append_in_few_commits_and_each_is_durable_in_its_own_order(home: Home) -> None:
    threads, each = 64, 5

    def append(caller: int) -> list[Appended]:
        return [group.append([denied(caller * each + n + 1)])[0] for n in range(each)]

    with home.group() as group, ThreadPoolExecutor(threads) as pool:
        told = list(pool.map(append, range(threads)))
    assert threads * each + 1 == home.size()
    present(home, [f"{one.index} {one.leaf_hash}" for of_one in told for one in of_one])
    found = payloads(home.path)
    for caller, of_one in enumerate(told):
        indexes = [one.index for one in of_one]
        assert sorted(indexes) == indexes
        assert [caller * each + n + 1 for n in range(each)] == [found[index]["count"] for index in indexes]
    assert len({one.checkpoint for of_one in told for one in of_one}) < threads * each / 2


def test_what_waits_becomes_one_commit_of_64_drafts_at_most(home: Home) -> None:
    with home.group() as group:
        with held_up(home, group) as first:
            waiting = [group.submit([denied(n + 1), denied(n + 1)]) for n in range(40)]
        told = [one.result(timeout=30) for one in waiting]
        assert 2 == tree_size(first.result()[0].checkpoint)
    assert [2 + 64] * 32 + [2 + 80] * 8 == [tree_size(one[-1].checkpoint) for one in told]
    assert [[2 + 2 * n, 3 + 2 * n] for n in range(40)] == [[entry.index for entry in one] for one in told]
    assert 82 == home.size()


def test_more_drafts_than_a_group_takes_are_a_group_of_their_own(home: Home) -> None:
    with home.group(group=2) as group:
        appended = group.append([denied(n + 1) for n in range(5)])
    assert [1, 2, 3, 4, 5] == [one.index for one in appended]
    assert 6 == home.size()


def _raises(_: Position) -> Draft:
    raise LookupError


def test_a_bad_draft_is_refused_alone_with_all_of_its_submission(home: Home) -> None:
    with home.group() as group:
        with held_up(home, group):
            good = [group.submit([denied(n + 1)]) for n in range(3)]
            bad = group.submit([denied(77), UNFIT])
            broken = group.submit([denied(78), _raises])
            unsalted = group.submit([denied(79)], salts=[b"short"])
            after = group.submit([denied(9)])
        assert [2, 3, 4, 5] == [one.result(timeout=30)[0].index for one in (*good, after)]
        assert ExitCode.RECEIPT_INVALID == refusal(bad).code
        assert "salt.form" == refusal(unsalted).rule
        assert isinstance(broken.exception(), LookupError)
    assert [900, 1, 2, 3, 9] == [one["count"] for one in payloads(home.path)[1:]]
    assert 6 == home.size()


def test_drafts_of_one_submission_stand_together(home: Home) -> None:
    def run(n: int) -> None:
        _, announced = group.append([denied(n + 1), intent(invocation(n))])
        group.append([outcome_of(invocation(n), announced)], salts=[bytes([n + 1]) * 32])

    with home.group() as group, ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(48)))
    found = payloads(home.path)
    for index, one in enumerate(found):
        if one["kind"] == "intent":
            assert int(one["invocationId"], 16) + 1 == found[index - 1]["count"]
    assert 1 + 3 * 48 == home.size()


def test_one_request_id_is_claimed_by_one_of_those_who_come_at_once(home: Home) -> None:
    with home.group() as group:
        with held_up(home, group):
            told = [group.submit([intent(invocation(n), "same")]) for n in range(4)]
        assert 2 == told[0].result(timeout=30)[0].index
        assert ["request.claimed"] * 3 == [refusal(one).rule for one in told[1:]]
        twice = group.submit([intent(invocation(8), "twice"), intent(invocation(9), "twice")])
        assert "request.claimed" == refusal(twice).rule
    assert 3 == home.size()


def test_a_draft_sees_what_the_group_has_before_it(home: Home) -> None:
    """An adoption depends on what stands before it; of several in one group the first adopts, the others need not."""
    other = "cd" * 32
    with home.group() as group, held_up(home, group):
        for n in range(3):
            draft = intent(invocation(n))
            under = Draft("intent", {**draft.predicate, "policy": {"sha256": other}})
            group.submit([adopt(group, other, NOW), under])
    kinds = ["genesis", "denied", "policyAdopted", "intent", "intent", "intent"]
    assert kinds == [one["kind"] for one in payloads(home.path)]
    assert SHA != other
    assert 6 == home.size()


def test_a_full_queue_keeps_callers_waiting_and_refuses_them_at_their_deadline(home: Home) -> None:
    with home.group(waiting=3) as group, ThreadPoolExecutor(1) as pool:
        with held_up(home, group):
            accepted = [group.submit([denied(n + 1)]) for n in range(3)]
            for wait_ms in (0, 30):
                with pytest.raises(GovrunError) as caught:
                    group.submit([denied(77)], wait_ms=wait_ms)
                assert (ExitCode.APPEND_FAILED, "append.queueFull") == (caught.value.code, caught.value.rule)
                assert "nothing was appended" == caught.value.effect
            late = pool.submit(group.append, [denied(4)])
            assert not any(one.done() for one in (*accepted, late))
        told = [*(one.result(timeout=30) for one in accepted), late.result(timeout=30)]
    assert [2, 3, 4, 5] == [one[0].index for one in told]
    assert [900, 1, 2, 3, 4] == [one["count"] for one in payloads(home.path)[1:]]


def test_closing_makes_durable_what_waits_and_accepts_nothing_more(home: Home) -> None:
    group = home.group()
    closing = threading.Thread(target=group.close)
    with held_up(home, group) as first:
        waiting = [group.submit([denied(n + 1)]) for n in range(70)]
        closing.start()
        with pytest.raises(GovrunError) as caught:
            # Until the other thread has begun to close.
            waiting.extend(group.submit([denied(500)]) for _ in range(1_000_000))
        assert (ExitCode.APPEND_FAILED, "ledger.closed") == (caught.value.code, caught.value.rule)
    closing.join(30)
    assert all(one.done() for one in (first, *waiting))
    group.close()
    with pytest.raises(GovrunError) as caught:
        group.store.size()
    assert "ledger.closed" == caught.value.rule
    assert 2 + len(waiting) == home.size()


def test_when_the_appending_thread_ends_everybody_who_waits_is_told(home: Home) -> None:
    def end(_: Position) -> Draft:
        raise SystemExit("from within")

    with home.group() as group:
        with held_up(home, group):
            told = [group.submit([denied(1)]), group.submit([end]), group.submit([denied(2)])]
            behind = [group.submit([denied(n + 3) for n in range(64)])]
        for one in told:
            assert "append.ended" == refusal(one).rule
            assert str(refusal(one).effect).startswith("unknown")
        for one in behind:
            assert ("append.ended", "nothing was appended") == (refusal(one).rule, refusal(one).effect)
        for action in (lambda: group.append([denied(9)]), group.store.size):
            with pytest.raises(GovrunError) as caught:
                action()
            assert (ExitCode.APPEND_FAILED, "append.ended") == (caught.value.code, caught.value.rule)
    # The transaction it was in is undone, and nothing keeps the next writer out.
    assert 2 == home.size()
    with home.group() as group:
        group.append([denied(5)])
    assert [900, 5] == [one["count"] for one in payloads(home.path)[1:]]


def test_a_caller_that_is_interrupted_takes_back_what_was_not_begun(home: Home) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with home.group() as group:
            with held_up(home, group):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(KeyboardInterrupt):
                    group.append([denied(77)])
                after = group.submit([denied(5)])
            assert 2 == after.result(timeout=30)[0].index
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [900, 5] == [one["count"] for one in payloads(home.path)[1:]]


def test_what_keeps_the_store_from_a_group_is_told_to_each_of_it(home: Home) -> None:
    with home.group(lock_ms=80) as group:
        with held_up(home, group) as first:
            told = [group.submit([denied(n + 1)]) for n in range(3)]
            errors = [refusal(one) for one in (first, *told)]
        assert ["ledger.locked"] * 4 == [error.rule for error in errors]
        assert 4 == len(set(map(id, errors)))
        assert 1 == group.append([denied(9)])[0].index
    assert 2 == home.size()


def test_reading_through_a_group_gives_what_the_store_gives(home: Home) -> None:
    with home.group() as group:
        (announced,) = group.append([intent(invocation(1), "r1")], salts=[b"s" * 32])
        store = group.store
        assert (2, announced.leaf_hash) == (store.size(), group.leaf_hash_of(1))
        assert (1, ((1, invocation(1)),)) == (store.intent_of_request("r1"), store.open_intents())
        assert (None, None) == (store.answer_to(1, "outcome"), store.leaf(7))
        assert announced.checkpoint == store.head()
        assert "intent" == store.columns(1).kind  # type: ignore[union-attr]
        assert [bytes.fromhex(announced.leaf_hash)] == store.hashes([1])
        assert b"s" * 32 == group.salts.read(1)
        assert group.warning is None
        with pytest.raises(ZeroDivisionError):
            group.ask(lambda _: 1 // 0)
        with pytest.raises(ValueError, match="2 salts for 1 drafts"):
            group.submit([gap()], salts=[None, None])


def test_a_ledger_that_cannot_be_opened_is_told_where_it_was_asked_for(home: Home) -> None:
    home.path.unlink()
    with pytest.raises(GovrunError) as caught:
        home.group()
    assert ExitCode.LEDGER_UNAVAILABLE == caught.value.code


def test_a_fork_of_the_program_cannot_append(home: Home) -> None:
    with home.group() as group:
        group.append([denied(1)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # which newer Pythons give for any fork with threads
            pid = os.fork()
        if pid == 0:
            try:
                group.append([denied(2)])
            except GovrunError as error:
                os._exit(0 if error.rule == "ledger.closed" else 1)
            os._exit(2)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        group.append([denied(3)])
    assert [1, 3] == [one["count"] for one in payloads(home.path)[1:]]


@pytest.mark.slow
def test_killed_while_threads_append_what_was_acknowledged_is_there(home: Home) -> None:
    acknowledged: list[str] = []
    chance = random.Random(20261122)  # noqa: S311 - instants, not secrets
    for _ in range(4):
        child = Child(home, "group", "16").ready()
        time.sleep(chance.uniform(0.05, 0.3))
        acknowledged += child.kill()
        present(home, acknowledged)
    assert len(acknowledged) > 100
    reader = open_ledger(home.path)
    commits = sum(1 for _ in reader.checkpoints(0, reader.size))
    reader.close()
    assert commits < len(acknowledged)


class Machine(RuleBasedStateMachine):
    """Whatever is submitted in whatever order, the ledger is the list of what was acknowledged, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.home = Home(self.place)
        self.counts: list[int] = []
        self.waiting: list[tuple[Told, list[int] | None]] = []
        self.next = 1

    @initialize(group=st.integers(1, 6))
    def create(self, group: int) -> None:
        self.home.create()
        self.limit = group
        self.enter()

    def enter(self) -> None:
        self.group = self.home.group(group=self.limit)

    def some(self, count: int) -> list[int]:
        self.next += count
        return list(range(self.next - count, self.next))

    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        counts = self.some(count)
        self.waiting.append((self.group.submit([denied(n) for n in counts]), counts))

    @rule(count=st.integers(1, 3))
    def submit_by_position(self, count: int) -> None:
        counts = self.some(count)
        drafts: list[Any] = [lambda _, n=n: denied(n) for n in counts]
        self.waiting.append((self.group.submit([*drafts, lambda _: None]), counts))

    @rule(count=st.integers(0, 2))
    def submit_nothing_that_fits(self, count: int) -> None:
        counts = self.some(count)
        self.waiting.append((self.group.submit([*(denied(n) for n in counts), UNFIT]), None))

    @rule()
    def take_back(self) -> None:
        (count,) = self.some(1)
        told = self.group.submit([denied(count)])
        if not told.cancel():
            self.waiting.append((told, [count]))

    @precondition(lambda self: self.waiting)
    @rule()
    def wait(self) -> None:
        for told, counts in self.waiting:
            if counts is None:
                assert ExitCode.RECEIPT_INVALID == refusal(told).code
            else:
                first = 1 + len(self.counts)
                assert list(range(first, first + len(counts))) == [one.index for one in told.result(timeout=30)]
                self.counts += counts
        self.waiting.clear()

    @rule()
    def reopen(self) -> None:
        self.group.close()
        assert all(told.done() for told, _ in self.waiting)
        self.wait()
        assert 1 + len(self.counts) == self.home.size()
        self.enter()

    def teardown(self) -> None:
        if self.home.path.exists():
            self.group.close()
            self.wait()
            assert self.counts == [one["count"] for one in payloads(self.home.path)[1:]]
            assert 1 + len(self.counts) == self.home.size()
        shutil.rmtree(self.place)


Machine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestGroupIsAList = Machine.TestCase
