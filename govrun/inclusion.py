"""The verdict on one entry from its proof alone: included in the log, and what its receipt is worth.

    proof file -> checkpoint -> inclusion -> envelope -> signature -> receipt -> position -> InclusionReport

No ledger is read. What only a whole ledger shows (order of key changes, the end of an invocation, a fork) is not
concluded here, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final, Literal

from govrun.audit.question import Requirement
from govrun.audit.report import SEVERITY, Assurance, Check, Finding, Status, finding_of
from govrun.audit.trust import KeyRing, Keys, TrustedKeys
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from govrun.ledger.merkle import InclusionProof, leaf_hash, verify_inclusion
from govrun.ledger.proof import LogProof, parse_proof
from govrun.receipt import ZERO_HASH, Statement, parse_statement
from govrun.signing.dsse import parse_envelope, verify_envelope
from govrun.signing.note import parse_note

Inclusion = Literal["included", "notIncluded", "notChecked"]

_MAX_SIZE: Final = (1 << 53) - 1  # what a report can spell

# Every check in the order in which the report shows them.
CHECKS: Final = {
    "checkpoint": "checkpoint signed by the trusted log key",
    "inclusion": "entry leads to the signed root at its index",
    "pin": "pinned checkpoint is the one that the proof is under",
    "envelope": "entry written in its one exact form",
    "signature": "receipt signed by a trusted key",
    "receipt": "receipt fits its schema and its subject",
    "position": "receipt stands where it was signed to stand",
    "assurance": "evidence that this verdict needs",
}


@frozen
class InclusionReport:
    """The whole verdict on a proof. origin, size, root: of the checkpoint; leaf_hash: of the entry; both in hex.

    statement: the receipt if it can be read. inclusion: whether the entry is in the log, notChecked without a
    trusted log key. not_shown: what no proof shows.
    """

    origin: str
    size: int
    root: str
    index: int
    leaf_hash: str
    statement: Statement | None
    inclusion: Inclusion
    assurance: Assurance
    checks: tuple[Check, ...]
    not_shown: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the most serious finding, in the order of `SEVERITY`; success if none demands one."""
        codes = {finding.code for check in self.checks for finding in check.findings}
        return next((code for code in SEVERITY if code in codes), ExitCode.SUCCESS)


def origin_of(data: bytes) -> str:
    """The origin that a proof file's checkpoint names, unverified: enough to find out whose keys to ask for."""
    return _head(parse_proof(data)).origin


def verify_entry(
    data: bytes, trusted: TrustedKeys, pinned: bytes | None = None, require: Collection[Requirement] = ()
) -> InclusionReport:
    """Check a proof file and the receipt in it.

    Bytes that are no proof: GovrunError (ledger-inconsistent); everything else is reported. pinned: the note of a
    checkpoint that the verifier kept. Without a trusted log key there is no verdict (could-not-check).
    """
    return _Examination(parse_proof(data), trusted).conclude(pinned, require)


def _head(proof: LogProof) -> Checkpoint:
    return parse_checkpoint(parse_note(proof.checkpoint).text)


class _NotCheckedError(Exception):
    """A check that could not be made, and that nobody demanded; its text says why."""


class _Examination:
    """One proof under examination."""

    def __init__(self, proof: LogProof, trusted: TrustedKeys) -> None:
        self.proof, self.trusted = proof, trusted
        self.head = _head(proof)
        if not proof.index < self.head.size <= _MAX_SIZE:
            raise GovrunError(
                ExitCode.LEDGER_INCONSISTENT,
                "proof.range",
                "the proof's entry lies outside its checkpoint",
                found=f"index {proof.index}, {self.head.size} entries",
                expected=f"an index below the size, which is at most {_MAX_SIZE}",
            )
        self.statement: Statement | None = None
        self.checks: dict[str, Check] = {}

    def conclude(self, pinned: bytes | None, require: Collection[Requirement]) -> InclusionReport:
        self._run("checkpoint", self._checkpoint)
        self._run("inclusion", self._inclusion)
        if pinned is not None:
            self._run("pin", lambda: self._pin(pinned))
        self._run("envelope", lambda: parse_envelope(self.proof.leaf))
        self._run("receipt", self._receipt)
        self._run("signature", self._signature)
        self._run("position", self._position)
        assurance = self._assurance()
        self._require(assurance, require)
        return InclusionReport(
            origin=self.head.origin,
            size=self.head.size,
            root=self.head.root.hex(),
            index=self.proof.index,
            leaf_hash=leaf_hash(self.proof.leaf).hex(),
            statement=self.statement,
            inclusion=self._included(),
            assurance=assurance,
            checks=tuple(self.checks[id_] for id_ in CHECKS if id_ in self.checks),
            not_shown=tuple(self._not_shown(assurance)),
        )

    def _run(self, id_: str, check: Callable[[], object]) -> None:
        try:
            check()
        except _NotCheckedError as reason:
            self._note(id_, "notChecked", str(reason))
        except GovrunError as error:
            self._fail(finding_of(error, id_, self.proof.index))
        else:
            self._note(id_, "passed", None)

    def _note(self, id_: str, status: Status, note: str | None) -> None:
        self.checks[id_] = Check(id_, CHECKS[id_], status, int(status == "passed"), 0, (), 0, note)

    def _fail(self, finding: Finding) -> None:
        findings = (*(self.checks[finding.check].findings if finding.check in self.checks else ()), finding)
        self.checks[finding.check] = Check(
            finding.check, CHECKS[finding.check], "failed", 1, 1, findings, len(findings), None
        )

    def _checkpoint(self) -> None:
        if not self.trusted.log:
            raise _NotCheckedError("no trusted log key")
        if self.trusted.origin not in (None, self.head.origin):
            raise GovrunError(
                ExitCode.SIGNATURE_UNTRUSTED,
                "ledger.origin",
                "the proof is about another ledger than the trusted one",
                found=self.head.origin,
                expected=self.trusted.origin,
            )
        verify_checkpoint(self.proof.checkpoint, self.head.origin, self.trusted.log)

    def _inclusion(self) -> None:
        path = InclusionProof(self.proof.index, self.head.size, self.proof.hashes)
        verify_inclusion(path, leaf_hash(self.proof.leaf), self.head.root)

    def _pin(self, pinned: bytes) -> None:
        if not self.trusted.log:
            raise _NotCheckedError("no trusted log key")
        pin = verify_checkpoint(pinned, self.head.origin, self.trusted.log).checkpoint
        if pin.size != self.head.size:
            raise _NotCheckedError(
                f"not compared: it has {pin.size:,} entries and this one {self.head.size:,};"
                " `govrun ledger consistency` compares them"
            )
        if pin.root != self.head.root:
            raise GovrunError(
                ExitCode.HISTORY_DIVERGED,
                "pin.root",
                f"another root at size {pin.size}",
                found=self.head.root.hex(),
                expected=pin.root.hex(),
            )

    def _receipt(self) -> None:
        self.statement = parse_statement(parse_envelope(self.proof.leaf).payload)

    def _signature(self) -> None:
        is_key_change = self.statement is not None and self.statement.kind in ("keyAdded", "keyRevoked")
        role, keys = ("root", self.trusted.root) if is_key_change else ("receipt", self.trusted.receipt)
        if not keys:
            raise _NotCheckedError(f"no trusted {role} key")
        if not is_key_change:
            verify_envelope(self.proof.leaf, keys)
        elif finding := KeyRing(Keys((), (), keys, ())).apply(self.proof.index, self.proof.leaf):
            raise GovrunError(
                finding.code or ExitCode.SIGNATURE_UNTRUSTED,
                finding.rule,
                finding.what,
                found=finding.found,
                expected=finding.expected,
            )

    def _position(self) -> None:
        if self.statement is None:
            raise _NotCheckedError("the receipt cannot be read")
        at, index = self.statement.position, self.proof.index
        previous = at.previous
        if index == 0:
            previous = ZERO_HASH
        elif index % 2 and self.proof.hashes:
            # The sibling of a right leaf is the leaf before it.
            previous = self.proof.hashes[0].hex()
        # Behind an even index the hash of the entry before is no part of the proof.
        found = (at.origin, at.index, at.previous)
        expected = (self.head.origin, index, previous)
        if found != expected:
            raise GovrunError(
                ExitCode.LEDGER_INCONSISTENT,
                "position.place",
                "the receipt was signed for another place",
                found=f"entry {at.index} of {at.origin} behind {at.previous[:16]}",
                expected=f"entry {index} of {self.head.origin} behind {previous[:16]}",
            )

    def _included(self) -> Inclusion:
        statuses = {self.checks["checkpoint"].status, self.checks["inclusion"].status}
        if "failed" in statuses:
            return "notIncluded"
        return "included" if statuses == {"passed"} else "notChecked"

    def _assurance(self) -> Assurance:
        if self._included() == "notChecked":
            self._fail(
                Finding(
                    "assurance",
                    "assurance.unauthenticated",
                    "error",
                    None,
                    "no trusted log key was given",
                    "only the key that the checkpoint names itself",
                    "the log's key, from elsewhere",
                    ExitCode.COULD_NOT_CHECK,
                )
            )
        if any(check.status == "failed" for check in self.checks.values()):
            return "unauthenticated"
        return "pinned" if "pin" in self.checks and self.checks["pin"].status == "passed" else "keyed"

    def _require(self, assurance: Assurance, require: Collection[Requirement]) -> None:
        reached = {"unauthenticated": (), "keyed": ("keyed",), "pinned": ("keyed", "pinned")}[assurance]
        for wanted in ("keyed", "pinned", "complete"):
            if wanted not in require:
                continue
            if wanted in reached:
                self.checks.setdefault(
                    "assurance", Check("assurance", CHECKS["assurance"], "passed", 1, 0, (), 0, None)
                )
                continue
            found = "a proof of one entry" if wanted == "complete" else assurance
            self._fail(
                Finding(
                    "assurance",
                    f"assurance.{wanted}",
                    "error",
                    None,
                    "the evidence that was asked for is not there",
                    found,
                    wanted,
                    ExitCode.EVIDENCE_INCOMPLETE,
                )
            )

    def _not_shown(self, assurance: Assurance) -> Iterator[str]:
        yield "that what the receipt claims is true, or that the model really ran"
        if self.statement is not None and self.statement.kind == "intent":
            yield "how the invocation ended: the outcome is another entry"
        elif self.statement is not None and self.statement.kind == "outcome":
            yield "what was announced: the intent is another entry"
        yield "that the key still counted at this index: key changes are other entries"
        if self.proof.index and not self.proof.index % 2:
            yield "that the entry before is the one that this receipt names"
        if assurance != "pinned":
            yield "that the log did not fork, or continues a checkpoint that you kept: that takes a consistency proof"
