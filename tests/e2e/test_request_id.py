"""A request id: at most one run, however often and from wherever it is asked for."""

from __future__ import annotations

import os

import pytest

from govrun.errors import GovrunError
from tests.e2e.place import Place, assert_refused, finish, until

WAITS = "echo executed >>executed; while ! test -e go-on; do sleep 0.01; done; echo done"


def test_a_repeat_returns_the_record_and_runs_nothing(place: Place) -> None:
    first = place.run("--request-id", "r1", "--json", "--", *place.mark)
    again = place.run("--request-id", "r1", "--json", "--", *place.mark)
    assert (0, 0, 1, 3) == (first.code, again.code, place.runs, place.size)
    assert (False, True) == (first.json["repeated"], again.json["repeated"])
    for same in ("invocationId", "entries", "exit", "child"):
        assert first.json[same] == again.json[same]


def test_a_repeat_says_that_nothing_ran_again(place: Place) -> None:
    place.call(request_id="r1", argv=place.mark)
    again = place.run("--request-id", "r1", "--", *place.mark)
    said = "recorded before as entry 2; nothing was executed again, and its text was not kept\n"
    assert (0, b"", said) == (again.code, again.out, again.err)


def test_a_repeat_of_a_failure_fails_the_same_way(place: Place) -> None:
    command = ("/bin/sh", "-c", "echo executed >>executed; exit 7")
    assert 20 == place.run("--request-id", "r1", "--", *command).code
    again = place.run("--request-id", "r1", "--", *command)
    assert (20, 1, 3) == (again.code, place.runs, place.size)
    for part in ("[process.exit]", "exit code 7", "nothing was executed again; outcome recorded as entry 2"):
        assert part in again.err


def test_another_request_under_the_same_id_is_refused(place: Place) -> None:
    place.call(request_id="r1", argv=("/bin/true",))
    done = place.run("--request-id", "r1", "--", *place.mark)
    assert_refused(done, 10, "request.reused", "found:    entry 1", "expected: the same request", "fix:")
    assert (0, 4, "request.reused") == (place.runs, place.size, place.last("denied")["rule"])


def test_a_refusal_does_not_use_the_id_up(place: Place) -> None:
    assert 20 != place.run("--request-id", "r1", "--input", "later.txt", "--", *place.mark).code
    (place.work / "later.txt").touch()
    assert 0 == place.run("--request-id", "r1", "--input", "later.txt", "--", *place.mark).code
    assert (1, ["genesis", "denied", "intent", "outcome"]) == (place.runs, place.kinds())


def test_a_repeat_waits_for_a_run_under_way(place: Place) -> None:
    words = ("run", "--backend", "process", "--request-id", "r1", "--json", "--", "/bin/sh", "-c", WAITS)
    first = place.start(*words)
    until(lambda: place.runs, "the first runs")
    second = place.start(*words)
    (place.work / "go-on").touch()
    one, two = finish(first), finish(second)
    assert (0, 0, 1) == (one.code, two.code, place.runs)
    assert [False, True] == [one.json["repeated"], two.json["repeated"]]


def test_waiting_for_a_run_under_way_can_be_interrupted(place: Place) -> None:
    words = ("run", "--backend", "process", "--request-id", "r1", "--", "/bin/sh", "-c", WAITS)
    first = place.start(*words)
    until(lambda: place.runs, "the first runs")
    second = place.start(*words)
    until(lambda: _has_open(second.pid, "ledger.sqlite"), "the second has the ledger open")
    second.terminate()
    assert -15 == finish(second).code
    (place.work / "go-on").touch()
    assert (0, 1, 3) == (finish(first).code, place.runs, place.size)


def _has_open(pid: int, name: str) -> bool:
    try:
        return any(name in os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def test_two_that_race_with_the_same_id_run_once(place: Place) -> None:
    words = ("run", "--backend", "process", "--request-id", "r1", "--json", "--", *place.mark)
    done = [finish(child) for child in [place.start(*words) for _ in range(4)]]
    assert [0] * 4 == [d.code for d in done], [d.err for d in done]
    assert [False, True, True, True] == sorted(d.json["repeated"] for d in done)
    assert (1, ["genesis", "intent", "outcome"]) == (place.runs, place.kinds())


def test_a_run_that_was_killed_is_not_repeated_under_its_id(place: Place) -> None:
    words = ("run", "--backend", "process", "--request-id", "r1", "--", "/bin/sh", "-c", WAITS)
    child = place.start(*words)
    until(lambda: place.runs, "it runs")
    child.kill()
    finish(child)
    done = place.go(*words)
    assert_refused(done, 10, "request.unanswered", "intent 1 without outcome", "may have run, effects unknown")
    assert (1, ["genesis", "intent", "gap", "denied"]) == (place.runs, place.kinds())


def test_an_id_whose_salt_was_erased_is_refused(place: Place) -> None:
    place.call(request_id="r1", argv=place.mark)
    (place.home / "salts").unlink()
    with pytest.raises(GovrunError) as refused:
        place.call(request_id="r1", argv=place.mark)
    assert (10, "request.erased", 1) == (refused.value.code, refused.value.rule, place.runs)


@pytest.mark.parametrize("request_id", ["", " r", "ä", "x" * 129, "a/b", "-r"])
def test_a_malformed_id_is_refused(place: Place, request_id: str) -> None:
    with pytest.raises(GovrunError) as refused:
        place.call(request_id=request_id, argv=place.mark)
    assert (10, "request.id") == (refused.value.code, refused.value.rule)
    assert (0, 2, None) == (place.runs, place.size, place.last("denied")["request"])
