"""What a run that failed leaves behind: exit code, rule, status, and an outcome in every case."""

from __future__ import annotations

import pytest

from tests.e2e.place import Place

SPIN = "while :; do :; done"


def assert_failed(place: Place, done: object, code: int, status: str, rule: str) -> dict[str, object]:
    """The failure as a program reads it, and the outcome that tells the same."""
    shown = done.json  # type: ignore[attr-defined]
    assert (code, rule) == (done.code, shown["error"]["rule"]), shown  # type: ignore[attr-defined]
    assert None is shown["text"]
    outcome = place.last("outcome")
    assert (status, rule, code) == (outcome["status"], outcome["error"]["code"], outcome["error"]["exitCode"])
    assert [] == outcome["outputs"]
    assert [] == place.leftovers()
    found: dict[str, object] = outcome
    return found


def test_a_command_that_fails_is_told_as_such(place: Place) -> None:
    done = place.run("--json", "--", "/bin/sh", "-c", "exit 7")
    outcome = assert_failed(place, done, 20, "failed", "process.exit")
    assert {"code": 7, "signal": None} == outcome["exit"]


def test_a_failure_shows_what_was_found_expected_and_recorded(place: Place) -> None:
    done = place.run("--", "/bin/sh", "-c", "echo partial; exit 7")
    assert (20, b"") == (done.code, done.out)
    assert (
        "command-failed: the command failed [process.exit]\n"
        "  found:    exit code 7\n"
        "  expected: exit code 0\n"
        "  effect:   it ran; outcome recorded as entry 2\n"
    ) == done.err


def test_a_declared_output_that_is_missing_fails_the_run(place: Place) -> None:
    done = place.run("--json", "--output", "out.txt", "--", "/bin/true")
    assert_failed(place, done, 20, "failed", "output.missing")


def test_an_input_that_changes_during_the_run_fails_it(place: Place) -> None:
    (place.work / "in.txt").write_text("before\n")
    done = place.run("--json", "--input", "in.txt", "--", "/bin/sh", "-c", "echo after >in.txt")
    outcome = assert_failed(place, done, 20, "failed", "dependency.changed")
    assert {"status": "changed", "changed": ["in.txt"]} == outcome["dependenciesAfter"]


def test_a_program_that_changes_during_the_run_fails_it(place: Place) -> None:
    program = place.work / "program"
    program.write_text('#!/bin/sh\nmv replacement "$0"\n')
    program.chmod(0o755)
    (place.work / "replacement").write_text("#!/bin/sh\n")
    done = place.run("--json", "--", "./program")
    outcome = assert_failed(place, done, 20, "failed", "dependency.changed")
    assert {"status": "changed", "changed": ["program"]} == outcome["dependenciesAfter"]


def test_too_much_output_ends_the_run(place: Place) -> None:
    place.policy("[backends.process]\nfreeArgv = true\n[limits]\nstdoutBytes = 1000\n")
    done = place.run("--json", "--", "/usr/bin/yes")
    outcome = assert_failed(place, done, 21, "limitExceeded", "limit.output")
    assert True is outcome["byproducts"]["stdout"]["truncated"]  # type: ignore[index]


def test_a_run_ends_at_its_time_limit(place: Place) -> None:
    done = place.run("--json", "--timeout", "0.2", "--", "/bin/sleep", "30")
    assert_failed(place, done, 21, "limitExceeded", "limit.wall")


def test_a_run_ends_at_its_cpu_limit(place: Place) -> None:
    place.policy("[backends.process]\nfreeArgv = true\n[limits]\ncpuMs = 200\n")
    done = place.run("--json", "--", "/bin/sh", "-c", SPIN)
    assert_failed(place, done, 21, "limitExceeded", "limit.cpu")


def test_a_run_ends_at_its_memory_limit(place: Place) -> None:
    place.policy("[backends.process]\nfreeArgv = true\n[limits]\nmemoryBytes = 50000000\n")
    # Each of them may have so much address space; together they hold too much.
    script = "import os,time\nfor _ in range(3):\n  if not os.fork(): break\nx=b'x'*25000000\ntime.sleep(30)"
    (place.work / "hungry.py").write_text(script)
    done = place.run("--json", "--", "python3", "hungry.py")
    assert_failed(place, done, 21, "limitExceeded", "limit.memory")


def test_a_program_that_cannot_be_executed_was_not_started(place: Place) -> None:
    program = place.work / "program"
    program.write_bytes(b"\x7fELF this is no program")
    program.chmod(0o755)
    done = place.run("--json", "--", "./program")
    assert_failed(place, done, 20, "failed", "command.couldNotStart")
    assert "nothing was started; outcome recorded as entry 2" == done.json["error"]["effect"]


@pytest.mark.parametrize("number", [6, 9, 15])
def test_a_death_by_signal_is_a_failure(place: Place, number: int) -> None:
    done = place.run("--json", "--", "/bin/sh", "-c", f"kill -{number} $$")
    # A pid namespace shows a death by signal n as exit code 128 + n; without one the signal itself is seen.
    shown = done.json["child"]
    assert (20, "failed") == (done.code, place.last("outcome")["status"])
    assert shown in ({"exitCode": 128 + number, "signal": None}, {"exitCode": None, "signal": number})


def test_output_that_the_backend_cannot_read_is_unparsable(place: Place) -> None:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    done = place.go("run", "--backend", "hostile", "--prompt", "x", "--json", env={"HOSTILE": "parse-refuses"})
    assert_failed(place, done, 22, "unparsable", "hostile.unreadable")


def test_a_backend_can_tell_a_failure_that_the_exit_code_hides(place: Place) -> None:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    done = place.go("run", "--backend", "hostile", "--prompt", "x", "--json", env={"HOSTILE": "parse-fails"})
    assert_failed(place, done, 20, "failed", "hostile.hidden")
