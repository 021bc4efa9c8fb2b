"""What a crash or a full disk left behind comes into the ledger once, whoever starts next."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from govrun import canonical
from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lease, pending, recovery
from govrun.ledger.append import Appended
from govrun.ledger.pending import Pending, format_pending, list_pending, parse_pending, read_pending
from govrun.ledger.recovery import Recovered, recover
from govrun.receipt import Draft
from tests.ledger.ledger_world import Child, Home, denied, intent, invocation, outcome_of, payloads

ID = invocation(1)
SALT = b"s" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def announce(home: Home, invocation_id: str = ID) -> Appended:
    with home.writer() as writer:
        return writer.append([intent(invocation_id)])[0]


def keep(home: Home, draft: Draft, invocation_id: str = ID, salt: bytes | None = SALT) -> Path:
    with lease.acquire(home.directory / lease.LEASES_DIRECTORY, invocation_id) as held:
        return pending.keep(home.directory / pending.PENDING_DIRECTORY, held, draft, salt)


def recovered(home: Home) -> Recovered:
    with home.writer() as writer:
        return recover(writer)


def kinds(home: Home) -> list[str]:
    home.size()
    return [one["kind"] for one in payloads(home.path)]


def left(home: Home) -> list[str]:
    return sorted(
        name
        for directory in (pending.PENDING_DIRECTORY, lease.LEASES_DIRECTORY)
        if (home.directory / directory).exists()
        for name in os.listdir(home.directory / directory)
    )


def test_a_pending_outcome_is_one_private_canonical_file(home: Home) -> None:
    draft = outcome_of(ID, announce(home))
    path = keep(home, draft)
    assert home.directory / "pending" / f"{ID}.json" == path
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    data = path.read_bytes()
    assert data == canonical.encode(canonical.decode(data))
    assert (ID,) == list_pending(path.parent)
    assert Pending(draft, SALT) == read_pending(path.parent, ID)
    assert [f"{ID}.json"] == left(home)


def test_a_pending_file_is_read_as_it_was_written(home: Home) -> None:
    draft = Draft("outcome", outcome_of(ID, announce(home)).predicate, (("out.txt", "ab" * 32),))
    for salt in (None, SALT):
        waiting = Pending(draft, salt)
        assert waiting == parse_pending(format_pending(waiting))


def test_a_pending_outcome_is_appended_at_the_next_start_with_its_salt(home: Home) -> None:
    keep(home, outcome_of(ID, announce(home)))
    with home.writer() as writer:
        found = recover(writer)
        assert [2] == [one.index for one in found.outcomes]
        assert () == found.gaps
        assert SALT == writer.salts.read(2)
        assert Recovered() == recover(writer)
    assert ["genesis", "intent", "outcome"] == kinds(home)
    assert [] == left(home)


def test_a_pending_outcome_that_is_in_the_ledger_already_is_dropped(home: Home) -> None:
    draft = outcome_of(ID, announce(home))
    with home.writer() as writer:
        writer.append([draft])
    keep(home, draft)
    assert Recovered() == recovered(home)
    assert ["genesis", "intent", "outcome"] == kinds(home)
    assert [] == left(home)


def test_an_orphaned_intent_gets_one_gap(home: Home) -> None:
    announced = announce(home)
    (home.directory / "leases").mkdir()
    (home.directory / "leases" / ID).write_bytes(b"left by a killed process")
    found = recovered(home)
    assert [2] == [one.index for one in found.gaps]
    assert Recovered() == recovered(home)
    assert ["genesis", "intent", "gap"] == kinds(home)
    told = payloads(home.path)[2]
    assert ("orphaned", announced.index, announced.leaf_hash) == (
        told["reason"],
        told["intent"]["index"],
        told["intent"]["leafHash"],
    )
    assert [] == left(home)


def test_an_open_intent_whose_lease_is_held_is_running(home: Home) -> None:
    announce(home)
    with lease.acquire(home.directory / lease.LEASES_DIRECTORY, ID):
        assert Recovered() == recovered(home)
        assert lease.is_held(home.directory / lease.LEASES_DIRECTORY, ID)
    assert ["genesis", "intent"] == kinds(home)
    assert 1 == len(recovered(home).gaps)


def test_a_pending_outcome_wins_over_an_orphan_gap(home: Home) -> None:
    from govrun.ledger.recovery import orphans

    keep(home, outcome_of(ID, announce(home)))
    with home.writer() as writer:
        assert () == orphans(writer)
        found = recover(writer)
    assert (1, 0) == (len(found.outcomes), len(found.gaps))
    assert ["genesis", "intent", "outcome"] == kinds(home)


def test_answered_intents_are_not_looked_at_again(home: Home) -> None:
    with home.writer() as writer:
        for n in range(20):
            (announced,) = writer.append([intent(invocation(n))])
            writer.append([outcome_of(invocation(n), announced)])
        assert () == writer.store.open_intents()
        assert Recovered() == recover(writer)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b'{"kind":"outcome","outputs":[],"predicate":{},"salt":null}',
        b'{"kind":"intent","outputs":[],"predicate":{"intent":{"index":1,"leafHash":"ab"}},"salt":null}',
        b'{"kind":"outcome","outputs":[],"predicate":{"intent":{"index":"1","leafHash":"ab"}},"salt":null}',
        b'{"kind":"outcome","outputs":[],"predicate":{"intent":{"index":1,"leafHash":"ab"}},"salt":"00"}',
        b'{"kind":"outcome","outputs":[1],"predicate":{"intent":{"index":1,"leafHash":"ab"}},"salt":null}',
        b'{"kind":"outcome","outputs":[],"predicate":{"intent":null},"salt":null}',
        b" " * (canonical.MAX_BYTES + 2),
        # Well-formed, but its predicate is no outcome's, or is about no intent.
        b'{"kind":"outcome","outputs":[],"predicate":{"intent":{"index":1,"leafHash":"ab"}},"salt":null}',
    ],
)
def test_an_unreadable_pending_file_becomes_a_gap_and_is_kept_aside(home: Home, data: bytes) -> None:
    announced = announce(home)
    (home.directory / "pending").mkdir()
    (home.directory / "pending" / f"{ID}.json").write_bytes(data)
    found = recovered(home)
    assert (0, 1) == (len(found.outcomes), len(found.gaps))
    assert Recovered() == recovered(home)
    told = payloads(home.path)[2]
    assert ("pendingUnreadable", announced.index) == (told["reason"], told["intent"]["index"])
    assert [f"{ID}.unreadable"] == left(home)
    assert data == (home.directory / "pending" / f"{ID}.unreadable").read_bytes()


def test_a_pending_outcome_of_another_ledger_becomes_a_gap_about_nothing(home: Home) -> None:
    announced = announce(home)
    with home.writer() as writer:
        writer.append([outcome_of(ID, announced)])
    stranger = invocation(9)
    keep(home, outcome_of(stranger, Appended(40, "cd" * 32, b"")), stranger)
    assert 1 == len(recovered(home).gaps)
    told = payloads(home.path)[-1]
    assert ("pendingUnreadable", None) == (told["reason"], told["intent"])


def test_files_set_aside_keep_their_names_apart(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{ID}.json").write_bytes(b"%d" % n)
        pending.set_aside(tmp_path, ID)
    pending.set_aside(tmp_path, ID)
    assert [b"0", b"1", b"2"] == [p.read_bytes() for p in sorted(tmp_path.iterdir())]
    assert () == list_pending(tmp_path)


def test_a_pending_file_that_cannot_be_opened_is_unreadable(tmp_path: Path) -> None:
    assert read_pending(tmp_path, ID) is None
    assert () == list_pending(tmp_path / "none")
    (tmp_path / f"{ID}.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GovrunError) as caught:
        read_pending(tmp_path, ID)
    assert "pending.unreadable" == caught.value.rule


def test_a_pending_file_that_the_system_does_not_give_now_is_kept_where_it_is(home: Home) -> None:
    path = keep(home, outcome_of(ID, announce(home)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    # Files that are open stay so; no other can be opened.
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(GovrunError) as caught:
            read_pending(path.parent, ID)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (ExitCode.LEDGER_UNAVAILABLE, "pending.io") == (caught.value.code, caught.value.rule)
    assert path.exists()
    assert 1 == len(recovered(home).outcomes)


def test_a_lease_of_a_process_that_was_killed_before_its_intent_is_taken_away(home: Home) -> None:
    child = Child(home, "lease", ID).ready()
    running = Child(home, "lease", invocation(2)).ready()
    child.kill()
    assert Recovered() == recovered(home)
    assert [invocation(2)] == left(home)
    running.finish()
    assert [] == left(home)


def test_an_outcome_that_can_be_kept_nowhere_says_so(home: Home) -> None:
    announced = announce(home)
    (home.directory / "pending").write_bytes(b"a file where the directory should be")
    with lease.acquire(home.directory / "leases", ID) as held, pytest.raises(GovrunError) as caught:
        pending.keep(home.directory / "pending", held, outcome_of(ID, announced))
    assert (ExitCode.APPEND_FAILED, "pending.lost") == (caught.value.code, caught.value.rule)
    assert caught.value.effect
    with home.writer() as writer, pytest.raises(GovrunError) as caught:
        recover(writer)
    assert (ExitCode.LEDGER_UNAVAILABLE, "recovery.files") == (caught.value.code, caught.value.rule)


def test_a_ledger_that_cannot_be_written_keeps_what_is_pending(home: Home) -> None:
    path = keep(home, outcome_of(ID, announce(home)))
    blocker = Child(home, "hold")
    with home.writer(wait_ms=100) as writer:
        blocker.ready()
        with pytest.raises(GovrunError) as caught:
            recover(writer)
        assert (ExitCode.APPEND_FAILED, "ledger.locked") == (caught.value.code, caught.value.rule)
        assert path.exists()
        blocker.finish()
        assert 1 == len(recover(writer).outcomes)


def test_two_processes_that_recover_at_once_append_each_thing_once(home: Home) -> None:
    for n in range(12):
        announced = announce(home, invocation(n))
        if n % 3 == 0:
            keep(home, outcome_of(invocation(n), announced), invocation(n))
        elif n % 3 == 1:
            (home.directory / "pending").mkdir(exist_ok=True)
            (home.directory / "pending" / f"{invocation(n)}.json").write_bytes(b"?")
    children = [Child(home, "recover").ready() for _ in range(4)]
    for child in children:
        child.go_on()
    counts = [tuple(map(int, child.finish()[-1].split())) for child in children]
    assert 4 == sum(outcomes for outcomes, _ in counts)
    assert 8 == sum(gaps for _, gaps in counts)
    with home.writer() as writer:
        assert () == writer.store.open_intents()
    assert 1 + 12 + 12 == len(kinds(home))


def test_what_another_process_is_settling_is_left_to_it(home: Home) -> None:
    keep(home, outcome_of(ID, announce(home)))
    with lease.acquire(home.directory / lease.LEASES_DIRECTORY, ID):
        assert Recovered() == recovered(home)
    assert 1 == len(recovered(home).outcomes)


def test_what_was_settled_since_it_was_listed_is_not_settled_again(home: Home) -> None:
    announced = announce(home)
    directory = home.directory / "pending"
    with home.writer() as writer:
        late = recovery._orphaned(writer, announced.index, ID)
        writer.append([outcome_of(ID, announced)])
        assert () == writer.append([late])
        recovery._settle(writer, directory, ID, [], [])
    assert ["genesis", "intent", "outcome"] == kinds(home)


def test_gaps_of_other_reasons_close_nothing(home: Home) -> None:
    announce(home)
    with home.writer() as writer:
        writer.append([denied()])
        assert 1 == len(writer.store.open_intents())
