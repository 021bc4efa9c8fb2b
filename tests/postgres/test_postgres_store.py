"""The store in PostgreSQL: the same ledger as in SQLite, and nothing that its functions do not allow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, verify_ledger
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Appended
from govrun.ledger.entry import columns_of, entry_of
from govrun.ledger.merkle import Frontier, leaf_hash, stored_hash_count
from govrun.ledger.postgres_link import connect
from govrun.ledger.read import open_ledger
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope
from tests.ledger.ledger_world import (
    LOG,
    ORIGIN,
    RECEIPT,
    ROOT,
    Home,
    denied,
    gap,
    genesis,
    intent,
    invocation,
    outcome_of,
    verified_size,
)
from tests.postgres.shared_world import Shared

TRUSTED = TrustedKeys(log=(LOG.verifier,), receipt=(RECEIPT.verifier,), root=(ROOT.verifier,), origin=ORIGIN)


def refused(code: ExitCode, rule: str, action: Callable[[], object]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    assert (code, rule) == (caught.value.code, caught.value.rule), str(caught.value)
    return caught.value


def state_of(url: str, *statements: str) -> str | None:
    """What PostgreSQL says to statements: the SQLSTATE, None if it does them."""
    link = connect(url, 5_000, writes=True)
    try:
        for statement in statements:
            link.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    finally:
        link.close()
    return None


def test_what_is_appended_is_read_and_verified(shared: Shared) -> None:
    with shared.machine().writer() as writer:
        announced = writer.append([intent(invocation(1), "request-1")])[0]
        assert ((1, invocation(1)),) == writer.store.open_intents()
        writer.append([outcome_of(invocation(1), announced), denied(), gap()])
        assert () == writer.store.open_intents()
        assert 5 == writer.store.size()
    assert 5 == verified_size(shared.url("rita"))
    reader = open_ledger(shared.url("rita"))
    report = verify_ledger(reader, TRUSTED, Question(workers=2))
    reader.close()
    assert (0, []) == (int(report.exit_code), list(report.findings))


def test_a_ledger_begins_once(shared: Shared) -> None:
    machine = shared.machine("ben")
    with machine.writer() as writer:
        assert ORIGIN == writer.store.origin
    taken = "SELECT govrun.begin_ledger('other', ARRAY['\\x00'::bytea], ARRAY['\\x00'::bytea], '[{}]')"
    assert "GV002" == state_of(shared.url("ben"), taken)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.integers(1, 40), min_size=1, max_size=5), data=st.data())
def test_both_stores_hold_the_same_bytes(make: Callable[..., Shared], groups: list[int], data: st.DataObject) -> None:
    shared = make()
    with tempfile.TemporaryDirectory() as place:
        home = Home(Path(place))
        home.create()
        shared.create()
        with home.writer() as one, shared.machine().writer() as other:
            announced: list[tuple[str, Appended]] = []
            for count in groups:
                drafts = []
                for _ in range(count):
                    if announced and data.draw(st.booleans()):
                        drafts.append(outcome_of(*announced.pop()))
                    else:
                        drafts.append(denied(len(drafts) + 1))
                name = invocation(one.store.size())
                drafts.append(intent(name, data.draw(st.sampled_from([None, f"r-{name}"]))))
                appended = one.append(drafts)
                assert appended == other.append(drafts)
                announced.append((name, appended[-1]))
        first, second = open_ledger(home.path), open_ledger(shared.url("rita"))
        assert first.size == second.size == verified_size(shared.url("rita"))
        size = first.size
        assert list(first.leaves(0, size)) == list(second.leaves(0, size))
        assert list(first.checkpoints(0, size)) == list(second.checkpoints(0, size))
        assert list(first.columns(0, size) or ()) == list(second.columns(0, size) or ())
        every = range(stored_hash_count(size))
        assert list(first.hashes(every)) == list(second.hashes(every))
        first.close()
        second.close()


def test_a_request_id_is_claimed_once_and_an_intent_answered_once(shared: Shared) -> None:
    with shared.machine().writer() as writer, shared.machine("ben").writer() as other:
        announced = writer.append([intent(invocation(1), "again")])[0]
        refused(ExitCode.REQUEST_INVALID, "request.claimed", lambda: other.append([intent(invocation(2), "again")]))
        other.append([outcome_of(invocation(1), announced)])
        refused(
            ExitCode.APPEND_FAILED,
            "append.answered",
            lambda: writer.append([outcome_of(invocation(1), announced)]),
        )
        assert 3 == writer.store.size() == verified_size(shared.url("rita"))


CHANGED = {
    "entry": "leaf",
    "node": "hash",
    "checkpoint": "note",
    "entry_index": "kind",
    "open_intent": "idx",
    "head": "size",
    "meta": "value",
}


@pytest.mark.parametrize("user", ["anna", "sue", "rita"])
def test_nobody_writes_past_the_functions(shared: Shared, user: str) -> None:
    url = shared.url(user)
    for table in CHANGED:
        for statement in (
            f"INSERT INTO govrun.{table} SELECT * FROM govrun.{table}",  # noqa: S608 - names of ours
            f"UPDATE govrun.{table} SET {CHANGED[table]} = {CHANGED[table]}",  # noqa: S608 - names of ours
            f"DELETE FROM govrun.{table}",  # noqa: S608 - names of ours
            f"TRUNCATE govrun.{table}",
            f"DROP TABLE govrun.{table}",
            f"ALTER TABLE govrun.{table} ADD COLUMN more integer",
        ):
            assert state_of(url, statement) == "42501", statement
    for statement in (
        "CREATE TABLE govrun.mine (one integer)",
        "CREATE OR REPLACE FUNCTION govrun.hold() RETURNS void LANGUAGE sql AS ''",
        f"SET ROLE {shared.name}_owner",
        "CREATE SCHEMA mine",
    ):
        assert "42501" == state_of(url, statement), statement
    assert 1 == verified_size(shared.url("rita"))


def test_who_may_only_read_can_neither_append_nor_hold(shared: Shared) -> None:
    assert "42501" == state_of(shared.url("rita"), "SELECT govrun.hold()")
    empty = "SELECT govrun.append(1, '\\x', ARRAY[]::bytea[], ARRAY[]::bytea[], '[]')"
    assert "42501" == state_of(shared.url("rita"), empty)
    with shared.machine("rita").writer() as writer:
        refused(ExitCode.APPEND_FAILED, "ledger.rights", lambda: writer.append([denied()]))


def test_who_appends_cannot_sign_where_only_the_sequencer_does(make: Callable[..., Shared]) -> None:
    shared = make(writers_sign=False)
    note = "SELECT govrun.sign(1, '\\x00')"
    assert "42501" == state_of(shared.url("anna"), note)
    assert "42501" == state_of(shared.url("anna"), "SELECT govrun.begin_ledger('x', NULL, NULL, NULL)")
    with shared.machine("sue").writer() as writer:
        writer.append([genesis()])
        refused(ExitCode.APPEND_FAILED, "ledger.rights", lambda: writer.append([denied()]))
    assert 1 == verified_size(shared.url("rita"))


class HasUrl(Protocol):
    """A ledger that users reach each by a URL of their own."""

    def url(self, user: str) -> str: ...


def append_raw(shared: HasUrl, leaf: bytes, **changed: object) -> str | None:
    """Call append() with what fits, except for what is changed; the SQLSTATE of the refusal."""
    reader = open_ledger(shared.url("anna"))
    last = leaf_hash(next(iter(reader.leaves(reader.size - 1, reader.size)))[0])
    frontier = Frontier.at(reader.size, reader.hashes)
    size = reader.size
    reader.close()
    row = columns_of(parse_statement(parse_envelope(leaf).payload))._asdict() if leaf[:1] == b"{" else {}
    given_values = {
        "size": size,
        "last": last,
        "leaves": [leaf],
        "grown": frontier.append(leaf_hash(leaf)),
        "rows": psycopg.types.json.Jsonb([row]),
    } | changed
    link = connect(shared.url("anna"), 5_000, writes=True)
    try:
        link.execute("SELECT govrun.append(%(size)s, %(last)s, %(leaves)s, %(grown)s, %(rows)s)", given_values)
    except psycopg.Error as error:
        return error.sqlstate
    finally:
        link.close()
    return None


def test_append_takes_what_fits_the_head_and_nothing_else(shared: Shared, tmp_path: Path) -> None:
    home = Home(tmp_path / "twin")
    home.create()
    with home.writer() as writer:
        writer.append([denied(), denied(2)])
    twin = open_ledger(home.path)
    leaves = [leaf for batch in twin.leaves(0, 3) for leaf in batch]
    twin.close()
    zeros = bytes(32)
    jsonb = psycopg.types.json.Jsonb
    assert "GV002" == append_raw(shared, leaves[1], size=0)
    assert "GV002" == append_raw(shared, leaves[1], size=2)
    assert "GV002" == append_raw(shared, leaves[1], size=None)
    assert "GV002" == append_raw(shared, leaves[1], last=zeros)
    assert "GV003" == append_raw(shared, leaves[1], grown=[zeros, zeros])
    assert "GV003" == append_raw(shared, leaves[1], grown=[leaf_hash(leaves[1]), zeros])
    assert "GV003" == append_raw(shared, leaves[1], grown=[leaf_hash(leaves[1])])
    assert "GV003" == append_raw(shared, leaves[1], leaves=[leaves[1] + b" "])
    assert "GV003" == append_raw(shared, leaves[1], leaves=[])
    assert "GV003" == append_raw(shared, leaves[1], leaves=[None])
    assert "GV003" == append_raw(shared, leaves[1], leaves=[b""])
    assert "GV003" == append_raw(shared, leaves[1], rows=jsonb([]))
    assert "GV003" == append_raw(shared, b"x" * 65_536, rows=jsonb([{"kind": "gap", "stated_on": "x"}]))
    about = {"kind": "outcome", "intent": 0, "stated_on": "x"}
    assert "GV003" == append_raw(shared, leaves[1], rows=jsonb([about]))
    assert "23502" == append_raw(shared, leaves[1], rows=jsonb([{}]))
    too_many = [*grown_by(shared, leaves[1]), zeros]
    assert "GV003" == append_raw(shared, leaves[1], grown=too_many)
    assert 1 == verified_size(shared.url("rita"))
    assert append_raw(shared, leaves[1]) is None
    # The same again is behind another head now.
    assert "GV002" == append_raw(shared, leaves[1], size=1, last=leaf_hash(leaves[0]))


def grown_by(shared: Shared, leaf: bytes) -> list[bytes]:
    reader = open_ledger(shared.url("rita"))
    frontier = Frontier.at(reader.size, reader.hashes)
    reader.close()
    return frontier.append(leaf_hash(leaf))


def test_a_checkpoint_is_of_this_origin_and_between_the_last_one_and_the_head(shared: Shared) -> None:
    def sign(size: int | None, note: bytes | None) -> str | None:
        link = connect(shared.url("anna"), 5_000, writes=True)
        try:
            link.execute("SELECT govrun.sign(%s, %s)", (size, note))
        except psycopg.Error as error:
            return error.sqlstate
        finally:
            link.close()
        return None

    note = f"{ORIGIN}\n2\n".encode()
    assert "GV002" == sign(1, note)
    assert "GV002" == sign(2, note)
    assert "GV002" == sign(None, note)
    assert append_raw(shared, leaf_behind(shared)) is None
    assert "GV003" == sign(2, b"")
    assert "GV003" == sign(2, None)
    assert "GV003" == sign(2, f"{ORIGIN}\n3\n".encode())
    assert "GV003" == sign(2, b"other" + note)
    assert "GV003" == sign(2, note + bytes(65_536))


def leaf_behind(shared: Shared) -> bytes:
    """A leaf that fits behind the genesis."""
    with tempfile.TemporaryDirectory() as place:
        home = Home(Path(place))
        home.create()
        with home.writer() as writer:
            writer.append([denied()])
            return writer.store.leaf(1) or b""


def test_what_is_not_committed_is_gone(shared: Shared) -> None:
    leaf = leaf_behind(shared)
    entry, columns = entry_of(1, leaf), columns_of(parse_statement(parse_envelope(leaf).payload))
    with shared.machine().store() as store:
        frontier = Frontier.at(1, store.hashes)
        with store.hold():
            store.add_entry(entry, columns, 1, frontier.append(entry.leaf_hash))
            assert (2, leaf) == (store.size(), store.leaf(1))
        assert (1, None) == (store.size(), store.leaf(1))
    assert 1 == verified_size(shared.url("rita"))
