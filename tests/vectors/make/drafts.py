"""A small valid predicate of each kind, and a ledger in memory that places, signs and publishes them."""

from __future__ import annotations

from typing import Any

from tests.vectors.make.spec import (
    LOG,
    ORIGIN,
    RECEIPT,
    ROOT,
    ZEROS,
    Json,
    Key,
    canonical,
    envelope,
    head,
    leaf_hash,
    note,
    root,
    statement,
)

POLICY = "b" * 64


def instant(second: int) -> str:
    return f"2026-11-22T12:{second // 60:02}:{second % 60:02}.000Z"


def commitment(size: int = 5) -> Json:
    return {"algorithm": "hmacSha256", "digest": "a" * 64, "size": size}


def genesis(**changes: Any) -> Json:
    return {
        "format": 1,
        "createdOn": instant(0),
        "keys": {"root": ROOT.spelled, "log": LOG.spelled, "receipt": RECEIPT.spelled},
        "policy": {"sha256": POLICY},
        "schemas": [{"name": "receipt.v1", "sha256": "1" * 64}],
        "continues": None,
    } | changes


def intent(number: int = 1, second: int = 1, **changes: Any) -> Json:
    return {
        "invocationId": f"{number:032x}",
        "request": {"id": None, "commitment": commitment(10)},
        "links": [],
        "backend": {"name": "process", "distribution": "govrun", "version": "0.1.0", "interface": 1},
        "task": None,
        "agent": "ci",
        "policy": {"sha256": POLICY},
        "settings": {"sha256": "c" * 64},
        "parameters": [],
        "prompt": None,
        "template": {"name": "process.free", "sha256": "d" * 64, "argv": ["<true>"], "arguments": []},
        "resolvedDependencies": [
            {"role": "binary", "name": "true", "size": 12345, "sha256": "e" * 64, "coverage": "byPath"}
        ],
        "inputs": [],
        "outputs": [],
        "okExit": [0],
        "preflight": [{"id": "process.program", "status": "passed"}],
        "limits": {"wallMs": 60_000, "cpuMs": None, "memoryBytes": None, "stdoutBytes": 1024, "stderrBytes": 1024},
        "isolation": {"level": "group", "required": False},
        "determinism": {
            "level": "notApplicable",
            "seed": None,
            "temperature": None,
            "batch": None,
            "threads": None,
        },
        "startedOn": instant(second),
        "deadlineOn": instant(second + 60),
    } | changes


def outcome(number: int = 1, index: int = 1, intent_hash: str = "f" * 64, second: int = 2, **changes: Any) -> Json:
    stream = {"commitment": commitment(0), "truncated": False}
    return {
        "invocationId": f"{number:032x}",
        "intent": {"index": index, "leafHash": intent_hash},
        "links": [],
        "status": "succeeded",
        "error": None,
        "exit": {"code": 0, "signal": None},
        "byproducts": {"stdout": stream, "stderr": stream},
        "outputs": [],
        "facts": {
            "text": commitment(),
            "promptTokens": None,
            "generatedTokens": None,
            "finishReason": None,
            "seed": None,
        },
        "usage": {"cpuMs": 10, "maxRssBytes": None},
        "cost": None,
        "dependenciesAfter": {"status": "unchanged", "changed": []},
        "containment": {"level": "group", "parentDeathSignal": True, "subreaper": True, "leftovers": 0},
        "durationMs": 10,
        "finishedOn": instant(second),
    } | changes


def failure(**changes: Any) -> Json:
    """What an outcome of status failed has in the place of a success's members."""
    error = {"code": "process.exit", "exitCode": 20, "found": "1", "expected": "0"}
    return {"status": "failed", "error": error, "exit": {"code": 1, "signal": None}, "facts": None} | changes


def denied(second: int = 3, **changes: Any) -> Json:
    return {
        "invocationId": "f" * 32,
        "request": None,
        "backend": "bitnet",
        "task": None,
        "agent": None,
        "policy": {"sha256": POLICY},
        "stage": "policy",
        "rule": "policy.backend",
        "exitCode": 11,
        "found": "bitnet",
        "expected": "process",
        "count": 1,
        "firstOn": instant(second),
        "deniedOn": instant(second),
    } | changes


def gap(about: Json | None, second: int = 4, reason: str = "orphaned") -> Json:
    return {"reason": reason, "intent": about, "foundOn": instant(second)}


def policy_adopted(digest: str = "8" * 64, second: int = 4) -> Json:
    return {"policy": {"sha256": digest}, "adoptedOn": instant(second)}


def key_added(new: Key, role: str = "receipt", second: int = 4) -> Json:
    return {"role": role, "key": new.spelled, "addedOn": instant(second)}


def key_revoked(old: Key, suspect_from: int | None, role: str = "receipt", second: int = 5) -> Json:
    return {
        "role": role,
        "key": old.spelled,
        "reason": "compromised",
        "suspectFromIndex": suspect_from,
        "revokedOn": instant(second),
    }


def place(index: int, previous: str = ZEROS, origin: str = ORIGIN) -> Json:
    return {"ledger": {"origin": origin, "index": index, "previous": previous}}


class Ledger:
    """The leaves of a ledger; anything can be put into it."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    def add(self, kind: str, predicate: Json, *signers: Key, at: Json | None = None) -> int:
        """Append a predicate as a writer would, or with another position; its index."""
        index = len(self.leaves)
        position = at or place(index, self.hash_at(index - 1) if index else ZEROS)
        return self.add_payload(canonical(statement(kind, predicate | position)), *signers)

    def add_payload(self, payload: bytes, *signers: Key) -> int:
        self.leaves.append(envelope(payload, *(signers or (RECEIPT,))))
        return len(self.leaves) - 1

    def hash_at(self, index: int) -> str:
        return leaf_hash(self.leaves[index]).hex()

    def ref(self, index: int) -> Json:
        return {"index": index, "leafHash": self.hash_at(index)}

    def invoke(self, number: int, second: int = 1, intended: Json | None = None, ended: Json | None = None) -> int:
        """An intent and its outcome, each with changed members; the index of the intent."""
        index = self.add("intent", intent(number, second, **(intended or {})))
        self.add("outcome", outcome(number, index, self.hash_at(index), second + 1, **(ended or {})))
        return index

    @property
    def hashes(self) -> list[bytes]:
        return [leaf_hash(leaf) for leaf in self.leaves]

    def checkpoint(self, size: int | None = None, log: Key = LOG, origin: str = ORIGIN) -> bytes:
        size = len(self.leaves) if size is None else size
        return note(head(size, root(self.hashes[:size]), origin), log)


def begun() -> Ledger:
    ledger = Ledger()
    ledger.add("genesis", genesis())
    return ledger


def four() -> Ledger:
    """Genesis, an invocation, and a refusal."""
    ledger = begun()
    ledger.invoke(1)
    ledger.add("denied", denied(3))
    return ledger
