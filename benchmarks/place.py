"""A govrun home of its own in a temporary directory, and ledgers of any size in it, made by the real writer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import govrun
from benchmarks.measure import Command
from govrun.api import open_ground
from govrun.audit.trust import TrustedKeys, trusted_by
from govrun.home import read_trust_files
from govrun.initialise import make_home
from govrun.ledger.append import DraftAt, Writer
from govrun.ledger.read import open_ledger
from govrun.receipt import Draft, Position, parse_statement
from govrun.settings import load_settings
from govrun.signing.dsse import parse_envelope
from govrun.world import World, real_world

# Entries of one commit where a ledger is built in groups; a run commits each of its two alone.
GROUP = 1_000
SALT = b"s" * 32


class Pattern(NamedTuple):
    """The two receipts of one real run, from which others are made: the intent's predicate and the outcome's draft."""

    intent: dict[str, Any]
    outcome: dict[str, Any]


class Place:
    """A home below a directory; nothing of the user's is read or written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / ".govrun"
        self.environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_STATE_HOME": str(directory / "state"),
            "GOVRUN_HOME": str(self.home),
            "LANG": "C.UTF-8",
        }
        self.world: World = real_world(self.environ)
        make_home(self.world, self.home, None, [("process", "govrun")])

    def command(self, *words: str) -> Command:
        """A command of the environment that this program runs in; the first word is its name there."""
        return Command((str(Path(sys.executable).with_name(words[0])), *words[1:]), self.environ, self.directory)

    @property
    def trusted(self) -> TrustedKeys:
        [trust] = read_trust_files(self.world)
        return trusted_by(trust)

    def pattern(self) -> Pattern:
        """Run `true` for real, and read its two receipts back."""
        done = govrun.run(
            backend="process", argv=("true",), cwd=str(self.directory), home=str(self.home), world=self.world
        )
        leaves = [leaf for leaf in self.leaves() if leaf]
        intent, outcome = (
            dict(parse_statement(parse_envelope(leaves[n]).payload).predicate)
            for n in (done.intent_index, done.outcome_index)
        )
        return Pattern(_without_place(intent), _without_place(outcome))

    def leaves(self) -> list[bytes]:
        reader = open_ledger(str(self.home / "ledger.sqlite"))
        try:
            return [leaf for batch in reader.leaves(0, reader.size) for leaf in batch]
        finally:
            reader.close()

    def grow_run_by_run(self, pattern: Pattern, size: int) -> None:
        """Append runs like the pattern until the ledger has so many entries, each entry in a commit of its own."""
        settings = load_settings(self.home, self.environ, {})
        with open_ground(self.world, settings) as ground:
            while ground.writer.store.size() < size:
                for draft in self._runs(pattern, 1):
                    ground.writer.append([draft])

    def grow(self, pattern: Pattern, size: int, together: int = GROUP) -> None:
        """Append runs like the pattern until the ledger has so many entries, so many of them in one commit."""
        settings = load_settings(self.home, self.environ, {})
        with open_ground(self.world, settings) as ground:
            while (missing := size - ground.writer.store.size()) > 0:
                drafts = self._runs(pattern, min(together, missing + missing % 2) // 2)
                ground.writer.append(drafts, salts=[SALT] * len(drafts))

    def _runs(self, pattern: Pattern, count: int) -> Sequence[Draft | DraftAt]:
        drafts: list[Draft | DraftAt] = []
        for _ in range(count):
            invocation_id = self.world.new_id()
            drafts.append(Draft("intent", {**pattern.intent, "invocationId": invocation_id}))
            drafts.append(_answer({**pattern.outcome, "invocationId": invocation_id}))
        return drafts


def intent_of(world: World, pattern: Pattern) -> Draft:
    """The intent of another run like the pattern."""
    return Draft("intent", {**pattern.intent, "invocationId": world.new_id()})


def settle(writer: Writer, pattern: Pattern) -> None:
    """Give every open intent its outcome, so that the ledger is whole again."""
    drafts = []
    for index, invocation_id in writer.store.open_intents():
        about = {"index": index, "leafHash": writer.leaf_hash_of(index)}
        drafts.append(Draft("outcome", {**pattern.outcome, "invocationId": invocation_id, "intent": about}))
    writer.append(drafts)


def _answer(predicate: dict[str, Any]) -> DraftAt:
    def decide(at: Position) -> Draft:
        # The entry before it is its intent.
        return Draft("outcome", {**predicate, "intent": {"index": at.index - 1, "leafHash": at.previous}})

    return decide


def _without_place(predicate: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in predicate.items() if name != "ledger"}
