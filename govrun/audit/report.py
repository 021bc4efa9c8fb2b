"""What an audit concluded: checks, findings, integrity, assurance, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from govrun.audit.bookmark import Bookmark
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

Level = Literal["error", "warning", "note"]
Integrity = Literal["intact", "broken", "unusable"]
Assurance = Literal["unauthenticated", "keyed", "pinned"]
Status = Literal["passed", "warned", "failed", "notChecked"]

# Of several findings the first of these decides the exit code. A ledger that contradicts itself says nothing that
# could still be weighed; then come wrong signatures, another history, a broken policy, evidence that was asked for
# and is not there, and last what could not be checked at all.
SEVERITY: Final = (
    ExitCode.LEDGER_INCONSISTENT,
    ExitCode.SIGNATURE_UNTRUSTED,
    ExitCode.HISTORY_DIVERGED,
    ExitCode.POLICY_VIOLATED,
    ExitCode.EVIDENCE_INCOMPLETE,
    ExitCode.COULD_NOT_CHECK,
)
BREAKING: Final = frozenset(SEVERITY[:3])

# Every check in the order in which reports show them: its id, and what was looked at, for people.
CHECKS: Final[tuple[tuple[str, str], ...]] = (
    ("readable", "the ledger can be read from end to end"),
    ("checkpoint", "latest checkpoint signed by the log's key"),
    ("pin", "pinned checkpoint is the beginning of this ledger"),
    ("guard", "ledger continues the head that was seen from here before"),
    ("envelopes", "entries written in their one exact form"),
    ("signatures", "receipts signed by a trusted key"),
    ("suspects", "receipts signed before their key became suspect"),
    ("receipts", "receipts that fit their schema and their subject"),
    ("positions", "receipts that stand where they were signed to stand"),
    ("tree", "tree hashes recomputed from the entries"),
    ("checkpoints", "stored checkpoints signed, each over the entries before it"),
    ("index", "rows of the search index recomputed from the entries"),
    ("genesis", "ledger begins with its one genesis, which names the trusted keys"),
    ("keyChanges", "key changes signed by the root key"),
    ("outcomes", "outcomes and gaps that belong to one announced intent"),
    ("requests", "request ids and invocation ids used once"),
    ("links", "links to other entries that lead there"),
    ("intents", "announced invocations whose end is recorded"),
    ("adopted", "invocations under the policy that the ledger had adopted"),
    ("clock", "receipts whose clock does not go backwards"),
    ("policy", "invocations that the auditor's policy allows"),
    ("policyInForce", "invocations that the policy in force allowed"),
    ("assurance", "evidence that this verdict needs"),
)
WORDS: Final = dict(CHECKS)

# How many findings of one check are kept, and told to programs; all of them are counted.
KEPT: Final = 100


@frozen
class Finding:
    """One thing that is not as it should be.

    rule: a stable dotted id. index: the entry it is about; of a tree hash or a checkpoint, the last entry below it.
    code: the exit code that it demands, None for what is only told (warnings and notes). found, expected: short values.
    """

    check: str
    rule: str
    level: Level
    index: int | None
    what: str
    found: str | None = None
    expected: str | None = None
    code: ExitCode | None = None


@frozen
class Check:
    """One check: how many things it looked at, how many of them failed, and its first findings, by index."""

    id: str
    what: str
    status: Status
    judged: int
    failed: int
    findings: tuple[Finding, ...]
    count: int
    note: str | None


@frozen
class Counts:
    """What the ledger holds. kinds, statuses: (name, how many), sorted; refusals: what the `denied` entries count.

    running, orphaned, open: intents without an outcome, by what is known about their process; orphaned includes those
    that a gap names. overdue: those without a gap whose deadline is past.
    """

    kinds: tuple[tuple[str, int], ...] = ()
    statuses: tuple[tuple[str, int], ...] = ()
    refusals: int = 0
    running: int = 0
    orphaned: int = 0
    open: int = 0
    overdue: int = 0


@frozen
class PolicyCounts:
    """How the intents were judged. unavailable: intents whose own policy's bytes were not at hand."""

    digest: str
    judged: int
    compliant: int
    in_force_judged: int
    in_force_compliant: int
    unavailable: int


@frozen
class Report:
    """The whole verdict. root: hex of the recomputed root over all entries, None when not all could be read.

    assurance_lines: what the assurance rests on, for people. pinned_size: entries below the pinned checkpoint, None
    without one that holds; then nothing is known about entries cut off the end. not_shown: what no such report shows.
    checked_from: the first entry that was read; for those before it the bookmark vouches. unused: why a bookmark that
    was brought could not vouch, None if it could or there was none. bookmark: what was asked to be kept of a yes.
    """

    origin: str
    size: int
    root: str | None
    integrity: Integrity
    assurance: Assurance
    assurance_lines: tuple[str, ...]
    pinned_size: int | None
    checks: tuple[Check, ...]
    counts: Counts
    policy: PolicyCounts | None
    not_shown: tuple[str, ...]
    checked_from: int = 0
    unused: str | None = None
    bookmark: Bookmark | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every kept finding, in the order of the checks."""
        return tuple(finding for check in self.checks for finding in check.findings)

    @property
    def broken_at(self) -> Finding | None:
        """The finding by which integrity is broken that stands nearest to the beginning of the ledger."""
        return first_breaking(self.findings)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code: that of the most serious finding, in the order of `SEVERITY`; success if none demands one."""
        codes = {finding.code for finding in self.findings}
        return next((code for code in SEVERITY if code in codes), ExitCode.SUCCESS)


def first_breaking(findings: tuple[Finding, ...]) -> Finding | None:
    """Of the findings that break integrity the one with the lowest index; of equals the most serious."""
    # A changed entry fails in many ways, and that it was changed says it best.
    breaking = [
        (-1 if finding.index is None else finding.index, SEVERITY.index(finding.code), finding.rule != "tree.leaf", n)
        for n, finding in enumerate(findings)
        if finding.code in BREAKING
    ]
    return findings[min(breaking)[-1]] if breaking else None


def finding_of(
    error: GovrunError, check: str, index: int | None, *, rule: str | None = None, what: str | None = None
) -> Finding:
    """An error of a primitive as a finding; an exit code that is no verdict becomes could-not-check."""
    code = error.code if error.code in SEVERITY else ExitCode.COULD_NOT_CHECK
    return Finding(check, rule or error.rule, "error", index, what or error.what, error.found, error.expected, code)


class Tally:
    """Collects findings and counts while the ledger streams by; keeps the first `KEPT` findings of each check."""

    def __init__(self) -> None:
        self._judged: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._last: dict[str, int | None] = {}
        self._kept: dict[str, list[Finding]] = {}
        self._notes: dict[str, str] = {}
        self._words: dict[str, str] = {}

    def judge(self, check: str, count: int = 1) -> None:
        """Count things that a check looked at."""
        if count:
            self._judged[check] = self._judged.get(check, 0) + count

    def add(self, finding: Finding) -> None:
        """Take a finding; findings of one check come in the order of their index."""
        check = finding.check
        count = self._count.get(check, 0)
        self._count[check] = count + 1
        if finding.level != "note" and (count == 0 or finding.index is None or self._last.get(check) != finding.index):
            self._failed[check] = self._failed.get(check, 0) + 1
        self._last[check] = finding.index
        kept = self._kept.setdefault(check, [])
        if len(kept) < KEPT:
            kept.append(finding)

    def note(self, check: str, text: str) -> None:
        """Say something about a check, beside its count."""
        self._notes[check] = text

    def reword(self, check: str, words: str) -> None:
        """Say in other words what a check looked at."""
        self._words[check] = words

    def judged(self, check: str) -> int:
        """How many things a check looked at so far."""
        return self._judged.get(check, 0)

    def failed(self, check: str) -> int:
        """How many of them failed so far."""
        return self._failed.get(check, 0)

    def is_broken(self) -> bool:
        """Whether anything found so far breaks integrity."""
        return any(finding.code in BREAKING for kept in self._kept.values() for finding in kept)

    def checks(self, is_shown: Callable[[str], bool]) -> tuple[Check, ...]:
        """Every check that was made or has something to say, and those that is_shown asks for, in order."""
        return tuple(
            self._check(id_)
            for id_, _ in CHECKS
            if id_ in self._judged or id_ in self._kept or id_ in self._notes or is_shown(id_)
        )

    def _check(self, id_: str) -> Check:
        kept = tuple(self._kept.get(id_, ()))
        levels = {finding.level for finding in kept}
        judged, failed = self.judged(id_), self.failed(id_)
        status: Status = (
            "failed" if "error" in levels else "warned" if "warning" in levels else "passed" if judged else "notChecked"
        )
        return Check(
            id_,
            self._words.get(id_, WORDS[id_]),
            status,
            max(judged, failed),
            failed,
            kept,
            self._count.get(id_, 0),
            self._notes.get(id_),
        )
