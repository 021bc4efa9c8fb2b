"""A clock that goes backwards or jumps changes no order and loses nothing; whoever verifies is told."""

from __future__ import annotations

import json

import pytest

from govrun.frozen import evolve
from govrun.world import real_world
from tests.e2e.place import Place

NOON_MS = 1_795_348_800_000
HOUR_MS = 3_600_000
YEARS_MS = 40 * 365 * 24 * HOUR_MS


def run_at(place: Place, now_ms: int) -> int:
    """One run while the clock stands; the index of its intent."""
    return place.call(argv=("/bin/true",), world=evolve(real_world(place.environ), now_ms=lambda: now_ms)).intent_index


def starts(place: Place) -> list[str]:
    return [entry.predicate["startedOn"] for entry in place.entries() if entry.kind == "intent"]


@pytest.mark.parametrize("jump_ms", [-1, -HOUR_MS, -YEARS_MS])
def test_a_clock_that_goes_backwards_is_told_and_order_is_by_index(place: Place, jump_ms: int) -> None:
    later = NOON_MS + YEARS_MS
    indexes = [run_at(place, now) for now in (later, later + jump_ms, later + jump_ms, later + 2 * HOUR_MS)]
    assert sorted(indexes) == indexes
    told = starts(place)
    assert told[1] == told[2] < told[0] < told[3]
    done = place.go("verify", "--json")
    report = json.loads(done.out)
    assert (0, "intact") == (done.code, report["integrity"]["status"])
    found = [finding for check in report["checks"] for finding in check["findings"]]
    # Each entry that says less than one before it, which are those of the two runs in between.
    assert [("clock.backwards", index) for index in range(indexes[1], indexes[3])] == [
        (one["rule"], one["index"]) for one in found
    ]
    assert "clock.backwards" in place.go("verify").out.decode() + place.go("verify").err


def test_a_clock_that_jumps_ahead_breaks_nothing(place: Place) -> None:
    for now in (NOON_MS, NOON_MS + YEARS_MS, NOON_MS + YEARS_MS + 1):
        run_at(place, now)
    assert ["genesis", *("intent", "outcome") * 3] == place.kinds()
    assert [] == place.leftovers()


def test_a_clock_that_moves_while_a_command_runs_neither_ends_nor_orphans_it(place: Place) -> None:
    hours = iter(range(1_000))

    def jumping() -> int:
        # Each look at the clock is an hour before the last one.
        return NOON_MS + YEARS_MS - next(hours) * HOUR_MS

    world = evolve(real_world(place.environ), now_ms=jumping)
    result = place.call(argv=("/bin/sleep", "0.2"), wall_ms=20_000, world=world)
    assert (0, "succeeded") == (result.exit, result.outcome["status"])
    # How long it took is measured by a clock that cannot be set.
    assert 200 <= result.outcome["durationMs"] < 20_000
    assert ["genesis", "intent", "outcome"] == place.kinds()
