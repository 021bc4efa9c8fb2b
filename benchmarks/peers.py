"""An intent and its outcome, each durable before it is acknowledged: govrun, Tracekit and witness-log in one loop.

Each side records the same call of a tool in two steps, before and after. What each does for that differs:

- govrun: two signed receipts of 2 to 3 kB, a tree and a checkpoint for each, read back, one sync each.
- Tracekit 1.4: `decide` and `complete` of its signer with `durability: ack-on-fsync`, which is not its default. The
  signer is a process of its own: two round trips through a socket, two signed records of about 1 kB; tree heads are
  signed later, in the background.
- witness-log 0.6: `append_intent` and `append_result` with `sync()` after each. Leaves are salted hashes and are not
  signed; a head is signed when somebody asks for it. A sync writes the journal and its salts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Rounds, Row, below, seconds
from benchmarks.place import Pattern, Place, intent_of
from govrun.api import open_ground
from govrun.receipt import Draft
from govrun.settings import load_settings

BLOCK = 5
_PATIENCE_S = 20.0

Pair = Callable[[int], object]


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """govrun's pair against that of each peer that is installed, and against two writes that are synced."""
    place = Place(directory)
    pattern = place.pattern()
    with ExitStack() as stack:
        works = [stack.enter_context(_govrun(place, pattern)), stack.enter_context(_raw(directory))]
        names = []
        for name, peer in (("Tracekit, decide + complete", _tracekit), ("witness-log, intent + result", _witness_log)):
            try:
                works.append(stack.enter_context(peer(directory)))
                names.append(name)
            except ImportError as missing:
                print(f"skipped: {missing.name} is not installed, so there is no row for {name}", file=sys.stderr)
        rounds = Rounds(10 if quick else 60, *(_in_a_block(work) for work in works))
    for at, name in enumerate(names, 2):
        yield below("intent + outcome, each durable", rounds, 0, at, "ms", name, 1)
    raw = f"{rounds.median(1):.3g} ms, twice write + fdatasync"
    yield Row("... against the disk", f"{rounds.median(0):.3g} ms", raw, rounds.ratio(0, 1), "", None)
    for at, name in enumerate(names, 2):
        yield Row(f"... {name}", f"{rounds.median(at):.3g} ms", raw, rounds.ratio(at, 1), "", None)


def _in_a_block(pair: Pair) -> Callable[[], float]:
    count = 0

    def work() -> None:
        nonlocal count
        for _ in range(BLOCK):
            count += 1
            pair(count)

    return lambda: 1e3 * seconds(work, "wall") / BLOCK


@contextmanager
def _govrun(place: Place, pattern: Pattern) -> Iterator[Pair]:
    with open_ground(place.world, load_settings(place.home, place.environ, {})) as ground:
        writer = ground.writer

        def pair(_: int) -> None:
            intent = intent_of(place.world, pattern)
            salt = place.world.random_bytes(32)
            (announced,) = writer.append([intent], salts=[salt])
            about = {"index": announced.index, "leafHash": announced.leaf_hash}
            named = {"invocationId": intent.predicate["invocationId"], "intent": about}
            writer.append([Draft("outcome", {**pattern.outcome, **named})], salts=[salt])

        yield pair


@contextmanager
def _raw(directory: Path) -> Iterator[Pair]:
    descriptor = os.open(directory / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def pair(_: int) -> None:
        for size in (3_000, 2_100):
            os.write(descriptor, bytes(size))
            os.fdatasync(descriptor)

    try:
        yield pair
    finally:
        os.close(descriptor)


@contextmanager
def _witness_log(directory: Path) -> Iterator[Pair]:
    import witness_log  # type: ignore[import-not-found, unused-ignore]

    log: Any = witness_log.open(str(directory / "agent.jsonl"))
    call, answer = b'{"tool":"process","argv":["true"]}', b'{"exit":0}'

    def pair(_: int) -> None:
        log.append_intent(call)
        log.sync()
        log.append_result(answer)
        log.sync()

    try:
        yield pair
    finally:
        log.close()


@contextmanager
def _tracekit(directory: Path) -> Iterator[Pair]:
    from tracekit.sdk.client import Client  # type: ignore[import-not-found, unused-ignore]

    socket = directory / "signer.sock"
    config = directory / "signer.yaml"
    config.write_text(f"data_dir: {directory / 'tracekit'}\nsocket: {socket}\ndurability: ack-on-fsync\n")
    argv = [str(Path(sys.executable).with_name("tracekit")), "signer", "serve", "--config", str(config)]
    environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory)}
    with (directory / "signer.log").open("wb") as said:
        signer = subprocess.Popen(argv, env=environ, cwd=directory, stdout=said, stderr=said)
    try:
        _wait_for(socket, signer)
        run: Any = Client(signer=str(socket)).run("bench")

        def pair(count: int) -> None:
            name = f"call-{count}"
            decided = run.decide(name, "Bash", {"command": "true"})
            assert (decided["decision"], "unavailable" in decided) == ("allow", False), decided
            assert run.complete(name) is not None

        yield pair
    finally:
        signer.terminate()
        signer.wait(_PATIENCE_S)


def _wait_for(socket: Path, signer: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not socket.exists():
        assert signer.poll() is None, "the signer ended"
        assert time.monotonic() < until, "the signer did not start in time"
        time.sleep(0.02)
