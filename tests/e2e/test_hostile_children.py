"""Children that misbehave: the outcome is appended, the receipt shows nothing of theirs, nothing of them is left."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios
import time

import pytest

from govrun.execute import sandbox
from tests.e2e.place import Place, finish, processes_below, until

TOKEN = "hunter2-hunter2-hunter2"


def test_what_a_child_prints_reaches_no_receipt(place: Place) -> None:
    place.extra["MY_API_TOKEN"] = TOKEN
    script = f"echo {TOKEN}; echo /etc/passwd ~/x 'C:\\x'; echo {TOKEN} >&2; printf '\\033[2J\\377\\n'"
    done = place.run("--", "/bin/sh", "-c", script)
    assert (0, True) == (done.code, TOKEN.encode() in done.out)
    stored = place.ledger.read_bytes()
    assert TOKEN.encode() not in stored
    text = str([e.predicate for e in place.entries()])
    for word in (TOKEN, "/etc/passwd", "\x1b", str(place.work)):
        assert word not in text


def test_a_secret_in_a_command_does_not_reach_the_ledger(place: Place) -> None:
    place.extra["MY_API_TOKEN"] = TOKEN
    done = place.run("--agent", TOKEN, "--", *place.mark)
    assert (14, "redact.intent") == (done.code, place.last("denied")["rule"])
    assert None is place.last("denied")["agent"]
    assert 0 == place.runs
    assert TOKEN.encode() not in place.ledger.read_bytes()


@pytest.mark.parametrize("word", ["succeeded", "unchanged", "hmacSha256", "process.exit", "template", "denied"])
def test_a_secret_that_reads_like_a_word_of_ours_makes_nothing_unwritable(place: Place, word: str) -> None:
    place.extra["MY_PASSWORD"] = word.ljust(8, "x") if len(word) < 8 else word
    done = place.run("--", "/bin/sh", "-c", "exit 3")
    assert done.code in (14, 20), done.err
    assert [] == place.leftovers()


def test_output_is_exact_when_a_program_reads_it(place: Place) -> None:
    every_byte = bytes(range(256)) * 3
    (place.work / "bytes").write_bytes(every_byte)
    done = place.run("--", "/bin/cat", "bytes")
    assert (0, every_byte) == (done.code, done.out)


def test_stderr_is_exact_when_a_program_reads_it(place: Place) -> None:
    done = place.run("--", "/bin/sh", "-c", "printf 'a\\033[31m\\r\\tb' >&2")
    assert "a\x1b[31m\r\tb" == done.err


def on_a_terminal(place: Place, *words: str) -> tuple[int, bytes]:
    """Run with stdout and stderr on a pseudo-terminal; exit code, and what the terminal was sent."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST  # what is written, as it is written
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    child = place.start("run", "--backend", "process", *words, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.2)
        if ready:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
    os.close(ours)
    return finish(child).code, seen


def test_a_terminal_is_shown_control_characters_escaped(place: Place) -> None:
    script = r"printf 'a\033[2J\033]0;title\007b\r\tc\u202e\377\n'; printf 'e\033[31m' >&2"
    (place.work / "odd").write_bytes("a\x1b[2J\x1b]0;title\x07b\r\tc\u202e".encode() + b"\xff\n")
    code, seen = on_a_terminal(place, "--", "/bin/sh", "-c", "cat odd; printf 'e\\033[31mgrün' >&2")
    assert 0 == code, script
    assert b"e\\x1b[31mgr\xc3\xbcn" in seen
    assert b"a\\x1b[2J\\x1b]0;title\\x07b\\x0d\tc\\u202e\\xff\n" in seen
    assert b"\x1b" not in seen.replace(b"\x1b[K", b"")


def test_a_terminal_is_shown_no_empty_line_for_no_output(place: Place) -> None:
    assert (0, b"") == on_a_terminal(place, "--", "/bin/true")


def test_a_terminal_is_shown_output_with_its_last_line_ended(place: Place) -> None:
    assert (0, b"x\n") == on_a_terminal(place, "--", "/usr/bin/printf", "x")


def test_a_terminal_is_shown_a_bar_while_a_large_file_is_hashed(place: Place) -> None:
    with (place.work / "large").open("wb") as file:
        file.truncate(300 << 20)
    code, seen = on_a_terminal(place, "--input", "large", "--", "/bin/true")
    assert 0 == code
    assert b"hashing large [" in seen
    assert seen.endswith(b"\r\x1b[K")


def test_a_refusal_cannot_drive_a_terminal(place: Place) -> None:
    code, seen = on_a_terminal(place, "--input", "\x1b[2Jmissing", "--", *place.mark)
    assert 13 == code
    assert b"\x1b[2J" not in seen
    assert 0 == place.runs


@pytest.mark.parametrize(
    "script",
    [
        "sleep 300",
        "trap '' TERM; while :; do sleep 1; done",
        "exec >&- 2>&-; sleep 300",
        "sleep 300 & sleep 300 & wait",
        "setsid sleep 300 & sleep 300",
        "while :; do (sleep 300 &); sleep 0.02; done",
        "kill -STOP $$",
    ],
)
def test_a_child_that_hangs_ends_at_the_time_limit_with_all_it_started(place: Place, script: str) -> None:
    done = place.run("--timeout", "0.3", "--json", "--", "/bin/sh", "-c", script)
    assert (21, "limit.wall") == (done.code, done.json["error"]["rule"])
    assert "limitExceeded" == place.last("outcome")["status"]
    assert [] == processes_below(place.root)
    assert [] == place.leftovers()


def test_a_child_that_leaves_a_daemon_behind_has_ended_and_the_daemon_too(place: Place) -> None:
    done = place.run("--", "/bin/sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & echo done")
    assert (0, b"done\n") == (done.code, done.out)
    assert [] == processes_below(place.root)
    level = place.last("outcome")["containment"]["level"]
    assert ("pidNamespace" if sandbox.bubblewrap_works() else "group") == level


def test_a_flood_on_either_stream_is_cut_at_its_limit(place: Place) -> None:
    place.policy("[backends.process]\nfreeArgv = true\n[limits]\nstdoutBytes = 100000\nstderrBytes = 100000\n")
    for stream in ("", ">&2"):
        done = place.run("--", "/bin/sh", "-c", f"yes {stream}")
        assert (21, b"") == (done.code, done.out)
        assert len(done.err) < 110_000
        assert "limit.output" == place.last("outcome")["error"]["code"]


def test_stdin_of_a_child_is_empty(place: Place) -> None:
    assert b"" == place.run("--", "/bin/cat", stdin=b"not for you").out


def test_no_descriptor_of_ours_reaches_a_child(place: Place) -> None:
    done = place.run("--", "/bin/sh", "-c", "ls /proc/self/fd")
    # ls itself has the directory open.
    assert b"0\n1\n2\n3\n" == done.out


def test_closed_standard_descriptors_harm_nothing(place: Place) -> None:
    def close() -> None:
        for number in range(3):
            os.close(number)

    child = place.start(
        "run", "--backend", "process", "--", *place.mark, stdin=None, stdout=None, stderr=None, preexec_fn=close
    )
    assert (0, 1) == (child.wait(60), place.runs)
    assert "succeeded" == place.last("outcome")["status"]


def test_output_that_cannot_be_written_is_told_and_the_record_stands(place: Place) -> None:
    with open("/dev/full", "wb") as full:
        child = place.start("run", "--backend", "process", "--", "/bin/echo", "x", stdout=full)
        done = finish(child)
    assert (1, "govrun: stdout cannot be written: No space left on device\n") == (done.code, done.err)
    assert "succeeded" == place.last("outcome")["status"]


def test_a_reader_that_goes_away_ends_govrun_after_the_record(place: Place) -> None:
    reader, writer = os.pipe()
    child = place.start("run", "--backend", "process", "--", "/bin/echo", "x", stdout=writer)
    os.close(writer)
    os.close(reader)
    assert -13 == finish(child).code
    assert "succeeded" == place.last("outcome")["status"]


def test_a_fork_bomb_in_small_is_gone_when_the_leader_is(place: Place) -> None:
    (place.work / "bomb.py").write_text(
        "import os,time\nfor _ in range(4): os.fork()\ntime.sleep(300 if os.getppid() else 0)"
    )
    child = place.start("run", "--backend", "process", "--timeout", "1", "--", sys.executable, "bomb.py")
    until(lambda: len(processes_below(place.work)) > 8, "they run")
    assert 21 == finish(child).code
    assert [] == processes_below(place.root)
