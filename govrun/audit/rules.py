"""What must hold between entries: genesis, intents and their ends, claims, links, policies, the clock.

Everything is judged in the order of the ledger, entry by entry. What is kept is one byte for each entry, the intents
without an outcome, and 16 bytes for each request id that was claimed. Of entries that a bookmark vouches for only the
latter two are needed, and come from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from govrun.audit.bookmark import Past, Waiting, claim_of, holds_claim, merge_claims
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

# What is told and demands nothing, by check: rule, level, what.
_TOLD: Final[dict[str, tuple[str, Level, str]]] = {
    "adopted": ("intent.policy", "warning", "an invocation ran under a policy that the ledger had not adopted"),
    "clock": (
        "clock.backwards",
        "note",
        "the clock says less than before; order is by index, so nothing depends on it",
    ),
}


@frozen
class OpenIntent:
    """An intent without an outcome so far; leaf_hash in hex, terms None where they stand in its leaf alone."""

    leaf_hash: str
    invocation_id: str
    deadline_on: str
    terms: Terms | None


class Earlier(Protocol):
    """Entries before the one that is judged; nothing is given that was not verified, or leads to what was."""

    def leaf_hash_at(self, index: int) -> str | None:
        """The leaf hash of an entry in hex, None if it cannot be had."""

    def kind_at(self, index: int) -> str | None:
        """The kind of an entry that a bookmark vouches for, None if it cannot be read any more."""

    def terms_at(self, index: int, leaf_hash: str) -> Terms | None:
        """The terms of an intent that a bookmark vouches for, None, and told, if it cannot be read any more."""


class History:
    """The rules' state after the entries so far; give every entry to `add`, then call `close` once."""

    def __init__(self, tally: Tally, earlier: Earlier, start: int = 0, past: Past | None = None) -> None:
        """past: what a bookmark says of the entries before start."""
        self._tally = tally
        self._earlier = earlier
        self._start = start
        self._past = past
        self._entries = bytearray()
        self._open = _opened(() if past is None else past.open)
        self._gaps = _opened(() if past is None else past.gaps)
        self._invocations = {one.invocation_id for one in self._open.values()}
        self._claims = b"" if past is None else past.claims
        self._requests: set[bytes] = set()
        self._latest = "" if past is None else past.latest
        self._policy = None if past is None else past.policy
        self._kinds: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._refusals = 0
        self._told: Counter[str] = Counter()

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
        """How many intents the whole ledger has."""
        return self._kinds["intent"] + (0 if self._past is None else dict(self._past.kinds).get("intent", 0))

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
            self._tell("clock", index, facts.stated_on, f"at least {self._latest}")
        else:
            self._latest = facts.stated_on

    def _check_links(self, index: int, facts: Facts) -> None:
        for target, claimed in facts.links:
            self._tally.judge("links")
            found = self._earlier.leaf_hash_at(target) if target < index else None
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
            claim = claim_of(facts.request_id)
            if claim in self._requests or holds_claim(self._claims, claim):
                self._error("requests", "intent.requestId", index, "a request id is claimed twice", facts.request_id)
            self._requests.add(claim)
        if self._policy is not None and facts.policy != self._policy:
            self._tell("adopted", index, str(facts.policy)[:16], self._policy[:16])
        assert isinstance(facts.terms, Terms)  # noqa: S101 - every intent has its terms
        self._open[index] = OpenIntent(leaf_hash.hex(), invocation_id, str(facts.deadline_on), facts.terms)

    def _tell(self, check: str, index: int, found: str, expected: str) -> None:
        """A finding that demands nothing, and that a bookmark counts."""
        rule, level, what = _TOLD[check]
        self._told[check] += 1
        self._tally.add(Finding(check, rule, level, index, what, found, expected))

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
        terms = announced.terms or self._earlier.terms_at(target, announced.leaf_hash)
        for c in () if terms is None else contradictions(terms, facts.terms):
            self._error("outcomes", c.rule, index, c.what, c.found, c.expected)
        self._mark(target, _HAS_OUTCOME)
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
            self._mark(target, _HAS_GAP)
            self._forget(target, announced)
            self._gaps[target] = announced

    def _forget(self, target: int, announced: OpenIntent) -> None:
        # Behind a gap its invocation id is free, and may be another intent's by now.
        if self._open.pop(target, None) is not None:
            self._invocations.discard(announced.invocation_id)

    def _mark(self, target: int, bit: int) -> None:
        if target >= self._start:
            self._entries[target - self._start] |= bit

    def _state(self, target: int) -> int:
        """What an earlier entry is: its kind and bits; 0 if it could not be read, which is told where it stands."""
        if target >= self._start:
            return self._entries[target - self._start]
        if target in self._open:
            return _INTENT
        if target in self._gaps:
            return _INTENT | _HAS_GAP
        # The bookmark knows every intent that waits, so this is none, or one that has its outcome.
        kind = self._earlier.kind_at(target)
        return _INTENT | _HAS_OUTCOME if kind == "intent" else _NUMBER[kind or "genesis"]

    def _answered(self, index: int, facts: Facts, kind: str, closed: int) -> tuple[int, OpenIntent] | None:
        """The intent that an outcome or a gap is about, if it may be about it."""
        assert facts.intent is not None  # noqa: S101 - the schema of outcomes and the caller see to it
        target, claimed = facts.intent
        state = 0 if target >= index else self._state(target)
        if target >= index or state & _KIND not in (0, _INTENT):
            self._error(
                "outcomes", f"{kind}.intent", index, f"{kind} without an intent", f"entry {target}", "an intent"
            )
            return None
        if state & _KIND == 0:
            # The entry there could not be read, which is reported where it stands.
            return None
        if state & closed:
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
        self._tell_past()
        for check in ("requests", "adopted"):
            self._tally.judge(check, self._kinds["intent"])
        self._tally.judge("intents", self._kinds["intent"] + self._waited())
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
        kinds, statuses, refusals = self._counted()
        return Counts(
            kinds,
            statuses,
            refusals,
            running,
            orphaned,
            unknown,
            overdue,
        )

    def past(self) -> Past:
        """What a bookmark keeps of all entries so far."""
        kinds, statuses, refusals = self._counted()
        told = Counter(dict(() if self._past is None else self._past.told)) + self._told
        return Past(
            _waiting(self._open),
            _waiting(self._gaps),
            merge_claims(self._claims, self._requests),
            self._latest,
            self._policy,
            kinds,
            statuses,
            refusals,
            tuple(sorted(told.items())),
        )

    def _counted(self) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...], int]:
        past = self._past
        kinds = self._kinds + Counter(dict(() if past is None else past.kinds))
        statuses = self._statuses + Counter(dict(() if past is None else past.statuses))
        refusals = self._refusals + (0 if past is None else past.refusals)
        return tuple(sorted(kinds.items())), tuple(sorted(statuses.items())), refusals

    def _waited(self) -> int:
        return 0 if self._past is None else len(self._past.open) + len(self._past.gaps)

    def _tell_past(self) -> None:
        """What was told of the entries that the bookmark vouches for stays true, without its places."""
        for check, count in () if self._past is None else self._past.told:
            rule, level, what = _TOLD[check]
            found = f"{count} below entry {self._start}"
            self._tally.add(Finding(check, rule, level, None, what, found, None))

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


def _opened(waiting: Iterable[Waiting]) -> dict[int, OpenIntent]:
    return {one.index: OpenIntent(one.leaf_hash, one.invocation_id, one.deadline_on, None) for one in waiting}


def _waiting(intents: Mapping[int, OpenIntent]) -> tuple[Waiting, ...]:
    return tuple(
        Waiting(index, one.leaf_hash, one.invocation_id, one.deadline_on) for index, one in sorted(intents.items())
    )
