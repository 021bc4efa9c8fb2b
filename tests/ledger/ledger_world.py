"""A ledger that is valid by default, the receipts in it, and a child process that appends to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from govrun.ledger.append import Appended, Writer, create_ledger
from govrun.ledger.group import GroupWriter
from govrun.ledger.guard import Guard
from govrun.ledger.merkle import Frontier, leaf_hash
from govrun.ledger.read import open_ledger
from govrun.ledger.sqlite import Connect, SqliteStore, connect_sqlite, open_store
from govrun.receipt import Draft, parse_statement
from govrun.signing.dsse import parse_envelope, verify_envelope
from govrun.signing.keys import signer_from_seed
from govrun.signing.note import parse_note
from govrun.world import World

ORIGIN = "example.com/ledger"
LOG = signer_from_seed(ORIGIN, b"l" * 32)
RECEIPT = signer_from_seed(ORIGIN + "/receipt", b"r" * 32)
ROOT = signer_from_seed(ORIGIN + "/root", b"o" * 32)
REPOSITORY = Path(__file__).parents[2]
NOW = "2026-11-22T12:00:00.000Z"
SHA = "ab" * 32


def world() -> World:
    """A fixed wall clock; deadlines and ids are real, since real processes wait for each other."""
    return World(now_ms=lambda: 1_795_348_800_000, monotonic_ns=time.monotonic_ns, random_bytes=os.urandom, environ={})


def key(signer: Any) -> dict[str, str]:
    return {"algorithm": "ed25519", "publicKey": signer.verifier.public.hex()}


def genesis() -> Draft:
    return Draft(
        "genesis",
        {
            "format": 1,
            "createdOn": NOW,
            "keys": {"root": key(ROOT), "log": key(LOG), "receipt": key(RECEIPT)},
            "policy": {"sha256": SHA},
            "schemas": [{"name": "receipt.v1", "sha256": SHA}],
            "continues": None,
        },
    )


def commitment(size: int = 11) -> dict[str, Any]:
    return {"algorithm": "hmacSha256", "digest": SHA, "size": size}


def intent(invocation_id: str, request_id: str | None = None) -> Draft:
    return Draft(
        "intent",
        {
            "invocationId": invocation_id,
            "request": {"id": request_id, "commitment": commitment()},
            "links": [],
            "backend": {"name": "bitnet", "distribution": "govrun", "version": "0.1.0", "interface": 1},
            "task": "lint",
            "agent": "ci@example.com",
            "policy": {"sha256": SHA},
            "settings": {"sha256": SHA},
            "parameters": [{"name": "threads", "value": "4", "origin": "default"}],
            "prompt": commitment(),
            "template": {
                "name": "bitnet.run",
                "sha256": SHA,
                "argv": ["<python>", "<run_inference.py>", "-m", "<model.gguf>", "-p", "{prompt}"],
                "arguments": [],
            },
            "resolvedDependencies": [
                {"role": role, "name": name, "size": 123_456, "sha256": SHA, "coverage": "byPath"}
                for role, name in (("model", "model.gguf"), ("script", "run_inference.py"), ("binary", "llama-cli"))
            ],
            "inputs": [],
            "outputs": [],
            "okExit": [0],
            "preflight": [{"id": f"bitnet.check{n}", "status": "passed"} for n in range(8)],
            "limits": {
                "wallMs": 60_000,
                "cpuMs": None,
                "memoryBytes": None,
                "stdoutBytes": 1 << 20,
                "stderrBytes": 1 << 20,
            },
            "isolation": {"level": "group", "required": False},
            "determinism": {
                "level": "seeded",
                "seed": 1,
                "temperature": "0",
                "batch": None,
                "threads": 4,
            },
            "startedOn": NOW,
            "deadlineOn": NOW,
        },
    )


def outcome(invocation_id: str, index: int, leaf_hash_hex: str) -> Draft:
    stream = {"commitment": commitment(), "truncated": False}
    return Draft(
        "outcome",
        {
            "invocationId": invocation_id,
            "intent": {"index": index, "leafHash": leaf_hash_hex},
            "links": [],
            "status": "succeeded",
            "error": None,
            "exit": {"code": 0, "signal": None},
            "byproducts": {"stdout": stream, "stderr": stream},
            "outputs": [],
            "facts": {
                "text": commitment(),
                "promptTokens": 5,
                "generatedTokens": None,
                "finishReason": "stop",
                "seed": 1,
            },
            "usage": None,
            "cost": None,
            "dependenciesAfter": {"status": "unchanged", "changed": []},
            "containment": None,
            "durationMs": 12,
            "finishedOn": NOW,
        },
    )


def outcome_of(invocation_id: str, announced: Appended) -> Draft:
    return outcome(invocation_id, announced.index, announced.leaf_hash)


def denied(count: int = 1) -> Draft:
    return Draft(
        "denied",
        {
            "invocationId": "d" * 32,
            "request": None,
            "backend": "bitnet",
            "task": None,
            "agent": None,
            "policy": {"sha256": SHA},
            "stage": "policy",
            "rule": "policy.backend",
            "exitCode": 11,
            "found": "bitnet",
            "expected": None,
            "count": count,
            "firstOn": NOW,
            "deniedOn": NOW,
        },
    )


def gap(reason: str = "restored", about: dict[str, Any] | None = None) -> Draft:
    return Draft("gap", {"reason": reason, "intent": about, "foundOn": NOW})


def invocation(n: int) -> str:
    return f"{n:032x}"


class Home:
    """One `.govrun` directory and the heads directory beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "home"
        self.path = self.directory / "ledger.sqlite"
        self.heads = directory / "heads"

    def guard(self) -> Guard:
        return Guard(self.heads, LOG.verifier, world())

    def create(self) -> Appended:
        return create_ledger(self.path, genesis(), RECEIPT, LOG, self.guard(), world())

    def store(self, wait_ms: int = 10_000, connect: Connect = connect_sqlite) -> SqliteStore:
        return open_store(self.path, world(), wait_ms, connect)

    @contextmanager
    def writer(self, wait_ms: int = 10_000, connect: Connect = connect_sqlite) -> Iterator[Writer]:
        with self.store(wait_ms, connect) as store:
            yield Writer(store, RECEIPT, LOG, self.guard())

    def group(self, lock_ms: int = 10_000, wait_ms: int = 10_000, **limits: int) -> GroupWriter:
        """One for many threads; lock_ms: how long it waits for other processes, wait_ms: how long callers for room."""
        return GroupWriter(
            lambda: Writer(self.store(lock_ms), RECEIPT, LOG, self.guard()), world(), wait_ms=wait_ms, **limits
        )

    def size(self) -> int:
        return verified_size(self.path)


def verified_size(location: Path) -> int:
    """The number of entries, once every leaf, hash, chain link, column and signature has been checked."""
    from govrun.ledger.checkpoint import verify_checkpoint
    from govrun.ledger.entry import columns_of

    reader = open_ledger(location)
    try:
        note = reader.checkpoint()
        assert note is not None
        head = verify_checkpoint(note, ORIGIN, [LOG.verifier]).checkpoint
        assert (reader.origin, reader.size) == (ORIGIN, head.size)
        frontier = Frontier()
        previous = "0" * 64
        computed: list[bytes] = []
        for batch in reader.leaves(0, reader.size):
            for leaf in batch:
                statement = parse_statement(verify_envelope(leaf, [RECEIPT.verifier]).payload)
                assert statement.position.index == frontier.size
                assert statement.position.previous == previous
                columns = reader.columns(frontier.size, frontier.size + 1)
                assert columns is None or columns == (columns_of(statement),)
                previous = leaf_hash(leaf).hex()
                computed += frontier.append(leaf_hash(leaf))
        assert frontier.size == head.size
        assert frontier.root() == head.root
        assert list(reader.hashes(range(len(computed)))) == computed
        for size, stored in reader.checkpoints(0, head.size):
            assert verify_checkpoint(stored, ORIGIN, [LOG.verifier]).checkpoint.size == size
        return head.size
    finally:
        reader.close()


def payloads(location: Path) -> list[dict[str, Any]]:
    """The predicates of all entries, in order."""
    reader = open_ledger(location)
    found = [
        json.loads(parse_envelope(leaf).payload)["predicate"] | {"kind": _kind(leaf)}
        for batch in reader.leaves(0, reader.size)
        for leaf in batch
    ]
    reader.close()
    return found


def _kind(leaf: bytes) -> str:
    return str(json.loads(parse_envelope(leaf).payload)["predicateType"]).split(":")[2]


def tree_size(note: bytes) -> int:
    return int(parse_note(note).text.split(b"\n")[1])


# What a child does, by its first argument; it says `ready`, and then one line for each acknowledged entry.
def child_main() -> None:
    what, directory, *rest = sys.argv[1:]
    home = Home(Path(directory))
    if what == "append":
        with home.writer() as writer:
            _say("ready")
            for n in range(int(rest[0])):
                appended = writer.append([denied(n + 1)])[0]
                _say(f"{appended.index} {appended.leaf_hash}")
    elif what == "group":
        import threading

        def lines(group: GroupWriter, caller: int) -> None:
            for n in range(100_000):
                appended = group.append([denied(caller * 100_000 + n + 1)])[0]
                _say(f"{appended.index} {appended.leaf_hash}")

        with home.group() as group:
            _say("ready")
            threads = [threading.Thread(target=lines, args=(group, n)) for n in range(int(rest[0]))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    elif what == "hold":
        with home.writer() as writer:
            for n in range(int(rest[0]) if rest else 0):
                writer.append([denied(n + 1)])
            with writer.store.hold():
                _say("ready")
                sys.stdin.readline()
    elif what == "open":
        with home.writer() as writer:
            for n in range(int(rest[0])):
                writer.append([denied(n + 1)])
            _say("ready")
            sys.stdin.readline()
    elif what == "recover":
        from govrun.ledger.recovery import recover

        with home.writer() as writer:
            _say("ready")
            sys.stdin.readline()
            found = recover(writer)
            _say(f"{len(found.outcomes)} {len(found.gaps)}")
    elif what == "lease":
        from govrun.ledger.lease import LEASES_DIRECTORY, acquire

        with acquire(home.directory / LEASES_DIRECTORY, rest[0]):
            _say("ready")
            sys.stdin.readline()
    else:
        raise SystemExit(what)


def _say(line: str) -> None:
    # One write, so that a killed child leaves whole lines only.
    os.write(1, f"{line}\n".encode())


class Child:
    """A process of its own that works on a ledger."""

    def __init__(self, home: Home, what: str, *rest: str, wrapper: tuple[str, ...] = ()) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [*wrapper, sys.executable, __file__, what, str(home.directory.parent), *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ready(self) -> Child:
        line = self.out.readline()
        assert line == "ready\n", line
        return self

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> list[str]:
        """Let it end by itself; the lines it said since."""
        said, _ = self.process.communicate("\n", timeout=120)
        assert self.process.returncode == 0, said
        return said.splitlines()

    def kill(self) -> list[str]:
        self.process.kill()
        said, _ = self.process.communicate(timeout=60)
        return said.splitlines()


if __name__ == "__main__":
    child_main()
