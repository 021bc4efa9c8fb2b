"""A server that is killed, a wire that is cut, writers that are killed or stopped: nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Writer
from govrun.ledger.merkle import leaf_hash
from govrun.ledger.read import open_ledger
from tests.ledger.ledger_world import LOG, RECEIPT, denied, verified_size
from tests.postgres.cluster import Cluster
from tests.postgres.shared_world import Machine, Shared, Worker
from tests.postgres.wire import Wire


def refused(rule: str, action: Callable[[], object]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    assert (ExitCode.APPEND_FAILED, rule) == (caught.value.code, caught.value.rule), str(caught.value)
    return caught.value


def acknowledged(lines: list[str]) -> list[tuple[int, str]]:
    """(index, leaf hash) of what a worker was told is durable."""
    return [(int(line.split()[0]), line.split()[1]) for line in lines if line[0].isdigit()]


def assert_holds(shared: Shared, told: list[tuple[int, str]]) -> int:
    """Assert that the ledger is whole and holds all that was acknowledged, each once; its size."""
    size = verified_size(shared.url("rita"))
    reader = open_ledger(shared.url("rita"))
    stored = [leaf_hash(leaf).hex() for batch in reader.leaves(0, size) for leaf in batch]
    reader.close()
    assert len(told) == len({index for index, _ in told})
    assert [] == [(index, found) for index, found in told if index >= size or stored[index] != found]
    return size


@pytest.mark.slow
def test_a_server_that_is_killed_again_and_again_loses_nothing(shared: Shared, cluster: Cluster) -> None:
    each, writers = 30, 8
    workers = [Worker(shared.machine("anna", f"m{n}"), "append", str(each)).ready() for n in range(writers)]
    lines: list[list[str]] = [[] for _ in workers]

    def follow(at: int) -> None:
        lines[at] += [line.rstrip("\n") for line in workers[at].out]

    threads = [threading.Thread(target=follow, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for kill in range(3):
        # Somewhere in the middle of what they do, not at a moment that was chosen.
        deadline = time.monotonic() + 60
        while sum(map(len, lines)) < (kill + 1) * 50 and time.monotonic() < deadline:
            time.sleep(0.005)
        cluster.kill()
        cluster.start()
    for thread in threads:
        thread.join(120)
    for worker in workers:
        assert [] == worker.finish()
    told = [one for some in lines for one in acknowledged(some)]
    assert each * writers == len(told)
    size = assert_holds(shared, told)
    # What was refused with a result that nobody could read may stand there too; it was not acknowledged.
    unknown = [line for some in lines for line in some if "unknown" in line]
    assert len(told) + 1 <= size <= len(told) + 1 + len(unknown)


def through(wire: Wire, shared: Shared, place: str) -> Machine:
    return Machine(f"postgresql://{shared.name}_anna@/{shared.name}?host={wire.directory}", shared.directory / place)


@pytest.fixture
def stretch(tmp_path: Path) -> Path:
    return tmp_path / "w"


def test_a_commit_whose_answer_is_lost_is_acknowledged_when_it_was_done(
    shared: Shared, cluster: Cluster, stretch: Path
) -> None:
    with Wire(stretch, cluster.socket, "after") as wire, through(wire, shared, "m").writer() as writer:
        appended = writer.append([denied()])[0]
        assert 1 == wire.cuts
        writer.append([denied(2)])
    assert 3 == assert_holds(shared, [(appended.index, appended.leaf_hash)])


def test_so_it_is_when_another_writer_appends_behind_it_meanwhile(
    shared: Shared, cluster: Cluster, stretch: Path
) -> None:
    def behind() -> None:
        with shared.machine("ben").writer() as other:
            other.append([denied(7)])

    with Wire(stretch, cluster.socket, "after", behind) as wire, through(wire, shared, "m").writer() as writer:
        appended = writer.append([denied()])[0]
        assert (1, 1) == (wire.cuts, appended.index)
        assert 3 == writer.append([denied(2)])[0].index
    assert 4 == assert_holds(shared, [(appended.index, appended.leaf_hash)])


def test_a_commit_that_never_arrived_is_refused_and_gone(shared: Shared, cluster: Cluster, stretch: Path) -> None:
    def instead() -> None:
        with shared.machine("ben").writer() as other:
            other.append([denied(7)])

    with Wire(stretch, cluster.socket, "before", instead) as wire, through(wire, shared, "m").writer() as writer:
        error = refused("ledger.unreachable", lambda: writer.append([denied()]))
        assert "nothing was appended" == error.effect
        assert 2 == writer.append([denied(2)])[0].index
    assert 3 == verified_size(shared.url("rita"))


def test_a_commit_of_a_server_that_is_gone_for_good_is_unknown(shared: Shared, cluster: Cluster, stretch: Path) -> None:
    with (
        Wire(stretch, cluster.socket, "after", cluster.kill) as wire,
        through(wire, shared, "m").writer(wait_ms=1_000) as writer,
    ):
        error = refused("ledger.unreachable", lambda: writer.append([denied()]))
    cluster.start()
    assert (error.effect or "").startswith("unknown")
    assert 2 == verified_size(shared.url("rita"))


@pytest.fixture
def without_standby(cluster: Cluster) -> Iterator[None]:
    """While this lasts, every commit waits for a standby that is not there."""
    cluster.run("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    yield
    cluster.run("postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


def assert_goes_on(shared: Shared) -> None:
    """Assert that the ledger is whole, with or without what was not acknowledged, and takes more."""
    with shared.machine("ben").writer() as writer:
        writer.append([denied(2)])
    assert verified_size(shared.url("rita")) in (2, 3)


def test_a_commit_that_no_standby_confirms_is_not_acknowledged(
    shared: Shared, without_standby: None, cluster: Cluster
) -> None:
    with shared.machine().writer(wait_ms=300) as writer:
        error = refused("ledger.unreachable", lambda: writer.append([denied()]))
    assert (error.effect or "").startswith("unknown")
    cluster.run("postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    assert_goes_on(shared)


def test_a_commit_that_stopped_waiting_for_its_standby_is_not_acknowledged(
    shared: Shared, without_standby: None, cluster: Cluster
) -> None:
    # What an operator does when commits hang; PostgreSQL then says COMMIT, with a warning.
    waiting = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = '{shared.name}' AND wait_event = 'SyncRep'"  # noqa: S608, E501
    done = threading.Event()

    def cancel() -> None:
        with cluster.admin("postgres") as link:
            while not done.wait(0.02):
                link.execute(waiting.encode())

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    try:
        with shared.machine().writer(wait_ms=2_000) as writer:
            error = refused("ledger.notReplicated", lambda: writer.append([denied()]))
    finally:
        done.set()
        cancelling.join()
    assert (error.effect or "").startswith("unknown")
    cluster.run("postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    assert_goes_on(shared)


def test_a_killed_writer_keeps_nobody_out(shared: Shared) -> None:
    holding = Worker(shared.machine("anna"), "hold", "10000").ready()
    with shared.machine("ben").writer(wait_ms=100) as writer:
        refused("ledger.locked", lambda: writer.append([denied()]))
    holding.kill()
    with shared.machine("ben").writer() as writer:
        assert 1 == writer.append([denied()])[0].index


def test_a_stopped_writer_is_waited_for_no_longer_than_its_own_deadline(shared: Shared) -> None:
    holding = Worker(shared.machine("anna"), "hold", "1500").ready()
    holding.process.send_signal(signal.SIGSTOP)
    try:
        with shared.machine("ben").writer(wait_ms=100) as writer:
            refused("ledger.locked", lambda: writer.append([denied()]))
        with shared.machine("ben").writer() as writer:
            assert 1 == writer.append([denied()])[0].index
    finally:
        holding.process.send_signal(signal.SIGCONT)
        holding.kill()
    assert 2 == verified_size(shared.url("rita"))


def test_what_a_writer_wrote_before_it_was_stopped_is_gone_when_it_goes_on(shared: Shared) -> None:
    with shared.machine("anna").writer(wait_ms=300) as slow:
        drafts = [denied(), lambda _: _stand_still(shared)]
        refused("ledger.heldTooLong", lambda: slow.append(drafts))
        assert 2 == slow.append([denied(3)])[0].index
    assert 3 == verified_size(shared.url("rita"))


def _stand_still(shared: Shared) -> None:
    """Keep a transaction open until the server has ended it, which is seen by another writer's turn."""
    with shared.machine("ben").writer() as other:
        other.append([denied(2)])


def test_a_lost_connection_is_made_again_by_the_next_append(shared: Shared, cluster: Cluster) -> None:
    with shared.machine().writer() as writer:
        writer.append([denied()])
        cluster.stop()
        cluster.start()
        assert 2 == writer.append([denied(2)])[0].index
        ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{shared.name}'"  # noqa: S608
        cluster.run("postgres", ended)
        assert 3 == writer.append([denied(3)])[0].index
    assert 4 == verified_size(shared.url("rita"))


def test_a_connection_that_hangs_is_given_up_at_the_deadline(shared: Shared, cluster: Cluster) -> None:
    with shared.machine().store(wait_ms=300) as store:
        writer = Writer(store, RECEIPT, LOG, shared.machine("anna", "other").guard)
        writer.append([denied()])
        assert store._link is not None
        backend = store._link.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            # Nothing was asked for yet, so another connection serves as well.
            assert 2 == writer.append([denied(2)])[0].index
        finally:
            os.kill(backend, signal.SIGCONT)
    assert 3 == verified_size(shared.url("rita"))
