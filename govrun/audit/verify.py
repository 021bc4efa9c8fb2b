"""The audit pipeline, once: read every entry, check it, judge it, conclude.

    ledger -> start, head, kept heads -> batches -> entries, tree, rules -> integrity, assurance -> Report

One pass from the first entry to the last, or from the first that no bookmark of the verifier's own vouches for;
nothing is written anywhere. Trusted keys, pinned checkpoints and bookmarks are inputs and never read from the ledger
under audit.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, Final

from govrun.audit import grounds
from govrun.audit.bookmark import Bookmark, JudgedBy
from govrun.audit.heads import kept_heads
from govrun.audit.question import Question
from govrun.audit.report import Counts, Finding, PolicyCounts, Report, Tally, finding_of
from govrun.audit.resume import PROGRAM, Start, start_of
from govrun.audit.rules import History
from govrun.audit.tree import TreeWalk
from govrun.audit.trust import KeyRing, TrustedKeys, genesis_findings
from govrun.audit.vouched import Vouched
from govrun.audit.workers import Batch, Job, Judged, chain_broken, judge_all, leaf_hashes
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from govrun.ledger.checkpoint import Checkpoint, verify_checkpoint
from govrun.ledger.merkle import HASH_BYTES
from govrun.ledger.read import Reader
from govrun.policy import Policy
from govrun.receipt import ZERO_HASH

__all__ = ["Question", "audit_ledger", "verify_ledger"]

_BROKEN: Final = ExitCode.LEDGER_INCONSISTENT
_UNCHECKED: Final = ExitCode.COULD_NOT_CHECK


def verify_ledger(reader: Reader, trusted: TrustedKeys | None, question: Question | None = None) -> Report:
    """Check everything that a ledger shows, and report; never raises for what the ledger holds.

    trusted None or empty: all the same checks, and the verdict could-not-check.
    """
    return _examine(reader, trusted or TrustedKeys(), question or Question(), None, ())


def audit_ledger(
    reader: Reader,
    trusted: TrustedKeys | None,
    policy: Policy,
    question: Question | None = None,
    known: Collection[Policy] = (),
) -> Report:
    """Verify a ledger, and judge every intent by the auditor's policy and by the one it names, if among known.

    A violation of either demands policy-violated; a `denied` entry is none. A ledger without invocations is compliant
    and the report says that none was judged.
    """
    return _examine(reader, trusted or TrustedKeys(), question or Question(), policy, tuple(known))


def _examine(
    reader: Reader, trusted: TrustedKeys, question: Question, policy: Policy | None, known: tuple[Policy, ...]
) -> Report:
    audit = _Audit(reader, trusted, question, policy, start_of(reader, trusted, question, policy, known), known)
    if audit.size <= 0:
        audit.refuse_empty()
        return audit.conclude(Counts())
    audit.check_head()
    audit.check_kept()
    audit.walk()
    audit.check_suspects()
    return audit.conclude(audit.history.close(question.at, question.is_running, "complete" in question.require))


class _Audit:
    """One audit under way; its steps are called once each, in the order of `_examine`."""

    def __init__(
        self,
        reader: Reader,
        trusted: TrustedKeys,
        question: Question,
        policy: Policy | None,
        start: Start,
        known: tuple[Policy, ...],
    ) -> None:
        self.reader, self.trusted, self.question = reader, trusted, question
        self.policy, self.known, self.start = policy, known, start
        self.origin, self.size = reader.origin, reader.size
        self.tally = Tally()
        bookmark = start.bookmark
        self.keys = start.keys
        self.ring = KeyRing(self.keys, None if bookmark is None else bookmark.ring)
        earlier = Vouched(reader, self.tally, start.index, start.frontier.root())
        past = None if bookmark is None else bookmark.past
        self.history = History(self.tally, earlier, start.index, past)
        self.tree = TreeWalk(reader.hashes, self.tally, start.frontier.copy())
        self.head: Checkpoint | None = None
        self.pinned_size = 0
        self.signers = array("i")
        self.last_hash = ZERO_HASH if bookmark is None else bookmark.last_leaf_hash
        self.is_whole = False
        self.unavailable: Counter[str] = Counter()
        self.root: str | None = None

    def refuse_empty(self) -> None:
        """An empty ledger shows nothing, so nothing is concluded from it, except that a kept one was longer."""
        self._error(
            "readable", "ledger.empty", None, "the ledger is empty", "no entries", "at least the genesis", _UNCHECKED
        )
        self.check_kept()
        self.tree.close(None)

    def check_head(self) -> None:
        """The newest checkpoint, under the log's key."""
        self.tally.judge("checkpoint")
        if self.trusted.origin is not None and self.trusted.origin != self.origin:
            self._error(
                "checkpoint",
                "ledger.origin",
                None,
                "this is another ledger than the trusted one",
                self.origin,
                self.trusted.origin,
                ExitCode.SIGNATURE_UNTRUSTED,
            )
        try:
            note = self.reader.checkpoint()
            if note is None:
                self._error(
                    "checkpoint", "checkpoint.missing", None, "no checkpoint was signed", "none", "one per commit"
                )
            else:
                self.head = verify_checkpoint(note, self.origin, self.keys.log).checkpoint
        except GovrunError as error:
            self.tally.add(finding_of(error, "checkpoint", None))

    def check_kept(self) -> None:
        """What the verifier kept or remembers: the signatures now, the roots on the way."""
        keys = None if self.trusted.is_empty else self.keys
        heads = kept_heads(self.question, self.origin, keys, self.tally)
        self.pinned_size = max((head.checkpoint.size for head in heads if head.check == "pin"), default=0)
        self.tree.hold_against(heads)

    def walk(self) -> None:
        """Every entry from the start on, once, in order."""
        self.tally.judge("readable")
        workers = self.question.workers if self.size - self.start.index >= self.question.alone_below else 1
        try:
            for keys, judged in judge_all(self._job, self._batches(), workers):
                self._take(keys, judged)
            self.is_whole = True
        except GovrunError as error:
            self.tally.add(finding_of(error, "readable", self.tree.frontier.size))
        if self.is_whole:
            self.tree.close(self.head)
            self.root = self.tree.frontier.root().hex()

    def _batches(self) -> Iterator[Batch]:
        start = self.start.index
        for leaves in self.reader.leaves(start, self.size, self.question.batch):
            stop = start + len(leaves)
            yield Batch(start, leaves, self._columns(start, stop), self._notes(start, stop))
            start = stop

    def _notes(self, start: int, stop: int) -> tuple[tuple[int, bytes], ...]:
        try:
            notes = tuple(self.reader.checkpoints(start, stop))
        except GovrunError as error:
            self.tally.add(finding_of(error, "checkpoints", start))
            return ()
        self.tally.judge("checkpoints", len(notes))
        return notes

    def _columns(self, start: int, stop: int) -> tuple[tuple[Any, ...] | None, ...] | None:
        try:
            rows = self.reader.columns(start, stop)
        except GovrunError as error:
            self.tally.add(finding_of(error, "index", start))
            return None
        if rows is None:
            return None
        self.tally.judge("index", stop - start)
        return tuple([row and tuple(row) for row in rows])

    def _job(self) -> Job:
        return Job(self.origin, self.ring.receipts, self.keys.log, self.policy, self.known)

    def _take(self, keys: int, judged: Judged) -> None:
        """Put a batch's facts into the context of the whole ledger, in the order of the entries."""
        count = len(judged.facts)
        for check in ("envelopes", "signatures", "receipts", "positions"):
            self.tally.judge(check, count)
        if judged.previous is not None and judged.previous != self.last_hash:
            self.tally.add(chain_broken(judged.start, judged.previous, self.last_hash))
        for finding in judged.findings:
            self.tally.add(finding)
        self._check_signers(keys, judged)
        for offset, (one, facts) in enumerate(zip(leaf_hashes(judged), judged.facts, strict=True)):
            self.history.add(judged.start + offset, one, facts)
        self.tree.add(leaf_hashes(judged), dict(judged.roots))
        self.last_hash = judged.hashes[-HASH_BYTES:].hex()
        self._judge_policy(judged)
        if self.question.progress is not None:
            start = self.start.index
            self.question.progress(self.tree.frontier.size - start, self.size - start)

    def _check_signers(self, keys: int, judged: Judged) -> None:
        """Settle who signed, with the keys of that very index where the batch was judged with fewer or revoked ones."""
        signers = list(judged.signers)
        failed = {index: (leaf, finding) for index, leaf, finding in judged.unsigned}
        changes = dict(judged.key_changes)
        if not (failed or changes or self.ring.revocations):
            self.signers.extend(signers)
            return
        for index, number in enumerate(signers, judged.start):
            if index in changes:
                self._change_keys(index, changes[index])
                continue
            if index in failed:
                leaf, finding = failed[index]
                later = self.ring.signer_of(leaf) if len(self.ring.receipts) > keys else None
                if later is None:
                    self.tally.add(finding)
                    continue
                number = signers[index - judged.start] = later  # noqa: PLW2901 - the number it has after all
            if self.ring.is_revoked(number, index):
                self._error(
                    "signatures",
                    "signature.revoked",
                    index,
                    "a receipt is signed by a key that was revoked before",
                    self.ring.receipts[number].keyid[:16],
                    "a key that still counts",
                    ExitCode.SIGNATURE_UNTRUSTED,
                )
        self.signers.extend(signers)

    def _change_keys(self, index: int, leaf: bytes) -> None:
        self.tally.judge("keyChanges")
        if (finding := self.ring.apply(index, leaf)) is not None:
            self.tally.add(finding)

    def _judge_policy(self, judged: Judged) -> None:
        if self.policy is None:
            return
        intents = sum(facts is not None and facts.kind == "intent" for facts in judged.facts)
        self.tally.judge("policy", intents)
        self.tally.judge("policyInForce", intents - len(judged.unavailable))
        self.unavailable.update(judged.unavailable)

    def check_suspects(self) -> None:
        """What a revoked key signed since it became suspect, except below a pinned checkpoint that holds."""
        first = max(self._holding_pin() or 0, self.start.index)
        for revocation in self.ring.revocations:
            if revocation.suspect_from is None:
                continue
            for index in range(max(revocation.suspect_from, first), min(revocation.index, self.tree.frontier.size)):
                if self.signers[index - self.start.index] == revocation.number:
                    self._error(
                        "suspects",
                        "signature.suspect",
                        index,
                        "a receipt may be forged: its key was compromised then",
                        f"suspect from entry {revocation.suspect_from}",
                        "a checkpoint pinned before that",
                        ExitCode.EVIDENCE_INCOMPLETE,
                    )

    def _holding_pin(self) -> int | None:
        """Entries below the greatest pinned checkpoint, None unless every one that was brought holds."""
        return self.pinned_size or None if self.is_whole and not self.tally.failed("pin") else None

    def conclude(self, counts: Counts) -> Report:
        """Integrity, assurance, what was asked for, and what is kept of a yes."""
        if self.start.genesis is not None:
            for finding in genesis_findings(self.start.genesis, self.trusted):
                self.tally.add(finding)
        pinned = self._holding_pin()
        integrity = grounds.integrity_of(self.tally, self.is_whole)
        assurance = grounds.assurance_of(self.tally, self.trusted, integrity, pinned)
        grounds.require(self.tally, self.question.require, assurance)
        grounds.reword(self.tally, self.trusted)
        policy = self._policy_counts()
        asked = {"pin"} if self.question.pinned is not None or self.question.bookmark is not None else set()
        if policy is not None:
            asked |= {"policy", "policyInForce"}
            self._note_policy(policy)
        checks = self.tally.checks(lambda check: check in asked)
        basis = grounds.Basis(
            assurance, integrity, pinned if assurance == "pinned" else None, self.start.index, self.tally
        )
        report = Report(
            origin=self.origin,
            size=self.size,
            root=self.root,
            integrity=integrity,
            assurance=assurance,
            assurance_lines=tuple(
                grounds.assurance_lines(
                    basis,
                    self.trusted,
                    self.keys,
                    self.question,
                    (*self.ring.lines(), *grounds.continued(self.start.genesis)),
                )
            ),
            pinned_size=basis.pinned,
            checks=checks,
            counts=counts,
            policy=policy,
            not_shown=tuple(grounds.not_shown(basis)),
            checked_from=self.start.index,
            unused=self.start.unused,
        )
        if not self.question.keep or report.exit_code is not ExitCode.SUCCESS:
            return report
        return evolve(report, bookmark=self._bookmark(policy))

    def _note_policy(self, policy: PolicyCounts) -> None:
        """Words that depend on what was there to be judged."""
        if not self.history.invocations:
            self.tally.note("policy", "0 invocations judged")
        if policy.unavailable:
            self.tally.note("policyInForce", f"policy unavailable for {policy.unavailable}")

    def _policy_counts(self) -> PolicyCounts | None:
        if self.policy is None:
            return None
        before = self._judged_before()
        judged = before.judged + self.tally.judged("policy")
        in_force = before.in_force_judged + self.tally.judged("policyInForce")
        return PolicyCounts(
            self.policy.digest,
            judged,
            judged - self.tally.failed("policy"),
            in_force,
            in_force - self.tally.failed("policyInForce"),
            sum(count for _, count in before.unavailable) + self.unavailable.total(),
        )

    def _judged_before(self) -> JudgedBy:
        bookmark = self.start.bookmark
        return (bookmark and bookmark.judged_by) or JudgedBy("", 0, 0, ())

    def _bookmark(self, policy: PolicyCounts | None) -> Bookmark:
        """What the next verification may resume from; only for a yes, and so for a head that was verified."""
        note = self.reader.checkpoint()
        assert note is not None  # noqa: S101 - a ledger without one is broken
        unavailable = self.unavailable + Counter(dict(self._judged_before().unavailable))
        return Bookmark(
            self.origin,
            PROGRAM,
            note,
            self.size,
            self.last_hash,
            self.ring.state(self.keys),
            self.history.past(),
            None
            if policy is None
            else JudgedBy(policy.digest, policy.judged, policy.in_force_judged, tuple(sorted(unavailable.items()))),
        )

    def _error(
        self, check: str, rule: str, index: int | None, what: str, found: str, expected: str, code: ExitCode = _BROKEN
    ) -> None:
        self.tally.add(Finding(check, rule, "error", index, what, found, expected, code))
