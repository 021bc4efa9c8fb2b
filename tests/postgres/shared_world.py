"""A ledger in PostgreSQL that is valid by default, machines that write to it, and a child process that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from govrun.errors import GovrunError
from govrun.ledger.append import Appended, Writer
from govrun.ledger.guard import Guard
from govrun.ledger.postgres import PostgresStore, open_store
from govrun.ledger.postgres_form import create_form
from tests.ledger.ledger_world import LOG, ORIGIN, RECEIPT, REPOSITORY, Child, denied, genesis, world
from tests.postgres.cluster import Cluster

WAIT_MS = 10_000


class Machine:
    """A machine whose writer logs in as one role: a directory for what lies beside the ledger, and the heads seen."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.top = directory
        self.directory = directory / "home"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.guard = Guard(directory / "heads", LOG.verifier, world())

    def store(self, wait_ms: int = WAIT_MS) -> PostgresStore:
        return open_store(self.url, self.directory, world(), wait_ms)

    @contextmanager
    def writer(self, wait_ms: int = WAIT_MS) -> Iterator[Writer]:
        with self.store(wait_ms) as store:
            if not store.origin:
                store.begin(ORIGIN)
            yield Writer(store, RECEIPT, LOG, self.guard)


class Shared:
    """One database with a ledger, whose writers hold the log key unless it says otherwise."""

    def __init__(self, cluster: Cluster, name: str, directory: Path, *, writers_sign: bool = True) -> None:
        self.cluster = cluster
        self.name = name
        self.directory = directory
        cluster.run("postgres", f"CREATE DATABASE {name}")
        with cluster.admin(name) as link:
            create_form(link, writers_sign=writers_sign)
        for user, role in (("anna", "writer"), ("ben", "writer"), ("sue", "sequencer"), ("rita", "reader")):
            cluster.run(name, f"CREATE ROLE {name}_{user} LOGIN IN ROLE {name}_{role}")

    def url(self, user: str) -> str:
        return self.cluster.url(f"{self.name}_{user}", self.name)

    def machine(self, user: str = "anna", place: str | None = None) -> Machine:
        return Machine(self.url(user), self.directory / (place or user))

    def create(self) -> Appended:
        with self.machine().writer() as writer:
            return writer.append([genesis()])[0]


def child_main() -> None:
    """What a child does, by its first argument; it says `ready`, and then one line for each acknowledged entry."""
    what, url, directory, *rest = sys.argv[1:]
    machine = Machine(url, Path(directory))
    if what == "append":
        _say("ready")
        _append_on(machine, int(rest[0]))
    elif what == "hold":
        with machine.writer(int(rest[0])) as writer, writer.store.hold():
            _say("ready")
            sys.stdin.readline()
    elif what == "lease":
        with machine.store() as store, store.leases.acquire(rest[0]):
            _say("ready")
            sys.stdin.readline()
    elif what == "recover":
        from govrun.ledger.recovery import recover

        with machine.writer() as writer:
            found = recover(writer)
            _say(f"{len(found.outcomes)} {len(found.gaps)}")
    else:
        raise SystemExit(what)


def _append_on(machine: Machine, count: int) -> None:
    """Append until so many are acknowledged, through whatever happens to the server; each refusal is told too."""
    done = 0
    while done < count:
        try:
            with machine.writer() as writer:
                while done < count:
                    try:
                        appended = writer.append([denied(done + 1)])[0]
                    except GovrunError as error:
                        _say(f"refused {error.rule} {json.dumps(error.effect)}")
                        continue
                    done += 1
                    _say(f"{appended.index} {appended.leaf_hash}")
        except GovrunError as error:
            _say(f"closed {error.rule}")


def _say(line: str) -> None:
    # One write, so that a killed child leaves whole lines only.
    os.write(1, f"{line}\n".encode())


class Worker(Child):
    """A process of its own that works on a shared ledger."""

    def __init__(self, machine: Machine, what: str, *rest: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, what, machine.url, str(machine.top), *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )


if __name__ == "__main__":
    child_main()
