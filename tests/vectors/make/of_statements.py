"""Cases about payloads: each kind once, and what no kind allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.vectors.make import drafts
from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.drafts import failure, outcome, place
from tests.vectors.make.spec import RECEIPT, SECOND, Json, canonical, sha256, statement

_REF = {"index": 1, "leafHash": "f" * 64}
_OUTPUTS = [{"name": "out.txt", "size": 3, "sha256": "2" * 64}, {"name": "a/b.txt", "size": 0, "sha256": "3" * 64}]
_INTENT = drafts.intent() | place(1, "9" * 64)
_OUTCOME = outcome() | place(2, "9" * 64)
_DENIED = drafts.denied() | place(3, "9" * 64)
_GENESIS = drafts.genesis() | place(0)


def _case(name: str, says: str, payload: bytes, expected: Json) -> Case:
    return Case(f"statement-{name}", "statement", says, {"file": "payload.json"}, {"payload.json": payload}, expected)


def _good(name: str, says: str, kind: str, predicate: Json) -> Case:
    made = statement(kind, predicate)
    return _case(
        name, says, canonical(made), accepted(statementKind=kind, subjects=[s["name"] for s in made["subject"]])
    )


def cases() -> Iterator[Case]:
    yield _good("genesis", "a genesis", "genesis", _GENESIS)
    last = {"origin": "example.com/old", "size": 7, "rootHash": "5" * 64, "loss": "known", "lostEntries": 2}
    yield _good("genesis-continues", "a genesis that names a predecessor", "genesis", _GENESIS | {"continues": last})
    yield _good("intent", "an intent", "intent", _INTENT)
    summary = {"count": 70, "sha256": "7" * 64}
    yield _good("intent-summary", "a list as count and digest", "intent", _INTENT | {"inputs": summary})
    yield _good("outcome", "a success", "outcome", _OUTCOME)
    yield _good("outcome-outputs", "a success names its outputs", "outcome", _OUTCOME | {"outputs": _OUTPUTS})
    yield _good("outcome-failed", "a failure names its predicate", "outcome", _OUTCOME | failure())
    unread = failure(status="incomplete", byproducts=None, containment=None, durationMs=None)
    yield _good("outcome-incomplete", "an end of which little is known", "outcome", _OUTCOME | unread)
    yield _good("denied", "a refusal", "denied", _DENIED)
    merged = {"count": 40, "request": None, "rule": "various.policy", "found": None, "backend": None}
    yield _good("denied-merged", "forty refusals in one entry", "denied", _DENIED | merged)
    yield _good("gap", "a gap about an intent", "gap", drafts.gap(_REF) | place(2, "9" * 64))
    yield _good("gap-about-nothing", "a gap about no intent", "gap", drafts.gap(None) | place(2, "9" * 64))
    yield _good("policy-adopted", "another policy", "policyAdopted", drafts.policy_adopted() | place(2, "9" * 64))
    yield _good("key-added", "another key", "keyAdded", drafts.key_added(SECOND) | place(2, "9" * 64))
    yield _good("key-revoked", "a key that is gone", "keyRevoked", drafts.key_revoked(RECEIPT, 1) | place(2, "9" * 64))
    for name, (says, payload) in {**_frames(), **_subjects(), **_members()}.items():
        yield _case(name, says, payload, rejected(40))


def _frames() -> dict[str, tuple[str, bytes]]:
    made = statement("denied", _DENIED)
    return {
        "unknown-kind": ("a kind that does not exist", canonical(made | {"predicateType": "urn:govrun:note:v1"})),
        "next-version": ("a version that does not exist", canonical(made | {"predicateType": "urn:govrun:denied:v2"})),
        "other-kind": ("the predicate of another kind", canonical(statement("gap", _DENIED))),
        "other-type": ("another _type", canonical(made | {"_type": "https://in-toto.io/Statement/v0.1"})),
        "unknown-member": ("a member of no Statement", canonical(made | {"extra": None})),
        "no-subject": ("a Statement without subject", canonical({k: v for k, v in made.items() if k != "subject"})),
        "not-canonical": ("a payload with a space", canonical(made).replace(b":", b": ", 1)),
        "line-break": ("a payload with a line break", canonical(made) + b"\n"),
        "too-large": ("a payload of 32,769 bytes", _padded(32_769)),
    }


def _padded(size: int) -> bytes:
    """An intent of exactly so many bytes that is wrong in nothing else."""
    words = ["w" * 4096] * 7
    made = statement("intent", _INTENT | {"template": _INTENT["template"] | {"argv": [*words, ""]}})
    words.append("w" * (size - len(canonical(made))))
    made = statement("intent", _INTENT | {"template": _INTENT["template"] | {"argv": words}})
    payload = canonical(made)
    assert (size, True) == (len(payload), len(words[-1]) <= 4096)
    return payload


def _subjects() -> dict[str, tuple[str, bytes]]:
    success = statement("outcome", _OUTCOME | {"outputs": _OUTPUTS})
    failed = statement("outcome", _OUTCOME | failure(outputs=_OUTPUTS))
    bare = {name: value for name, value in success["predicate"].items() if name != "ledger"}
    whole = [{"name": "predicate", "digest": {"sha256": sha256(canonical(bare)).hex()}}]
    denied = statement("denied", _DENIED)
    with_ledger = [{"name": "predicate", "digest": {"sha256": sha256(canonical(_DENIED)).hex()}}]
    return {
        "failure-names-outputs": (
            "a failure whose subject is the output file",
            canonical(failed | {"subject": success["subject"]}),
        ),
        "success-hides-outputs": ("a success whose subject is the predicate", canonical(success | {"subject": whole})),
        "outputs-in-another-order": (
            "subjects in another order than the outputs",
            canonical(success | {"subject": success["subject"][::-1]}),
        ),
        "one-subject-more": (
            "a subject that is no output",
            canonical(success | {"subject": [*success["subject"], *whole]}),
        ),
        "other-subject-digest": (
            "a digest of other bytes",
            canonical(denied | {"subject": [{"name": "predicate", "digest": {"sha256": "0" * 64}}]}),
        ),
        "subject-over-position": (
            "a digest of the predicate with its position",
            canonical(denied | {"subject": with_ledger}),
        ),
        "second-digest": (
            "a digest beside sha256",
            canonical(
                denied
                | {"subject": [{**denied["subject"][0], "digest": {**denied["subject"][0]["digest"], "md5": ""}}]}
            ),
        ),
    }


def _members() -> dict[str, tuple[str, bytes]]:
    """Predicates that do not fit the table of their kind."""
    found: dict[str, tuple[str, bytes]] = {}

    def bad(name: str, says: str, kind: str, predicate: Json) -> None:
        found[name] = (says, canonical(statement(kind, predicate)))

    def named(name: str) -> list[Json]:
        return [{"role": "data", "name": name, "size": 1, "sha256": "2" * 64, "coverage": "byPath"}]

    def position(**changes: Any) -> Json:
        return _DENIED | {"ledger": _DENIED["ledger"] | changes}

    bad("unknown-in-predicate", "a member of no predicate", "denied", _DENIED | {"extra": 1})
    bad(
        "missing-in-predicate",
        "a predicate without count",
        "denied",
        {k: v for k, v in _DENIED.items() if k != "count"},
    )
    bad("no-position", "a predicate without position", "denied", {k: v for k, v in _DENIED.items() if k != "ledger"})
    bad("negative-index", "a negative index", "denied", position(index=-1))
    bad("index-as-text", "an index that is a string", "denied", position(index="3"))
    bad("short-previous", "a leaf hash of 63 digits", "denied", position(previous="9" * 63))
    bad("capital-previous", "a leaf hash in capitals", "denied", position(previous="A" * 64))
    bad("space-in-origin", "an origin with a space", "denied", position(origin="example.com/a b"))
    bad("plus-in-origin", "an origin with a plus", "denied", position(origin="example.com/a+b"))
    bad("absolute-path", "an absolute path", "intent", _INTENT | {"resolvedDependencies": named("/etc/passwd")})
    bad("backslash", "a path with backslashes", "intent", _INTENT | {"resolvedDependencies": named("C:\\secret")})
    bad("home-path", "a path below a home", "intent", _INTENT | {"resolvedDependencies": named("~/secret")})
    bad("control-in-name", "a line break in a file name", "intent", _INTENT | {"outputs": ["a\nb"]})
    bad(
        "absolute-output", "an absolute output", "outcome", _OUTCOME | {"outputs": [_OUTPUTS[0] | {"name": "/out.txt"}]}
    )
    bad("agent-with-line-break", "an agent with a line break at its end", "intent", _INTENT | {"agent": "ci\n"})
    bad("agent-with-space", "an agent with a space", "intent", _INTENT | {"agent": "the ci"})
    bad("instant-without-milliseconds", "seconds only", "denied", _DENIED | {"deniedOn": "2026-11-22T12:00:00Z"})
    bad(
        "instant-with-offset",
        "another zone than UTC",
        "denied",
        _DENIED | {"deniedOn": "2026-11-22T12:00:00.000+00:00"},
    )
    bad("month-thirteen", "a month that does not exist", "denied", _DENIED | {"deniedOn": "2026-13-22T12:00:00.000Z"})
    bad("free-text", "a sentence where a token stands", "denied", _DENIED | {"found": 'it\'s "wrong"; see /var/log'})
    bad("exit-code-of-a-run", "a refusal with the exit code of a run", "denied", _DENIED | {"exitCode": 20})
    bad("no-refusals", "a refusal that stands for none", "denied", _DENIED | {"count": 0})
    bad("success-with-error", "a success with an error", "outcome", _OUTCOME | {"error": failure()["error"]})
    bad("failure-without-error", "a failure without an error", "outcome", _OUTCOME | failure(error=None))
    bad("success-without-facts", "a success without facts", "outcome", _OUTCOME | {"facts": None})
    changed = {"status": "changed", "changed": ["model.gguf"]}
    bad(
        "success-with-changed-files",
        "a success over changed files",
        "outcome",
        _OUTCOME | {"dependenciesAfter": changed},
    )
    bad("unknown-status", "a status that does not exist", "outcome", _OUTCOME | {"status": "skipped"})
    bad("exit-code-256", "an exit code of 256", "outcome", _OUTCOME | {"exit": {"code": 256, "signal": None}})
    bad(
        "plain-commitment",
        "an algorithm that nobody knows",
        "intent",
        _INTENT | {"prompt": {**drafts.commitment(), "algorithm": "md5"}},
    )
    bad(
        "seventeen-links",
        "more links than there may be",
        "intent",
        _INTENT | {"links": [{**_REF, "relation": "replayOf"}] * 17},
    )
    bad(
        "unknown-relation",
        "a relation that does not exist",
        "intent",
        _INTENT | {"links": [{**_REF, "relation": "seeAlso"}]},
    )
    bad(
        "failed-check",
        "a check that failed, in an intent",
        "intent",
        _INTENT | {"preflight": [{"id": "a.b", "status": "failed"}]},
    )
    bad(
        "no-limit",
        "an intent without a time limit",
        "intent",
        _INTENT | {"limits": _INTENT["limits"] | {"wallMs": None}},
    )
    bad("next-format", "a ledger of format 2", "genesis", _GENESIS | {"format": 2})
    bad(
        "other-algorithm",
        "a key that is not Ed25519",
        "genesis",
        _GENESIS | {"keys": _GENESIS["keys"] | {"log": {"algorithm": "rsa", "publicKey": "1" * 64}}},
    )
    bad(
        "short-key",
        "a key of 31 bytes",
        "keyAdded",
        drafts.key_added(SECOND) | {"key": {"algorithm": "ed25519", "publicKey": "1" * 62}} | place(1, "9" * 64),
    )
    bad("log-key-added", "a log key cannot be added", "keyAdded", drafts.key_added(SECOND, "log") | place(1, "9" * 64))
    bad("unknown-reason", "a gap for no known reason", "gap", drafts.gap(None, reason="holiday") | place(1, "9" * 64))
    bad(
        "suspect-from-minus-one", "a negative index", "keyRevoked", drafts.key_revoked(RECEIPT, -1) | place(1, "9" * 64)
    )
    return found
