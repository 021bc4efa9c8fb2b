"""A valid world: a fixed clock, seeded random bytes, and one draft of every kind that fits its schema."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from govrun import predicates
from govrun.backends.interface import (
    Captured,
    CommandPlan,
    Containment,
    Dependency,
    Determinism,
    Facts,
    Stream,
)
from govrun.digest import FileDigest
from govrun.errors import ExitCode, GovrunError
from govrun.predicates import FileUse, Provenance
from govrun.receipt import Draft
from govrun.request import Parameter, Request
from govrun.template import Hole, Template, Word
from govrun.world import World, format_instant

NOW_MS = 1_795_348_800_000  # 2026-11-22T12:00:00.000Z
SALT = bytes(range(32))
HASH = "ab" * 32

Build = Callable[..., Any]

# How long an example takes says something about the machine's other work, and nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def world() -> World:
    """A world whose clock stands still and whose random bytes are the same every time."""
    source = random.Random(1)  # noqa: S311 - the same every time is what is wanted here
    return World(now_ms=lambda: NOW_MS, monotonic_ns=lambda: 0, random_bytes=source.randbytes, environ={})


@pytest.fixture(scope="session")
def refuses() -> Callable[..., GovrunError]:
    """Call something that must refuse under a code and a rule, and say what it found and what it expected."""

    def refuses(code: ExitCode, rule: str, call: Build, *args: Any, **named: Any) -> GovrunError:
        with pytest.raises(GovrunError) as caught:
            call(*args, **named)
        assert (code, rule) == (caught.value.code, caught.value.rule), str(caught.value)
        assert caught.value.found
        assert caught.value.expected
        return caught.value

    return refuses


@pytest.fixture(scope="session")
def attempt() -> Callable[..., Any]:
    """Call something, and return its result, or its refusal, which must be under the code."""

    def attempt(code: ExitCode, call: Build, *args: Any) -> Any:
        try:
            return call(*args)
        except GovrunError as error:
            refused = error
        assert refused.code == code, str(refused)
        return refused

    return attempt


def plan(**changes: Any) -> CommandPlan:
    given: dict[str, Any] = {
        "template": Template(
            "bitnet.run-inference",
            (Hole("path", "interpreter", "/opt/py/bin/python3"), Word("-u"), Hole("number", "n-predict", "16")),
        ),
        "cwd": Path("/srv/work"),
        "environment": (("LANG", "C.UTF-8"),),
        "dependencies": (),
        "determinism": Determinism("deterministic", seed=1, temperature="0", batch=1, threads=2),
    }
    return CommandPlan(**{**given, **changes})


@pytest.fixture(scope="session")
def an_intent() -> Build:
    """The predicate of an intent of a model backend; named arguments replace those of `predicates.intent`."""

    def build(**changes: Any) -> dict[str, Any]:
        template = changes.pop("template", None)
        given: dict[str, Any] = {
            "invocation_id": "0" * 32,
            "request": Request("bitnet", task="scan", agent="ci-bot", prompt=b"hello", cwd="/srv/work"),
            "provenance": Provenance("bitnet", "govrun", "0.1.0", 1),
            "policy": HASH,
            "settings": HASH,
            "parameters": (Parameter("n-predict", "16", "option"), Parameter("temp", "0", "default")),
            "plan": plan(**({} if template is None else {"template": template})),
            "dependencies": (
                (Dependency("model", Path("/srv/models/m.gguf")), FileDigest(7, "cd" * 32)),
                (Dependency("interpreter", Path("/opt/py/bin/python3")), FileDigest(9, "ef" * 32)),
            ),
            "inputs": (),
            "checks": (("bitnet.model", "passed"), ("bitnet.pin", "notApplicable")),
            "limits": {
                "wallMs": 60_000,
                "cpuMs": 50_000,
                "memoryBytes": 1 << 30,
                "stdoutBytes": 1 << 20,
                "stderrBytes": 1 << 16,
            },
            "isolation": {"level": "pidNamespace", "required": True},
            "salt": SALT,
            "started_on": format_instant(NOW_MS),
            "deadline_on": format_instant(NOW_MS + 64_000),
        }
        return predicates.intent(**{**given, **changes})

    return build


def captured(**changes: Any) -> Captured:
    stream = Stream(b"out", 3, False, HASH)
    given: dict[str, Any] = {
        "ended": "exited",
        "exit_code": 0,
        "signal": None,
        "stdout": stream,
        "stderr": stream,
        "containment": Containment("pidNamespace", True, True),
        "duration_ms": 12,
        "cpu_ms": 3,
        "max_rss_bytes": 4096,
    }
    return Captured(**{**given, **changes})


@pytest.fixture(scope="session")
def an_outcome() -> Build:
    """The draft of a successful outcome without outputs; named arguments replace those of `predicates.outcome`."""

    def build(**changes: Any) -> Draft:
        given: dict[str, Any] = {
            "invocation_id": "0" * 32,
            "intent_index": 4,
            "intent_leaf_hash": HASH,
            "error": None,
            "captured": captured(),
            "facts": Facts(b"out", 5, 6, "stop", 1),
            "outputs": (),
            "changed": (),
            "salt": SALT,
            "finished_on": format_instant(NOW_MS),
        }
        return predicates.outcome(**{**given, **changes})

    return build


@pytest.fixture(scope="session")
def a_denial() -> Build:
    """The draft of a denial; named arguments replace those of `predicates.denied`."""

    def build(**changes: Any) -> Draft:
        given: dict[str, Any] = {
            "invocation_id": "0" * 32,
            "request": Request("bitnet", prompt=b"hello", cwd="/srv/work"),
            "backend": "bitnet",
            "task": "scan",
            "agent": "ci-bot",
            "policy": HASH,
            "error": GovrunError(ExitCode.POLICY_DENIED, "policy.backend", "no", found="bitnet", expected="process"),
            "salt": SALT,
            "now": format_instant(NOW_MS),
        }
        return predicates.denied(**{**given, **changes})

    return build


@pytest.fixture(scope="session")
def drafts(an_intent: Build, an_outcome: Build, a_denial: Build) -> dict[str, Draft]:
    """One valid draft of every kind, and one more outcome whose subject names its outputs."""
    key = {"algorithm": "ed25519", "publicKey": HASH}
    now = format_instant(NOW_MS)
    genesis = {
        "format": 1,
        "createdOn": now,
        "keys": {"root": key, "log": key, "receipt": key},
        "policy": {"sha256": HASH},
        "schemas": [{"name": "receipt.v1", "sha256": HASH}],
        "continues": None,
    }
    ref = {"index": 4, "leafHash": HASH}
    revoked = {"role": "receipt", "key": key, "reason": "lost", "suspectFromIndex": 3, "revokedOn": now}
    uses = tuple(FileUse(name, f"/srv/work/{name}", FileDigest(1, HASH)) for name in ("a.txt", "out/b.txt"))
    return {
        "genesis": Draft("genesis", genesis),
        "intent": Draft("intent", an_intent()),
        "outcome": an_outcome(),
        "outcome with outputs": an_outcome(outputs=uses),
        "denied": a_denial(),
        "gap": Draft("gap", {"reason": "orphaned", "intent": ref, "foundOn": now}),
        "policyAdopted": Draft("policyAdopted", {"policy": {"sha256": HASH}, "adoptedOn": now}),
        "keyAdded": Draft("keyAdded", {"role": "receipt", "key": key, "addedOn": now}),
        "keyRevoked": Draft("keyRevoked", revoked),
    }
