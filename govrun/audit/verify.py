"""The audit pipeline, once: read every entry, check it, judge it, conclude.

    ledger -> head, pin, first keys -> batches -> entries, tree, rules -> integrity, assurance -> Report

One pass from the first entry to the last; nothing is written anywhere. Trusted keys and pinned checkpoints are inputs
and never read from the ledger under audit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator
from typing import Final, Literal

from govrun.audit.report import (
    Assurance,
    Counts,
    Finding,
    Integrity,
    PolicyCounts,
    Report,
    Tally,
    finding_of,
)
from govrun.audit.rules import History
from govrun.audit.tree import TreeWalk
from govrun.audit.trust import KeyRing, Keys, TrustedKeys, first_keys, genesis_findings
from govrun.audit.workers import Batch, Job, Judged, chain_broken, judge_all, leaf_hashes
from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.checkpoint import Checkpoint, verify_checkpoint
from govrun.ledger.entry import IndexColumns
from govrun.ledger.merkle import HASH_BYTES, stored_hash_index
from govrun.ledger.read import Reader
from govrun.policy import Policy
from govrun.receipt import ZERO_HASH, parse_statement
from govrun.signing.dsse import parse_envelope
from govrun.signing.keys import Verifier

_BROKEN: Final = ExitCode.LEDGER_INCONSISTENT
_UNCHECKED: Final = ExitCode.COULD_NOT_CHECK

Requirement = Literal["keyed", "pinned", "complete"]

BATCH: Final = 512
# Below this many entries starting other processes costs more than they save.
WORTH_WORKERS: Final = 4_000


@frozen
class Question:
    """What is asked of a ledger beside whose keys signed it.

    pinned: the signed note of a checkpoint that the verifier kept. require: what must be there for a yes; `complete`
    means that every announced invocation has its end or still runs. at: the instant to compare deadlines with, None to
    compare none. is_running: whether the lease of an invocation id is held, None when that cannot be known. workers:
    processes to use, for ledgers of alone_below entries or more; batch: entries that one of them takes at a time.
    progress: called with entries done and entries in all. writers_hold_log_key: the caller knows that all keys lie in
    one place.
    """

    pinned: bytes | None = None
    require: Collection[Requirement] = ()
    at: str | None = None
    is_running: Callable[[str], bool | None] | None = None
    workers: int = 1
    alone_below: int = WORTH_WORKERS
    batch: int = BATCH
    progress: Callable[[int, int], None] | None = None
    writers_hold_log_key: bool = False


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
    audit = _Audit(reader, trusted, question, policy, known)
    if audit.size <= 0:
        audit.refuse_empty()
        return audit.conclude(Counts())
    audit.check_head()
    audit.check_pin()
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
        known: tuple[Policy, ...],
    ) -> None:
        self.reader, self.trusted, self.question = reader, trusted, question
        self.policy, self.known = policy, known
        self.origin, self.size = reader.origin, reader.size
        self.tally = Tally()
        self.genesis = _peek_genesis(reader) if self.size > 0 else None
        self.keys: Keys = first_keys(self.origin, trusted, self.genesis)
        self.ring = KeyRing(self.keys)
        self.history = History(self.tally, self._leaf_hash_at)
        self.head: Checkpoint | None = None
        self.pin: Checkpoint | None = None
        self.signers = array("i")
        self.last_hash = ZERO_HASH
        self.is_whole = False
        self.unavailable = 0
        self.root: str | None = None

    def refuse_empty(self) -> None:
        """An empty ledger shows nothing, so nothing is concluded from it, except that a pinned one was longer."""
        self._error(
            "readable", "ledger.empty", None, "the ledger is empty", "no entries", "at least the genesis", _UNCHECKED
        )
        self.check_pin()
        if self.pin is not None:
            TreeWalk(self.reader.hashes, self.tally, self.pin).close(None)

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

    def check_pin(self) -> None:
        """The pinned checkpoint itself, under a key that the verifier trusts; its root is compared on the way."""
        if self.question.pinned is None:
            return
        self.tally.judge("pin")
        if self.trusted.is_empty:
            self._error(
                "pin",
                "pin.unverified",
                None,
                "a pinned checkpoint needs a trusted key",
                "no key",
                "the log's key",
                _UNCHECKED,
            )
            return
        try:
            pin = verify_checkpoint(self.question.pinned, self.origin, self.keys.log).checkpoint
        except GovrunError as error:
            self.tally.add(finding_of(error, "pin", None, rule=f"pin.{error.rule}"))
            return
        if pin.size == 0:
            self._error(
                "pin", "pin.empty", None, "the pinned checkpoint is over no entries", "size 0", "at least 1", _UNCHECKED
            )
            return
        self.pin = pin

    def walk(self) -> None:
        """Every entry, once, in order."""
        tree = TreeWalk(self.reader.hashes, self.tally, self.pin)
        self.tally.judge("readable")
        workers = self.question.workers if self.size >= self.question.alone_below else 1
        try:
            for keys, judged in judge_all(self._job, self._batches(), workers):
                self._take(tree, keys, judged)
            self.is_whole = True
        except GovrunError as error:
            self.tally.add(finding_of(error, "readable", tree.frontier.size))
        if self.is_whole:
            tree.close(self.head)
            self.root = tree.frontier.root().hex()

    def _batches(self) -> Iterator[Batch]:
        start = 0
        for leaves in self.reader.leaves(0, self.size, self.question.batch):
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

    def _columns(self, start: int, stop: int) -> tuple[IndexColumns | None, ...] | None:
        try:
            rows = self.reader.columns(start, stop)
        except GovrunError as error:
            self.tally.add(finding_of(error, "index", start))
            return None
        if rows is None:
            return None
        self.tally.judge("index", stop - start)
        return tuple(rows)

    def _job(self) -> Job:
        return Job(self.origin, self.ring.receipts, self.keys.log, self.policy, self.known)

    def _take(self, tree: TreeWalk, keys: int, judged: Judged) -> None:
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
        tree.add(leaf_hashes(judged), dict(judged.roots))
        self.last_hash = judged.hashes[-HASH_BYTES:].hex()
        self._judge_policy(judged)
        if self.question.progress is not None:
            self.question.progress(tree.frontier.size, self.size)

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
        self.tally.judge("policyInForce", intents - judged.unavailable)
        self.unavailable += judged.unavailable

    def check_suspects(self) -> None:
        """What a revoked key signed since it became suspect, except below a pinned checkpoint that holds."""
        pinned = self._pinned_size() or 0
        for revocation in self.ring.revocations:
            if revocation.suspect_from is None:
                continue
            for index in range(max(revocation.suspect_from, pinned), min(revocation.index, len(self.signers))):
                if self.signers[index] == revocation.number:
                    self._error(
                        "suspects",
                        "signature.suspect",
                        index,
                        "a receipt may be forged: its key was compromised then",
                        f"suspect from entry {revocation.suspect_from}",
                        "a checkpoint pinned before that",
                        ExitCode.EVIDENCE_INCOMPLETE,
                    )

    def _pinned_size(self) -> int | None:
        if self.pin is None or not self.is_whole or self.tally.failed("pin"):
            return None
        return self.pin.size

    def conclude(self, counts: Counts) -> Report:
        """Integrity, assurance, and what was asked for."""
        if self.genesis is not None:
            for finding in genesis_findings(self.genesis, self.trusted):
                self.tally.add(finding)
        integrity = self._integrity()
        assurance = self._assurance(integrity)
        self._require(assurance)
        self._explain()
        asked = {"pin"} if self.question.pinned is not None else set()
        if self.policy is not None:
            asked |= {"policy", "policyInForce"}
        pinned_size = self._pinned_size() if assurance == "pinned" else None
        return Report(
            origin=self.origin,
            size=self.size,
            root=self.root,
            integrity=integrity,
            assurance=assurance,
            assurance_lines=tuple(self._assurance_lines(assurance, integrity, pinned_size)),
            pinned_size=pinned_size,
            checks=self.tally.checks(lambda check: check in asked),
            counts=counts,
            policy=self._policy_counts(),
            not_shown=tuple(self._not_shown(assurance)),
        )

    def _integrity(self) -> Integrity:
        if self.tally.is_broken():
            return "broken"
        return "intact" if self.is_whole else "unusable"

    def _assurance(self, integrity: Integrity) -> Assurance:
        if self.trusted.is_empty:
            self._error(
                "assurance",
                "assurance.unauthenticated",
                None,
                "no trusted key was given",
                "only keys that the ledger names itself",
                "a log or receipt key that you got elsewhere",
                _UNCHECKED,
            )
            return "unauthenticated"
        # Keys that signed something else than this ledger, whole, vouch for nothing in it.
        if integrity != "intact":
            return "unauthenticated"
        return "keyed" if self._pinned_size() is None else "pinned"

    def _require(self, assurance: Assurance) -> None:
        wanted = [level for level in ("keyed", "pinned") if level in self.question.require]
        reached = {"unauthenticated": (), "keyed": ("keyed",), "pinned": ("keyed", "pinned")}[assurance]
        for level in wanted:
            self.tally.judge("assurance")
            if level not in reached:
                self._error(
                    "assurance",
                    f"assurance.{level}",
                    None,
                    "the evidence that was asked for is not there",
                    assurance,
                    level,
                    ExitCode.EVIDENCE_INCOMPLETE,
                )

    def _explain(self) -> None:
        """Words that depend on what was there to be checked."""
        if self.trusted.is_empty:
            self.tally.reword("checkpoint", "latest checkpoint signed by the log key that the ledger names itself")
            self.tally.reword("signatures", "receipts signed by the key that the ledger names itself")
            self.tally.reword("genesis", "ledger begins with its one genesis")
        if self.policy is None:
            return
        if not self.history.invocations:
            self.tally.note("policy", "0 invocations judged")
        if self.unavailable:
            self.tally.note("policyInForce", f"policy unavailable for {self.unavailable}")

    def _policy_counts(self) -> PolicyCounts | None:
        if self.policy is None:
            return None
        judged, in_force = self.tally.judged("policy"), self.tally.judged("policyInForce")
        return PolicyCounts(
            self.policy.digest,
            judged,
            judged - self.tally.failed("policy"),
            in_force,
            in_force - self.tally.failed("policyInForce"),
            self.unavailable,
        )

    def _assurance_lines(self, assurance: Assurance, integrity: Integrity, pinned: int | None) -> Iterator[str]:
        if self.trusted.is_empty:
            yield "no trusted key was given, and anybody can make up a ledger with keys of its own"
        elif assurance == "unauthenticated":
            yield f"the trusted keys vouch for nothing here, because integrity is {integrity}"
        else:
            yield f"signed by {_names('log', self.trusted.log)} and {_names('receipt', self.trusted.receipt)}"
            if "receipt" in self.keys.from_genesis:
                yield "receipt key: the one that the genesis names, which stands under the trusted log key"
            if "log" in self.keys.from_genesis:
                yield "log key: the one that the genesis names, which the trusted receipt key signed"
            if pinned is not None:
                yield f"begins with the {pinned} entries of the pinned checkpoint"
        if self.question.writers_hold_log_key:
            yield (
                "writers-hold-log-key: all keys lie in one .govrun, so who holds it can rewrite"
                " whatever is not pinned elsewhere"
            )

    def _not_shown(self, assurance: Assurance) -> Iterator[str]:
        yield "that what a receipt claims is true, or that the model really ran"
        yield "that nothing ran without govrun"
        yield "when anything happened: every time is the operator's claim"
        if assurance == "pinned":
            yield "truncation: not checked behind the pinned checkpoint"
        else:
            yield "truncation: not checked; entries cut off the end would not be missed without a pinned checkpoint"

    def _leaf_hash_at(self, index: int) -> str | None:
        try:
            return next((one.hex() for one in self.reader.hashes((stored_hash_index(0, index),))), None)
        except GovrunError:
            # Stored hashes that cannot be read are reported where the tree is compared.
            return None

    def _error(
        self, check: str, rule: str, index: int | None, what: str, found: str, expected: str, code: ExitCode = _BROKEN
    ) -> None:
        self.tally.add(Finding(check, rule, "error", index, what, found, expected, code))


def _names(role: str, verifiers: Collection[Verifier]) -> str:
    if not verifiers:
        return f"the {role} key named in the genesis"
    keys = ", ".join(f"{verifier.name}+{verifier.key_id.hex()}" for verifier in verifiers)
    return f"the trusted {role} key{'s' if len(verifiers) > 1 else ''} {keys}"


def _peek_genesis(reader: Reader) -> JsonObject | None:
    """The predicate of entry 0 if it is a genesis, unverified; it is verified with all others later."""
    try:
        for leaves in reader.leaves(0, 1, 1):
            statement = parse_statement(parse_envelope(leaves[0]).payload)
            return statement.predicate if statement.kind == "genesis" else None
    except GovrunError:
        # Whatever is wrong with entry 0 is found again, and reported, when all entries are read.
        return None
    return None
