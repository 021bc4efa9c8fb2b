"""The real store against a plain list: whatever is done to it in whatever order, it is the list or it refuses."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from govrun.errors import GovrunError
from govrun.ledger.append import Writer
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.ledger.sqlite import SqliteStore
from govrun.receipt import Draft
from tests.ledger.ledger_world import (
    LOG,
    RECEIPT,
    Home,
    denied,
    intent,
    invocation,
    outcome,
    payloads,
    tree_size,
    verified_size,
)

# What somebody without keys can do to one entry, by its index and size of the ledger.
TAMPERINGS = (
    "UPDATE entry SET leaf = CAST(substr(leaf, 1, 40) || 'A' || substr(leaf, 42) AS BLOB) WHERE idx = :at",
    "DELETE FROM entry WHERE idx = :at",
    "DELETE FROM node WHERE position = :at",
    "UPDATE node SET hash = zeroblob(32) WHERE position = :at",
    "UPDATE entry SET leaf = (SELECT leaf FROM entry WHERE idx = :other) WHERE idx = :at",
    "UPDATE checkpoint SET note = zeroblob(100) WHERE size = (SELECT max(size) FROM checkpoint)",
    "UPDATE entry_index SET task = 'other', kind = 'gap' WHERE idx = :at",
)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.home = Home(self.place)
        self.kinds: list[str] = []
        self.open: list[tuple[int, str]] = []
        self.published = 0

    @initialize()
    def create(self) -> None:
        self.home.create()
        self.kinds.append("genesis")
        self.enter()

    def enter(self) -> None:
        self.store: SqliteStore = self.home.store()
        self.writer = Writer(self.store, RECEIPT, LOG, self.home.guard())

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        appended = self.writer.append([denied(n + 1) for n in range(count)])
        size = len(self.kinds)
        assert list(range(size, size + count)) == [one.index for one in appended]
        assert size + count == tree_size(appended[-1].checkpoint)
        self.kinds += ["denied"] * count

    @rule()
    def announce(self) -> None:
        name = invocation(len(self.kinds))
        (appended,) = self.writer.append([intent(name, f"r{len(self.kinds)}")])
        self.open.append((appended.index, name))
        self.kinds.append("intent")

    @precondition(lambda self: self.open)
    @rule(choice=st.integers(0, 1_000))
    def answer(self, choice: int) -> None:
        index, name = self.open.pop(choice % len(self.open))
        draft = outcome(name, index, str(self.writer.leaf_hash_of(index)))
        self.writer.append([draft])
        self.kinds.append("outcome")
        with pytest.raises(GovrunError):
            self.writer.append([draft])

    @rule()
    def append_nothing_that_fits(self) -> None:
        with pytest.raises(GovrunError):
            self.writer.append([denied(1), Draft("denied", {})])

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.enter()

    @rule()
    def publish(self) -> None:
        reader = open_ledger(self.home.path)
        done = publish(reader, self.place / "public", LOG.verifier)
        assert (len(self.kinds), self.published) == (done.size, done.since)
        self.published = done.size
        assert done.size == verified_size(self.place / "public")

    @rule(how=st.sampled_from(TAMPERINGS), at=st.integers(0, 1_000))
    def tamper(self, how: str, at: int) -> None:
        """Damage a copy: it is found, and the original is none the worse."""
        copy = self.place / "copy.sqlite"
        connection = sqlite3.connect(self.home.path)
        connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()
        size = len(self.kinds)
        at %= size
        with sqlite3.connect(copy) as damaged:
            changed = damaged.execute(how, {"at": at, "other": (at + 1) % size}).rowcount
        damaged.close()
        if changed and not (size == 1 and ":other" in how):
            with pytest.raises((GovrunError, AssertionError)):
                verified_size(copy)
        copy.unlink()

    @rule()
    def read(self) -> None:
        assert len(self.kinds) == self.home.size()
        assert self.kinds == [one["kind"] for one in payloads(self.home.path)]

    @invariant()
    def is_the_list(self) -> None:
        if self.kinds:
            assert len(self.kinds) == self.store.size()
            assert tuple(sorted(self.open)) == self.store.open_intents()

    def teardown(self) -> None:
        if self.kinds:
            self.store.close()
            assert len(self.kinds) == self.home.size()
        shutil.rmtree(self.place)


Machine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreIsAList = Machine.TestCase
