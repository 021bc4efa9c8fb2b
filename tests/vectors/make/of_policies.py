"""Cases about policies: which files are one, and to what in an intent they object."""

from __future__ import annotations

from collections.abc import Iterator

from tests.vectors.make import drafts
from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.spec import Json, canonical

_INTENT = drafts.intent() | drafts.place(1, "9" * 64)
_MODEL = {"role": "model", "name": "model.gguf", "size": 9, "sha256": "2" * 64, "coverage": "byPath"}
_ENGINE = _INTENT | {
    "backend": {"name": "llamacpp", "distribution": "govrun", "version": "0.1.0", "interface": 1},
    "template": _INTENT["template"] | {"name": "llamacpp.generate"},
    "resolvedDependencies": [_MODEL],
    "prompt": drafts.commitment(100),
    "parameters": [{"name": "temperature", "value": "0.7", "origin": "option"}],
    "determinism": _INTENT["determinism"] | {"level": "seeded"},
}
_FREE = b"format = 1\n[backends.process]\nfreeArgv = true\n"
_ALLOWS = b"format = 1\n[backends.llamacpp]\n"


def _judged(name: str, says: str, policy: bytes, intent: Json, *objections: str) -> Case:
    files = {"policy.toml": policy, "intent.json": canonical(intent)}
    asks = {"policy": "policy.toml", "intent": "intent.json"}
    expected = rejected(42, objections=list(objections)) if objections else accepted(objections=[])
    return Case(f"policy-{name}", "policy", says, asks, files, expected)


def cases() -> Iterator[Case]:
    yield _judged("free-argv", "a command of the caller's own, which is allowed", _FREE, _INTENT)
    yield _judged("engine", "an engine without further rules", _ALLOWS, _ENGINE)
    yield from _objections()
    for name, (says, policy) in _FILES.items():
        asks = {"policy": "policy.toml", "intent": None}
        yield Case(f"policy-{name}", "policy", says, asks, {"policy.toml": policy}, rejected(11))


def _objections() -> Iterator[Case]:
    yield _judged(
        "other-backend", "a backend that the policy lacks", _ALLOWS, _INTENT, "policy.backend", "policy.freeArgv"
    )
    closed = b"format = 1\n[backends.process]\n"
    yield _judged("no-free-argv", "a command of the caller's own", closed, _INTENT, "policy.freeArgv")
    foreign = _INTENT | {"backend": _INTENT["backend"] | {"distribution": "other"}}
    yield _judged("other-distribution", "a backend of another package", _FREE, foreign, "policy.distribution")
    yield _judged("other-version", "another version", _ALLOWS + b'version = "0.2.0"\n', _ENGINE, "policy.version")
    yield _judged("task-required", "no task", b"requireTask = true\n" + _FREE, _INTENT, "policy.task")
    yield _judged(
        "other-agent", "an agent that is not in the list", b'agents = ["me"]\n' + _FREE, _INTENT, "policy.agent"
    )
    hot = b'[backends.llamacpp.parameters]\ntemperature = { maximum = "0.5" }\n'
    yield _judged("parameter-too-great", "0.7 where at most 0.5 is allowed", _ALLOWS + hot, _ENGINE, "policy.parameter")
    decimal = b'[backends.llamacpp.parameters]\ntemperature = { minimum = "0.70", maximum = "0.700" }\n'
    yield _judged("parameter-as-decimal", "bounds are compared as decimals", _ALLOWS + decimal, _ENGINE)
    unset = _ENGINE | {"parameters": [{"name": "temperature", "value": None, "origin": "engineDefault"}]}
    yield _judged(
        "parameter-unset", "the engine's own default does not count", _ALLOWS + hot, unset, "policy.parameter"
    )
    other = b'models = ["' + b"3" * 64 + b'"]\n'
    yield _judged("other-model", "a model that is not in the list", _ALLOWS + other, _ENGINE, "policy.model")
    none = _ENGINE | {"resolvedDependencies": [_MODEL | {"role": "data"}]}
    yield _judged(
        "no-model", "no model where one is demanded", _ALLOWS + other.replace(b"3", b"2"), none, "policy.model"
    )
    hidden = _ENGINE | {"resolvedDependencies": {"count": 70, "sha256": "7" * 64}}
    yield _judged(
        "model-in-summary",
        "a list as its digest, where the policy has to look into it",
        _ALLOWS + other,
        hidden,
        "policy.model",
    )
    pin = b'[backends.llamacpp.pins]\n"model.gguf" = "' + b"3" * 64 + b'"\n'
    yield _judged("other-pin", "a pinned file with another digest", _ALLOWS + pin, _ENGINE, "policy.pin")
    strict = _ALLOWS + b'determinism = "deterministic"\n'
    yield _judged("determinism", "seeded where deterministic is demanded", strict, _ENGINE, "policy.determinism")
    yield _judged(
        "prompt-size", "a prompt of 100 bytes", _ALLOWS + b"maxPromptBytes = 99\n", _ENGINE, "policy.promptSize"
    )
    yield _judged("limit", "a longer limit", _FREE + b"[limits]\nwallMs = 59999\n", _INTENT, "policy.limit")
    yield _judged("limit-not-set", "no limit", _FREE + b"[limits]\ncpuMs = 1000\n", _INTENT, "policy.limit")
    deep = b'containment = "pidNamespace"\n' + _FREE
    yield _judged("containment", "a weaker containment", deep, _INTENT, "policy.containment")
    both = b'requireTask = true\nagents = ["me"]\n' + closed
    rules = ("policy.task", "policy.agent", "policy.freeArgv")
    yield _judged("three-rules", "three objections, in the order of the rules", both, _INTENT, *rules)


_FILES: dict[str, tuple[str, bytes]] = {
    "empty": ("an empty file", b""),
    "comment-only": ("a file without rules", b"# nothing\n"),
    "no-backend": ("no backend", b"format = 1\n[backends]\n"),
    "unknown-key": ("a misspelt key", _FREE.replace(b"freeArgv", b"freeargv")),
    "next-format": ("format 2", _FREE.replace(b"format = 1", b"format = 2")),
    "not-toml": ("bytes that are no TOML", b"format: 1\n"),
    "not-utf8": ("bytes that are no UTF-8", _FREE + b"# \xff\n"),
    "no-value-fits": (
        "a minimum above the maximum",
        _ALLOWS + b'[backends.llamacpp.parameters]\nt = { minimum = "2", maximum = "1" }\n',
    ),
}
