"""Every exit code of the table that can be reached is reached, from the command line, with what it promises."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from govrun.errors import ExitCode
from tests.e2e.place import Place, finish, until

# Replay is a later capability.
UNREACHABLE = {ExitCode.REPLAY_DIFFERENT, ExitCode.REPLAY_NOT_COMPARABLE}


def policy(place: Place, text: str) -> Place:
    place.policy(text)
    return place


def interrupted(place: Place) -> int:
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", "echo x >executed; sleep 300")
    until(place.marker.exists, "the child runs")
    child.send_signal(signal.SIGINT)
    return finish(child).code


def append_failed(place: Place) -> int:
    script = "echo x >executed; while ! test -e go-on; do sleep 0.01; done"
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", script)
    until(place.marker.exists, "the child runs")
    place.ledger.rename(place.home / "aside")
    (place.work / "go-on").touch()
    code = finish(child).code
    (place.home / "aside").rename(place.ledger)
    return code


def rolled_back(place: Place) -> int:
    old = place.ledger.read_bytes()
    place.call(argv=("/bin/true",))
    place.ledger.write_bytes(old)
    return place.run("--", "/bin/true").code


def inconsistent(place: Place) -> int:
    place.is_whole = False
    place.call(argv=("/bin/true",))
    data = place.ledger.read_bytes()
    at = data.rindex(b'"sig":"') + 20
    place.ledger.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    return place.go("verify").code


def untrusted(place: Place) -> int:
    other = Place(place.root / "other", {"XDG_CONFIG_HOME": str(place.root / "other"), "XDG_STATE_HOME": "/proc/x"})
    other.work.mkdir(parents=True)
    origin = place.verify().origin
    assert 0 == other.go("init", "--origin", origin, env={"XDG_STATE_HOME": str(place.root / "other")}).code
    [trust] = (place.root / "other" / "govrun" / "trust").glob("*.toml")
    return place.go("verify", "--trust", str(trust)).code


def violated(place: Place) -> int:
    place.call(argv=("/bin/true",))
    (place.work / "strict.toml").write_text("format = 1\n[backends.bitnet]\n")
    return place.go("audit", "--policy", "strict.toml").code


def diverged(place: Place) -> int:
    kept = place.root / "kept"
    copy = place.ledger.read_bytes()
    place.call(argv=("/bin/true",))
    kept.write_bytes(place.go("ledger", "checkpoint").out)
    # The same keys, another history.
    place.ledger.write_bytes(copy)
    for head in (place.root / "state").rglob("heads/*"):
        head.unlink()
    place.call(argv=("/bin/echo",))
    return place.go("verify", "--checkpoint", str(kept)).code


def hostile(place: Place, way: str) -> int:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    return place.go("run", "--backend", "hostile", "--prompt", "x", env={"HOSTILE": way}).code


REACHED: dict[ExitCode, Callable[[Place], int]] = {
    ExitCode.SUCCESS: lambda p: p.run("--", "/bin/true").code,
    ExitCode.CRASH: lambda p: (
        finish(p.start("run", "--backend", "process", "--", "/bin/echo", stdout=os.open("/dev/full", os.O_WRONLY))).code
    ),
    ExitCode.USAGE: lambda p: p.go("run", "--force").code,
    ExitCode.REQUEST_INVALID: lambda p: p.run("--ok-exit", "999", "--", "/bin/true").code,
    ExitCode.POLICY_DENIED: lambda p: policy(p, "[backends.bitnet]\n").run("--", "/bin/true").code,
    ExitCode.BACKEND_UNAVAILABLE: lambda p: p.go("run", "--backend", "nosuch").code,
    ExitCode.PREFLIGHT_REFUSED: lambda p: p.run("--input", "missing", "--", "/bin/true").code,
    ExitCode.TEMPLATE_REFUSED: lambda p: (
        p.run("--agent", "bot-hunter2hunter2", "--", "/bin/true", env={"MY_TOKEN": "hunter2hunter2"}).code
    ),
    ExitCode.LEDGER_UNAVAILABLE: lambda p: p.run("--home", "/dev/null", "--", "/bin/true").code,
    ExitCode.LEDGER_ROLLED_BACK: rolled_back,
    ExitCode.COMMAND_FAILED: lambda p: p.run("--", "/bin/false").code,
    ExitCode.LIMIT_EXCEEDED: lambda p: p.run("--timeout", "0.1", "--", "/bin/sleep", "300").code,
    ExitCode.OUTPUT_UNPARSABLE: lambda p: hostile(p, "parse-refuses"),
    ExitCode.INTERRUPTED: interrupted,
    # A defect of govrun or of a signer after the launch; a backend that breaks the program it is loaded into is one.
    ExitCode.RECEIPT_INVALID: lambda p: hostile(p, "breaks-receipt"),
    ExitCode.SIGNING_FAILED: lambda p: hostile(p, "breaks-signing"),
    ExitCode.CHECKPOINT_FAILED: lambda p: hostile(p, "breaks-checkpoint"),
    ExitCode.APPEND_FAILED: append_failed,
    ExitCode.LEDGER_INCONSISTENT: inconsistent,
    ExitCode.SIGNATURE_UNTRUSTED: untrusted,
    ExitCode.POLICY_VIOLATED: violated,
    ExitCode.EVIDENCE_INCOMPLETE: lambda p: p.go("verify", "--require", "pinned").code,
    ExitCode.HISTORY_DIVERGED: diverged,
    ExitCode.COULD_NOT_CHECK: lambda p: p.go("verify", str(p.ledger), env={"XDG_CONFIG_HOME": "/proc/none"}).code,
}


def test_every_exit_code_is_reached_or_known_to_be_out_of_reach() -> None:
    assert set(ExitCode) == set(REACHED) | UNREACHABLE
    assert set() == set(REACHED) & UNREACHABLE


@pytest.mark.parametrize("code", REACHED, ids=lambda code: code.label)
def test_an_exit_code_is_reached(place: Place, code: ExitCode) -> None:
    assert code == REACHED[code](place)
