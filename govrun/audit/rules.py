"""What must hold between entries: genesis, intents and their ends, claims, links, policies, the clock.

Everything is judged in the order of the ledger, entry by entry. What is kept is one byte for each entry, the intents
without an outcome, and 16 bytes for each request id that was claimed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Final

from govrun.audit.report import Counts, Finding, Level, Tally
from govrun.audit.terms import End, Terms, contradictions
from govrun.audit.workers import Facts
from govrun.errors import ExitCode
from govrun.frozen import frozen
from govrun.receipt import KINDS

# What an entry may be, as one byte: its kind, 0 if it could not be read; a bit for an intent that has an outcome, and
# one for an intent that a gap is about.
_NUMBER: Final = {kind: number for number, kind in enumerate(KINDS, 1)}
_INTENT: Final = _NUMBER["intent"]
_KIND: Final = 0x0F
_HAS_OUTCOME: Final = 0x10
_HAS_GAP: Final = 0x20


@frozen
class OpenIntent:
    """An intent without an outcome so far; leaf_hash in hex."""

    leaf_hash: str
    invocation_id: str
    deadline_on: str
    terms: Terms


class History:
    """The rules' state after the entries so far; give every entry to `add`, then call `close` once."""

    def __init__(self, tally: Tally, leaf_hash_at: Callable[[int], str | None]) -> None:
        self._tally = tally
        self._leaf_hash_at = leaf_hash_at
        self._entries = bytearray()
        self._open: dict[int, OpenIntent] = {}
        self._gaps: dict[int, OpenIntent] = {}
        self._invocations: set[str] = set()
        self._requests: set[bytes] = set()
        self._latest = ""
        self._policy: str | None = None
        self._kinds: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._refusals = 0

    def add(self, index: int, leaf_hash: bytes, facts: Facts | None) -> None:
        """Take the entry at the next index; facts None for one that could not be read."""
        self._entries.append(0 if facts is None else _NUMBER[facts.kind])
        self._check_genesis(index, facts)
        if facts is None:
            return
        self._kinds[facts.kind] += 1
        self._check_clock(index, facts)
        if facts.links:
            self._check_links(index, facts)
        match facts.kind:
            case "intent":
                self._announce(index, leaf_hash, facts)
            case "outcome":
                self._statuses[str(facts.status)] += 1
                self._close_intent(index, facts)
            case "gap":
                self._close_by_gap(index, facts)
            case "denied":
                self._refusals += facts.refusals
            case "genesis" | "policyAdopted":
                self._policy = facts.policy
            case _:
                # Key changes concern signatures only.
                pass

    @property
    def invocations(self) -> int:
        """How many intents there were."""
        return self._kinds["intent"]

    def _check_genesis(self, index: int, facts: Facts | None) -> None:
        if index == 0:
            self._tally.judge("genesis")
            if facts is not None and facts.kind != "genesis":
                self._error("genesis", "genesis.first", 0, "the ledger does not begin with its genesis", facts.kind)
        elif facts is not None and facts.kind == "genesis":
            self._error("genesis", "genesis.second", index, "a second genesis", "genesis", "at index 0 only")

    def _check_clock(self, index: int, facts: Facts) -> None:
        # All instants have one form, so they compare as text.
        if facts.stated_on < self._latest:
            self._tally.add(
                Finding(
                    "clock",
                    "clock.backwards",
                    "note",
                    index,
                    "the clock says less than before; order is by index, so nothing depends on it",
                    facts.stated_on,
                    f"at least {self._latest}",
                )
            )
        else:
            self._latest = facts.stated_on

    def _check_links(self, index: int, facts: Facts) -> None:
        for target, claimed in facts.links:
            self._tally.judge("links")
            found = self._leaf_hash_at(target) if target < index else None
            if found != claimed:
                self._error(
                    "links", "link.target", index, "a link leads to another entry", claimed[:16], (found or "none")[:16]
                )

    def _announce(self, index: int, leaf_hash: bytes, facts: Facts) -> None:
        invocation_id = str(facts.invocation_id)
        if invocation_id in self._invocations:
            self._error("requests", "intent.invocationId", index, "two open intents of one invocation", invocation_id)
        self._invocations.add(invocation_id)
        if facts.request_id is not None:
            claim = hashlib.sha256(facts.request_id.encode()).digest()[:16]
            if claim in self._requests:
                self._error("requests", "intent.requestId", index, "a request id is claimed twice", facts.request_id)
            self._requests.add(claim)
        if self._policy is not None and facts.policy != self._policy:
            self._tally.add(
                Finding(
                    "adopted",
                    "intent.policy",
                    "warning",
                    index,
                    "an invocation ran under a policy that the ledger had not adopted",
                    str(facts.policy)[:16],
                    self._policy[:16],
                )
            )
        assert isinstance(facts.terms, Terms)  # noqa: S101 - every intent has its terms
        self._open[index] = OpenIntent(leaf_hash.hex(), invocation_id, str(facts.deadline_on), facts.terms)

    def _close_intent(self, index: int, facts: Facts) -> None:
        intent = self._answered(index, facts, "outcome", _HAS_OUTCOME)
        if intent is None:
            return
        target, announced = intent
        if announced.invocation_id != facts.invocation_id:
            self._error(
                "outcomes",
                "outcome.invocationId",
                index,
                "an outcome is of another invocation than its intent",
                facts.invocation_id,
                announced.invocation_id,
            )
        assert isinstance(facts.terms, End)  # noqa: S101 - every outcome tells an end
        for c in contradictions(announced.terms, facts.terms):
            self._error("outcomes", c.rule, index, c.what, c.found, c.expected)
        self._entries[target] |= _HAS_OUTCOME
        # A gap that came before was wrong about the loss, not about the moment: the outcome was found later.
        self._forget(target, announced)
        self._gaps.pop(target, None)

    def _close_by_gap(self, index: int, facts: Facts) -> None:
        # A gap need not be about one intent: a pending outcome may be unreadable.
        if facts.intent is None:
            return
        intent = self._answered(index, facts, "gap", _HAS_OUTCOME | _HAS_GAP)
        if intent is not None:
            target, announced = intent
            self._entries[target] |= _HAS_GAP
            self._forget(target, announced)
            self._gaps[target] = announced

    def _forget(self, target: int, announced: OpenIntent) -> None:
        self._open.pop(target, None)
        self._invocations.discard(announced.invocation_id)

    def _answered(self, index: int, facts: Facts, kind: str, closed: int) -> tuple[int, OpenIntent] | None:
        """The intent that an outcome or a gap is about, if it may be about it."""
        assert facts.intent is not None  # noqa: S101 - the schema of outcomes and the caller see to it
        target, claimed = facts.intent
        if target >= index or self._entries[target] & _KIND not in (0, _INTENT):
            self._error(
                "outcomes", f"{kind}.intent", index, f"{kind} without an intent", f"entry {target}", "an intent"
            )
            return None
        if self._entries[target] & _KIND == 0:
            # The entry there could not be read, which is reported where it stands.
            return None
        if self._entries[target] & closed:
            what = "a second outcome for one intent" if kind == "outcome" else "a gap about an intent that has its end"
            self._error("outcomes", f"{kind}.second", index, what, f"intent {target}", "an intent without an end")
            return None
        announced = self._open.get(target) or self._gaps[target]
        if announced.leaf_hash != claimed:
            self._error(
                "outcomes",
                f"{kind}.leafHash",
                index,
                f"{kind} of another intent than the one at its index",
                claimed[:16],
                announced.leaf_hash[:16],
            )
            return None
        return target, announced

    def close(self, at: str | None, is_running: Callable[[str], bool | None] | None, is_complete: bool) -> Counts:
        """Judge the intents that are still open; the counts of the whole ledger.

        at: the instant to compare deadlines with. is_running: whether the lease of an invocation id is held.
        is_complete: whether an intent without an end whose process does not run is an error (evidence-incomplete).
        """
        for check in ("requests", "intents", "adopted"):
            self._tally.judge(check, self.invocations)
        self._tally.judge("outcomes", self._kinds["outcome"] + self._kinds["gap"])
        self._tally.judge("clock", self._kinds.total())
        running = orphaned = unknown = overdue = 0
        level: Level = "error" if is_complete else "warning"
        for index, announced in sorted([*self._open.items(), *self._gaps.items()]):
            late = at is not None and announced.deadline_on < at
            if index in self._gaps:
                orphaned += 1
                self._unended(
                    level,
                    "intent.orphaned",
                    index,
                    "a gap says that its outcome is lost; it may have run, effects unknown",
                    None,
                )
                continue
            alive = None if is_running is None else is_running(announced.invocation_id)
            overdue += late
            if alive:
                running += 1
                if late:
                    self._unended("warning", "intent.overdue", index, "it still runs, past its deadline", announced)
                else:
                    self._unended("note", "intent.running", index, "it runs now", announced)
            elif alive is False:
                orphaned += 1
                self._unended(
                    level,
                    "intent.orphaned",
                    index,
                    "its process is gone without a word; it may have run, effects unknown",
                    announced,
                )
            else:
                unknown += 1
                rule = "intent.overdue" if late else "intent.open"
                what = "no outcome, past its deadline" if late else "no outcome so far"
                self._unended(level, rule, index, f"{what}; it may have run, effects unknown", announced)
        return Counts(
            tuple(sorted(self._kinds.items())),
            tuple(sorted(self._statuses.items())),
            self._refusals,
            running,
            orphaned,
            unknown,
            overdue,
        )

    def _unended(self, level: Level, rule: str, index: int, what: str, announced: OpenIntent | None) -> None:
        self._tally.add(
            Finding(
                "intents",
                rule,
                level,
                index,
                what,
                None if announced is None else f"deadline {announced.deadline_on}",
                None,
                ExitCode.EVIDENCE_INCOMPLETE if level == "error" else None,
            )
        )

    def _error(
        self, check: str, rule: str, index: int, what: str, found: str | None = None, expected: str | None = None
    ) -> None:
        self._tally.add(Finding(check, rule, "error", index, what, found, expected, ExitCode.LEDGER_INCONSISTENT))
