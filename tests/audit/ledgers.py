"""A valid ledger of any content, from fixed keys and a fixed clock; tests break one thing in it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from govrun.audit.trust import TrustedKeys
from govrun.canonical import JsonObject
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint
from govrun.ledger.entry import IndexColumns, columns_of
from govrun.ledger.merkle import Frontier, leaf_hash
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.ledger.sqlite_form import create_form
from govrun.receipt import ZERO_HASH, Draft, Position, format_statement, parse_statement
from govrun.signing.dsse import format_envelope, parse_envelope, sign_envelope
from govrun.signing.keys import Ed25519Signer, signer_from_seed
from govrun.world import format_instant

ORIGIN = "example.com/ledger"
LOG = signer_from_seed(ORIGIN, b"\x01" * 32)
RECEIPT = signer_from_seed(f"{ORIGIN}/receipt", b"\x02" * 32)
ROOT = signer_from_seed(f"{ORIGIN}/root", b"\x03" * 32)
SECOND = signer_from_seed(f"{ORIGIN}/receipt", b"\x04" * 32)
STRANGER = signer_from_seed(ORIGIN, b"\x05" * 32)

TRUSTED = TrustedKeys(log=(LOG.verifier,), receipt=(RECEIPT.verifier,), root=(ROOT.verifier,), origin=ORIGIN)

START_MS = 1_795_348_800_000  # 2026-11-22T12:00:00Z
POLICY_DIGEST = "b" * 64


def at(second: int) -> str:
    """The instant so many seconds after the ledger began."""
    return format_instant(START_MS + 1000 * second)


def commitment(size: int = 5) -> JsonObject:
    return {"algorithm": "hmacSha256", "digest": "a" * 64, "size": size}


def public(signer: Ed25519Signer) -> JsonObject:
    return {"algorithm": "ed25519", "publicKey": signer.verifier.public.hex()}


def genesis(**changes: Any) -> Draft:
    predicate = {
        "format": 1,
        "createdOn": at(0),
        "keys": {"root": public(ROOT), "log": public(LOG), "receipt": public(RECEIPT)},
        "policy": {"sha256": POLICY_DIGEST},
        "schemas": [{"name": "receipt.v1", "sha256": "1" * 64}],
        "continues": None,
    }
    return Draft("genesis", {**predicate, **changes})


def intent(number: int, second: int = 1, request_id: str | None = None, **changes: Any) -> Draft:
    predicate = {
        "invocationId": f"{number:032x}",
        "request": {"id": request_id, "commitment": commitment(10)},
        "links": [],
        "backend": {"name": "bitnet", "distribution": "govrun", "version": "0.1.0", "interface": 1},
        "task": "route",
        "agent": "ci",
        "policy": {"sha256": POLICY_DIGEST},
        "settings": {"sha256": "c" * 64},
        "parameters": [
            {"name": name, "value": "1", "origin": "default"} for name in ("ctx", "nPredict", "seed", "temp", "threads")
        ],
        "prompt": commitment(44),
        "template": {
            "name": "bitnet.generate",
            "sha256": "d" * 64,
            "argv": ["<llama-cli>", "-m", "<model.gguf>", "-p", "{prompt}", "-n", "32", "-t", "4", "-temp", "0"],
            "arguments": [],
        },
        "resolvedDependencies": [
            {"role": role, "name": name, "size": 12345, "sha256": digest * 64, "coverage": "byPath"}
            for role, name, digest in (("model", "model.gguf", "e"), ("binary", "llama-cli", "f"))
        ],
        "inputs": [],
        "outputs": [],
        "okExit": [0],
        "preflight": [
            {"id": f"bitnet.{name}", "status": "passed"} for name in ("binary", "model.magic", "model.size", "script")
        ],
        "limits": {
            "wallMs": 60_000,
            "cpuMs": None,
            "memoryBytes": None,
            "stdoutBytes": 1 << 20,
            "stderrBytes": 1 << 20,
        },
        "isolation": {"level": "group", "required": False},
        "determinism": {"level": "deterministic", "seed": 1, "temperature": "0", "batch": 1, "threads": 1},
        "startedOn": at(second),
        "deadlineOn": at(second + 60),
    }
    return Draft("intent", {**predicate, **changes})


def outcome(number: int, index: int, intent_hash: str, second: int = 2, **changes: Any) -> Draft:
    predicate = {
        "invocationId": f"{number:032x}",
        "intent": {"index": index, "leafHash": intent_hash},
        "links": [],
        "status": "succeeded",
        "error": None,
        "exit": {"code": 0, "signal": None},
        "byproducts": {
            "stdout": {"commitment": commitment(5), "truncated": False},
            "stderr": {"commitment": commitment(0), "truncated": False},
        },
        "outputs": [],
        "facts": {
            "text": commitment(5),
            "promptTokens": None,
            "generatedTokens": None,
            "finishReason": None,
            "seed": 1,
        },
        "usage": {"cpuMs": 10, "maxRssBytes": None},
        "cost": None,
        "dependenciesAfter": {"status": "unchanged", "changed": []},
        "containment": {"level": "group", "parentDeathSignal": True, "subreaper": True, "leftovers": 0},
        "durationMs": 10,
        "finishedOn": at(second),
    }
    return Draft("outcome", {**predicate, **changes})


def denied(second: int = 3, count: int = 1, **changes: Any) -> Draft:
    predicate = {
        "invocationId": "f" * 32,
        "request": None,
        "backend": "bitnet",
        "task": None,
        "agent": None,
        "policy": {"sha256": POLICY_DIGEST},
        "stage": "policy",
        "rule": "policy.backend",
        "exitCode": 11,
        "found": "bitnet",
        "expected": "process",
        "count": count,
        "firstOn": at(second),
        "deniedOn": at(second),
    }
    return Draft("denied", {**predicate, **changes})


def gap(index: int | None, intent_hash: str | None, second: int = 4, reason: str = "orphaned") -> Draft:
    about = None if index is None else {"index": index, "leafHash": intent_hash}
    return Draft("gap", {"reason": reason, "intent": about, "foundOn": at(second)})


def policy_adopted(digest: str, second: int = 4) -> Draft:
    return Draft("policyAdopted", {"policy": {"sha256": digest}, "adoptedOn": at(second)})


def key_added(signer: Ed25519Signer, role: str = "receipt", second: int = 4) -> Draft:
    return Draft("keyAdded", {"role": role, "key": public(signer), "addedOn": at(second)})


def key_revoked(
    signer: Ed25519Signer, suspect_from: int | None, role: str = "receipt", reason: str = "compromised", second: int = 5
) -> Draft:
    predicate = {
        "role": role,
        "key": public(signer),
        "reason": reason,
        "suspectFromIndex": suspect_from,
        "revokedOn": at(second),
    }
    return Draft("keyRevoked", predicate)


@attrs.define
class Ledger:
    """Leaves, tree hashes and checkpoints in memory; anything can be put into it."""

    origin: str = ORIGIN
    leaves: list[bytes] = attrs.field(factory=list)
    notes: dict[int, bytes] = attrs.field(factory=dict)
    nodes: list[bytes] = attrs.field(factory=list)
    frontier: Frontier = attrs.field(factory=Frontier)
    log: Ed25519Signer = LOG

    def add(
        self, draft: Draft, *signers: Ed25519Signer, position: Position | None = None, checkpoint: bool = True
    ) -> int:
        """Append a draft as a writer would, or at another position; the index it stands at."""
        place = position or self.next_position()
        return self.add_payload(format_statement(draft, place), *signers, checkpoint=checkpoint)

    def add_payload(self, payload: bytes, *signers: Ed25519Signer, checkpoint: bool = True) -> int:
        return self.add_leaf(format_envelope(sign_envelope(payload, signers or (RECEIPT,))), checkpoint=checkpoint)

    def add_leaf(self, leaf: bytes, checkpoint: bool = True) -> int:
        self.leaves.append(leaf)
        self.nodes.extend(self.frontier.append(leaf_hash(leaf)))
        if checkpoint:
            self.sign()
        return len(self.leaves) - 1

    def sign(self) -> None:
        size = self.frontier.size
        self.notes[size] = sign_checkpoint(Checkpoint(self.log.verifier.name, size, self.frontier.root()), self.log)

    def next_position(self) -> Position:
        index = len(self.leaves)
        return Position(self.origin, index, self.hash_at(index - 1) if index else ZERO_HASH)

    def hash_at(self, index: int) -> str:
        return leaf_hash(self.leaves[index]).hex()

    def invoke(self, number: int, second: int = 1, **changes: Any) -> tuple[int, int]:
        """An intent and its outcome."""
        index = self.add(intent(number, second, **changes))
        return index, self.add(outcome(number, index, self.hash_at(index), second + 1))


class InMemory:
    """A ledger as a reader gives it, without a file; whatever is put into it is given."""

    def __init__(self, ledger: Ledger) -> None:
        self.origin = ledger.origin
        self.size = max(ledger.notes, default=0)
        self.all_leaves = list(ledger.leaves)
        self.nodes = list(ledger.nodes)
        self.notes = dict(ledger.notes)
        self.rows: list[IndexColumns | None] | None = None

    def checkpoint(self) -> bytes | None:
        return self.notes.get(self.size)

    def checkpoints(self, start: int, stop: int) -> Sequence[tuple[int, bytes]]:
        return [(size, note) for size, note in sorted(self.notes.items()) if start < size <= stop]

    def leaves(self, start: int, stop: int, batch: int = 2) -> Iterator[tuple[bytes, ...]]:
        for at in range(start, min(stop, len(self.all_leaves)), batch):
            yield tuple(self.all_leaves[at : min(stop, at + batch)])

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        return [self.nodes[position] for position in positions if position < len(self.nodes)]

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        return None if self.rows is None else self.rows[start:stop]

    def close(self) -> None:
        pass


def six() -> Ledger:
    """Genesis, an invocation, a refusal, and an invocation: six entries."""
    ledger = Ledger()
    ledger.add(genesis())
    ledger.invoke(1, 1)
    ledger.add(denied(3))
    ledger.invoke(2, 4)
    return ledger


def many(entries: int) -> Ledger:
    """A ledger of one genesis and invocations, one checkpoint per entry."""
    ledger = Ledger()
    ledger.add(genesis())
    while len(ledger.leaves) < entries:
        ledger.invoke(len(ledger.leaves), len(ledger.leaves))
    return ledger


_ROW = "INSERT INTO entry_index VALUES (?,?,?,?,?,?,?,?,?,?,?)"


def write_sqlite(ledger: Ledger, directory: Path) -> Path:
    """The ledger as a SQLite file in a directory of its own; entries that cannot be read get no index row."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        create_form(connection, ledger.origin)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO entry VALUES (?, ?)", enumerate(ledger.leaves))
        connection.executemany("INSERT INTO node VALUES (?, ?)", enumerate(ledger.nodes))
        connection.executemany("INSERT INTO checkpoint VALUES (?, ?)", ledger.notes.items())
        connection.execute("DROP INDEX entry_answer")
        connection.execute("DROP INDEX entry_request")
        connection.executemany(_ROW, _rows(ledger.leaves))
        # The indexes come back without their uniqueness holding for what a test forged.
        connection.execute("COMMIT")
        _restore_indexes(connection)
    path.chmod(0o600)
    return path


def _restore_indexes(connection: sqlite3.Connection) -> None:
    from govrun.ledger.sqlite_form import TABLES

    wanted = {name: sql for name, sql in TABLES if name in ("entry_answer", "entry_request")}
    try:
        for sql in wanted.values():
            connection.execute(sql)
    except sqlite3.IntegrityError:
        # What a test forged breaks the index, which an attacker would not mind either: write only its definition.
        connection.execute("PRAGMA writable_schema = ON")
        present = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        for name, sql in wanted.items():
            if name not in present:
                connection.execute(sql.replace("UNIQUE ", ""))
                connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, name))


def _rows(leaves: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    for index, leaf in enumerate(leaves):
        with contextlib.suppress(Exception):
            statement = parse_statement(parse_envelope(leaf).payload)
            yield (index, *columns_of(statement)[1:])


def write_published(ledger: Ledger, directory: Path) -> Path:
    """The ledger as published files."""
    source = open_ledger(write_sqlite(ledger, directory / "source"))
    publish(source, directory / "published", LOG.verifier)
    return directory / "published"
