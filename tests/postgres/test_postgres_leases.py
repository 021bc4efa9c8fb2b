"""Leases that every machine sees: running while the session holds its lock, orphaned when it is gone."""

from __future__ import annotations

import pytest

from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, verify_ledger
from govrun.errors import ExitCode, GovrunError
from govrun.ledger import pending
from govrun.ledger.read_postgres import PostgresReader
from govrun.ledger.recovery import recover
from tests.ledger.ledger_world import LOG, NOW, ORIGIN, RECEIPT, ROOT, intent, invocation, outcome_of
from tests.postgres.cluster import Cluster
from tests.postgres.shared_world import Shared, Worker

ID = invocation(1)
TRUSTED = TrustedKeys(log=(LOG.verifier,), receipt=(RECEIPT.verifier,), root=(ROOT.verifier,), origin=ORIGIN)


def kinds(shared: Shared) -> list[str]:
    reader = PostgresReader(shared.url("rita"))
    found = [row.kind for row in reader.columns(0, reader.size) or () if row is not None]
    reader.close()
    return found


def running_and_orphaned(shared: Shared) -> tuple[int, int]:
    reader = PostgresReader(shared.url("rita"))
    report = verify_ledger(reader, TRUSTED, Question(is_running=reader.is_running, at=NOW, workers=1))
    reader.close()
    assert "intact" == report.integrity, report.findings
    return report.counts.running, report.counts.orphaned


def test_a_lease_is_seen_from_another_machine_and_had_by_one(shared: Shared) -> None:
    with shared.machine("anna").store() as here, shared.machine("ben").store() as there:
        assert not there.leases.is_held(ID)
        with here.leases.acquire(ID):
            assert here.leases.is_held(ID)
            assert there.leases.is_held(ID)
            assert there.leases.seize(ID) is None
            with pytest.raises(GovrunError) as caught:
                there.leases.acquire(ID)
            assert (ExitCode.LEDGER_UNAVAILABLE, "lease.held") == (caught.value.code, caught.value.rule)
            assert not there.leases.is_held(invocation(2))
        assert not there.leases.is_held(ID)
        seized = there.leases.seize(ID)
        assert seized is not None
        assert here.leases.is_held(ID)
        seized.release()
        seized.release()
        assert not here.leases.is_held(ID)


def test_an_open_intent_is_running_while_its_machine_holds_the_lock_and_orphaned_once_after(shared: Shared) -> None:
    with shared.machine("anna").writer() as writer:
        writer.append([intent(ID)])
    holder = Worker(shared.machine("anna"), "lease", ID).ready()
    assert (1, 0) == running_and_orphaned(shared)
    with shared.machine("ben").writer() as other:
        assert () == recover(other).gaps
        holder.kill()
        assert (0, 1) == running_and_orphaned(shared)
        assert 1 == len(recover(other).gaps)
        assert () == recover(other).gaps
    assert ["genesis", "intent", "gap"] == kinds(shared)


def test_many_machines_recover_at_once_and_one_gap_is_written(shared: Shared) -> None:
    with shared.machine("anna").writer() as writer:
        writer.append([intent(ID), intent(invocation(2))])
    workers = [Worker(shared.machine("ben", f"m{n}"), "recover") for n in range(4)]
    said = [worker.finish() for worker in workers]
    assert 2 == sum(int(lines[-1].split()[1]) for lines in said)
    assert ["genesis", "intent", "intent", "gap", "gap"] == kinds(shared)


def test_a_lock_lost_with_the_server_is_taken_again_by_the_next_append(shared: Shared, cluster: Cluster) -> None:
    with shared.machine("anna").writer() as here, here.store.leases.acquire(ID) as held:
        announced = here.append([intent(ID)])[0]
        cluster.stop()
        cluster.start()
        assert (0, 1) == running_and_orphaned(shared)
        here.append([intent(invocation(2))])
        with shared.machine("ben").store() as there:
            assert there.leases.is_held(ID)
            here.append([outcome_of(ID, announced)])
            held.release()
            assert not there.leases.is_held(ID)


def test_an_outcome_is_appended_behind_the_gap_of_somebody_who_took_it_for_orphaned(
    shared: Shared, cluster: Cluster
) -> None:
    with shared.machine("anna").writer() as here, here.store.leases.acquire(ID):
        announced = here.append([intent(ID)])[0]
        cluster.stop()
        cluster.start()
        with shared.machine("ben").writer() as there:
            assert 1 == len(recover(there).gaps)
        here.append([outcome_of(ID, announced)])
    assert ["genesis", "intent", "gap", "outcome"] == kinds(shared)
    assert (0, 0) == running_and_orphaned(shared)


def test_an_outcome_kept_while_the_server_was_away_is_appended_at_the_next_start(
    shared: Shared, cluster: Cluster
) -> None:
    machine = shared.machine("anna")
    with machine.writer(wait_ms=300) as here, here.store.leases.acquire(ID) as held:
        announced = here.append([intent(ID)])[0]
        cluster.stop()
        done = outcome_of(ID, announced)
        with pytest.raises(GovrunError):
            here.append([done])
        pending.keep(machine.directory / pending.PENDING_DIRECTORY, held, done)
    cluster.start()
    with machine.writer() as again:
        assert 1 == len(recover(again).outcomes)
    assert ["genesis", "intent", "outcome"] == kinds(shared)
