"""What must hold between entries, judged on ledgers that writers with every key could make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from govrun.audit.report import Report
from govrun.audit.verify import Question, verify_ledger
from govrun.errors import ExitCode
from govrun.ledger.read import open_ledger
from govrun.receipt import Draft
from tests.audit import ledgers
from tests.audit.ledgers import RECEIPT, ROOT, SECOND, TRUSTED, Ledger, at, outcome

BROKEN = ExitCode.LEDGER_INCONSISTENT


def verified(ledger: Ledger, tmp_path: Path, question: Question | None = None) -> Report:
    return verify_ledger(open_ledger(ledgers.write_sqlite(ledger, tmp_path / "ledger")), TRUSTED, question)


def told(report: Report) -> list[tuple[str, str, int | None]]:
    """(level, rule, index) of every finding."""
    return [(finding.level, finding.rule, finding.index) for finding in report.findings]


def begun() -> Ledger:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    return ledger


# Genesis


def test_a_ledger_that_begins_with_something_else_is_broken(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add(ledgers.denied())
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "genesis.first", 0)])


def test_a_second_genesis_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    index = ledger.add(ledgers.genesis())
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "genesis.second", index)])


# Outcomes and gaps


def test_an_outcome_without_an_intent_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    index = ledger.add(outcome(1, 0, ledger.hash_at(0)))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "outcome.intent", index)])


def test_an_outcome_of_a_later_entry_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    index = ledger.add(outcome(1, 7, "0" * 64))
    assert told(verified(ledger, tmp_path)) == [("error", "outcome.intent", index)]


def test_two_outcomes_of_one_intent_are_broken(tmp_path: Path) -> None:
    ledger = begun()
    intent, _ = ledger.invoke(1)
    index = ledger.add(outcome(1, intent, ledger.hash_at(intent)))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "outcome.second", index)])


def test_an_outcome_with_another_leaf_hash_is_broken_and_leaves_its_intent_open(tmp_path: Path) -> None:
    ledger = begun()
    intent = ledger.add(ledgers.intent(1))
    index = ledger.add(outcome(1, intent, "0" * 64))
    assert told(verified(ledger, tmp_path)) == [
        ("error", "outcome.leafHash", index),
        ("warning", "intent.open", intent),
    ]


FAILED = {"code": "process.exit", "exitCode": 20, "found": None, "expected": None}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "outcome.okExit": ({}, {"exit": {"code": 7, "signal": None}}),
    "outcome.exit": ({}, {"exit": {"code": 0, "signal": 9}}),
    "outcome.error": ({}, {"status": "limitExceeded", "error": FAILED, "facts": None}),
    "outcome.outputs": ({"outputs": ["a"]}, {"outputs": [{"name": "b", "size": 1, "sha256": "a" * 64}]}),
    "outcome.containment": ({"isolation": {"level": "pidNamespace", "required": True}}, {}),
    "outcome.changed": ({}, {"dependenciesAfter": {"status": "unchanged", "changed": ["model.gguf"]}}),
}


@pytest.mark.parametrize("rule", CONTRADICTIONS)
def test_an_outcome_that_contradicts_its_intent_or_itself_is_broken(tmp_path: Path, rule: str) -> None:
    announced, told_of_it = CONTRADICTIONS[rule]
    ledger = begun()
    first = ledger.add(ledgers.intent(1, **announced))
    index = ledger.add(outcome(1, first, ledger.hash_at(first), **told_of_it))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", rule, index)])


def test_a_failure_with_an_output_that_was_never_announced_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    first = ledger.add(ledgers.intent(1, outputs=["a"]))
    outputs = [{"name": "b", "size": 1, "sha256": "a" * 64}]
    index = ledger.add(
        outcome(1, first, ledger.hash_at(first), status="failed", error=FAILED, facts=None, outputs=outputs)
    )
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "outcome.outputs", index)])


def test_an_end_that_keeps_to_its_intent_is_intact(tmp_path: Path) -> None:
    ledger = begun()
    required = {"level": "pidNamespace", "required": True}
    first = ledger.add(ledgers.intent(1, outputs=["a"], okExit=[0, 3], isolation=required))
    contained = {"level": "pidNamespace", "parentDeathSignal": True, "subreaper": True, "leftovers": 0}
    outputs = [{"name": "a", "size": 1, "sha256": "a" * 64}]
    ended = {"exit": {"code": 3, "signal": None}, "containment": contained, "outputs": outputs}
    draft = outcome(1, first, ledger.hash_at(first), **ended)
    ledger.add(Draft("outcome", draft.predicate, (("a", "a" * 64),)))
    assert told(verified(ledger, tmp_path)) == []


def test_an_outcome_of_another_invocation_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    intent = ledger.add(ledgers.intent(1))
    index = ledger.add(outcome(2, intent, ledger.hash_at(intent)))
    assert told(verified(ledger, tmp_path)) == [("error", "outcome.invocationId", index)]


def test_a_gap_about_an_intent_with_an_outcome_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    intent, _ = ledger.invoke(1)
    index = ledger.add(ledgers.gap(intent, ledger.hash_at(intent)))
    assert told(verified(ledger, tmp_path)) == [("error", "gap.second", index)]


def test_two_gaps_about_one_intent_are_broken(tmp_path: Path) -> None:
    ledger = begun()
    intent = ledger.add(ledgers.intent(1))
    ledger.add(ledgers.gap(intent, ledger.hash_at(intent)))
    index = ledger.add(ledgers.gap(intent, ledger.hash_at(intent)))
    assert ("error", "gap.second", index) in told(verified(ledger, tmp_path))


def test_a_gap_about_another_kind_of_entry_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    index = ledger.add(ledgers.gap(0, ledger.hash_at(0)))
    assert told(verified(ledger, tmp_path)) == [("error", "gap.intent", index)]


def test_a_gap_about_no_intent_is_allowed(tmp_path: Path) -> None:
    ledger = begun()
    ledger.add(ledgers.gap(None, None, reason="pendingUnreadable"))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (ExitCode.SUCCESS, [])


def test_an_outcome_that_was_found_after_its_gap_closes_the_intent(tmp_path: Path) -> None:
    ledger = begun()
    intent = ledger.add(ledgers.intent(1))
    ledger.add(ledgers.gap(intent, ledger.hash_at(intent)))
    ledger.add(outcome(1, intent, ledger.hash_at(intent), 5))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report), report.counts.orphaned) == (ExitCode.SUCCESS, [], 0)


# Intents without an end


def open_ledger_of_one() -> Ledger:
    ledger = begun()
    ledger.add(ledgers.intent(1))
    return ledger


@pytest.mark.parametrize(
    ("is_running", "at_second", "level", "rule", "counts"),
    [
        (None, None, "warning", "intent.open", (0, 0, 1, 0)),
        (None, 10, "warning", "intent.open", (0, 0, 1, 0)),
        (None, 100, "warning", "intent.overdue", (0, 0, 1, 1)),
        (True, 10, "note", "intent.running", (1, 0, 0, 0)),
        (True, 100, "warning", "intent.overdue", (1, 0, 0, 1)),
        (False, 10, "warning", "intent.orphaned", (0, 1, 0, 0)),
        (False, 100, "warning", "intent.orphaned", (0, 1, 0, 1)),
    ],
)
def test_an_open_intent_is_told_and_is_no_failure(
    tmp_path: Path,
    is_running: bool | None,
    at_second: int | None,
    level: str,
    rule: str,
    counts: tuple[int, int, int, int],
) -> None:
    question = Question(
        is_running=lambda _: is_running, at=None if at_second is None else at(at_second), require=("keyed",)
    )
    report = verified(open_ledger_of_one(), tmp_path, question)
    assert (report.exit_code, report.integrity) == (ExitCode.SUCCESS, "intact")
    assert told(report) == [(level, rule, 1)]
    found = report.counts
    assert (found.running, found.orphaned, found.open, found.overdue) == counts


def test_leases_are_asked_for_the_invocation_id(tmp_path: Path) -> None:
    asked: list[str] = []
    verified(open_ledger_of_one(), tmp_path, Question(is_running=lambda i: bool(asked.append(i))))
    assert asked == [f"{1:032x}"]


def test_a_running_intent_is_complete_enough(tmp_path: Path) -> None:
    question = Question(is_running=lambda _: True, require=("complete",))
    assert verified(open_ledger_of_one(), tmp_path, question).exit_code is ExitCode.SUCCESS


@pytest.mark.parametrize("is_running", [None, False])
def test_an_intent_without_an_end_is_a_no_when_completeness_is_required(
    tmp_path: Path, is_running: bool | None
) -> None:
    question = Question(is_running=lambda _: is_running, require=("complete",))
    report = verified(open_ledger_of_one(), tmp_path, question)
    assert (report.exit_code, report.integrity) == (ExitCode.EVIDENCE_INCOMPLETE, "intact")


def test_an_intent_that_a_gap_names_is_orphaned(tmp_path: Path) -> None:
    ledger = open_ledger_of_one()
    ledger.add(ledgers.gap(1, ledger.hash_at(1)))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, report.counts.orphaned) == (ExitCode.SUCCESS, 1)
    assert told(report) == [("warning", "intent.orphaned", 1)]
    strict = verified(ledger, tmp_path / "strict", Question(require=("complete",)))
    assert strict.exit_code is ExitCode.EVIDENCE_INCOMPLETE


# Claims, links, policies, clock


def test_a_request_id_that_is_claimed_twice_is_broken(tmp_path: Path) -> None:
    ledger = begun()
    ledger.invoke(1, 1, request_id="job-1")
    index, _ = ledger.invoke(2, 3, request_id="job-1")
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "intent.requestId", index)])


def test_a_denial_does_not_use_up_a_request_id(tmp_path: Path) -> None:
    ledger = begun()
    ledger.add(ledgers.denied(1, request={"id": "job-1", "commitment": ledgers.commitment()}))
    ledger.invoke(1, 2, request_id="job-1")
    assert verified(ledger, tmp_path).exit_code is ExitCode.SUCCESS


def test_two_open_intents_of_one_invocation_are_broken(tmp_path: Path) -> None:
    ledger = open_ledger_of_one()
    index = ledger.add(ledgers.intent(1))
    assert ("error", "intent.invocationId", index) in told(verified(ledger, tmp_path))


def link(index: int, leaf_hash: str) -> dict[str, object]:
    return {"relation": "attemptOf", "index": index, "leafHash": leaf_hash}


def test_a_link_to_an_earlier_entry_is_followed(tmp_path: Path) -> None:
    ledger = begun()
    ledger.invoke(1)
    ledger.invoke(2, 3, links=[link(1, ledger.hash_at(1))])
    report = verified(ledger, tmp_path)
    assert report.exit_code is ExitCode.SUCCESS
    assert next(check for check in report.checks if check.id == "links").judged == 1


@pytest.mark.parametrize("target", [1, 3, 99])
def test_a_link_that_leads_elsewhere_is_broken(tmp_path: Path, target: int) -> None:
    ledger = begun()
    ledger.invoke(1)
    ledger.invoke(2, 3, links=[link(target, "0" * 64)])
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (BROKEN, [("error", "link.target", 3)])


def test_an_intent_under_a_policy_that_was_not_adopted_is_told(tmp_path: Path) -> None:
    ledger = begun()
    other = {"sha256": "9" * 64}
    ledger.invoke(1, 1, policy=other)
    ledger.add(ledgers.policy_adopted("9" * 64, 3))
    ledger.invoke(2, 4, policy=other)
    report = verified(ledger, tmp_path)
    assert report.exit_code is ExitCode.SUCCESS
    assert told(report) == [("warning", "intent.policy", 1)]


def test_a_clock_that_goes_backwards_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    ledger = begun()
    ledger.add(ledgers.denied(9))
    index = ledger.add(ledgers.denied(3))
    report = verified(ledger, tmp_path)
    assert (report.exit_code, report.integrity) == (ExitCode.SUCCESS, "intact")
    assert told(report) == [("note", "clock.backwards", index)]
    assert all(check.status == "passed" for check in report.checks)


def test_merged_refusals_are_counted(tmp_path: Path) -> None:
    ledger = begun()
    ledger.add(ledgers.denied(1, count=40))
    ledger.add(ledgers.denied(2))
    report = verified(ledger, tmp_path)
    assert (report.counts.refusals, report.counts.kinds) == (41, (("denied", 2), ("genesis", 1)))


def test_statuses_of_outcomes_are_counted(tmp_path: Path) -> None:
    ledger = begun()
    ledger.invoke(1)
    intent = ledger.add(ledgers.intent(2, 3))
    failed = {"code": "command.failed", "exitCode": 20, "found": None, "expected": None}
    ledger.add(outcome(2, intent, ledger.hash_at(intent), 4, status="failed", error=failed, facts=None))
    assert verified(ledger, tmp_path).counts.statuses == (("failed", 1), ("succeeded", 1))


# Keys over time


def keyed_ledger() -> Ledger:
    """A ledger whose entry 3 adds a second receipt key."""
    ledger = begun()
    ledger.invoke(1)
    ledger.add(ledgers.key_added(SECOND), SECOND, ROOT)
    return ledger


def test_a_key_that_the_root_key_added_counts_from_then_on(tmp_path: Path) -> None:
    ledger = keyed_ledger()
    ledger.add(ledgers.denied(5), SECOND)
    ledger.add(ledgers.denied(6), RECEIPT)
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (ExitCode.SUCCESS, [])
    assert next(check for check in report.checks if check.id == "keyChanges").judged == 1


def test_a_key_does_not_count_before_it_was_added(tmp_path: Path) -> None:
    ledger = begun()
    early = ledger.add(ledgers.denied(1), SECOND)
    ledger.add(ledgers.key_added(SECOND), SECOND, ROOT)
    ledger.add(ledgers.denied(5), SECOND)
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (
        ExitCode.SIGNATURE_UNTRUSTED,
        [("error", "signature.untrusted", early)],
    )


def test_a_key_counts_in_later_batches_too(tmp_path: Path) -> None:
    ledger = keyed_ledger()
    for second in range(5, 1100):
        ledger.add(ledgers.denied(second), SECOND, checkpoint=False)
    ledger.sign()
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (ExitCode.SUCCESS, [])


@pytest.mark.parametrize(
    ("signers", "rule"),
    [
        ((SECOND, RECEIPT), "key.signature.untrusted"),
        ((ROOT, SECOND), "key.order"),
        ((ROOT,), "key.signature.count"),
        ((RECEIPT,), "key.signature.count"),
    ],
)
def test_a_key_that_others_add_does_not_count(
    tmp_path: Path, signers: tuple[ledgers.Ed25519Signer, ...], rule: str
) -> None:
    ledger = begun()
    index = ledger.add(ledgers.key_added(SECOND), *signers)
    later = ledger.add(ledgers.denied(5), SECOND)
    report = verified(ledger, tmp_path)
    assert report.exit_code is ExitCode.SIGNATURE_UNTRUSTED
    assert told(report) == [("error", "signature.untrusted", later), ("error", rule, index)]


def test_a_root_key_that_was_added_may_add_keys_and_one_that_was_revoked_may_not(tmp_path: Path) -> None:
    ledger = begun()
    new_root = ledgers.STRANGER
    ledger.add(ledgers.key_added(new_root, "root"), new_root, ROOT)
    ledger.add(ledgers.key_revoked(ROOT, None, "root", "retired"), ROOT)
    ledger.add(ledgers.key_added(SECOND, second=6), SECOND, new_root)
    ledger.add(ledgers.denied(6), SECOND)
    index = ledger.add(ledgers.key_revoked(RECEIPT, None, second=7), ROOT)
    report = verified(ledger, tmp_path)
    assert told(report) == [("error", "key.signature.untrusted", index)]


def test_a_receipt_signed_by_a_revoked_key_is_refused(tmp_path: Path) -> None:
    ledger = keyed_ledger()
    ledger.add(ledgers.key_revoked(SECOND, None, reason="retired"), ROOT)
    ledger.add(ledgers.denied(6), RECEIPT)
    index = ledger.add(ledgers.denied(7), SECOND)
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (
        ExitCode.SIGNATURE_UNTRUSTED,
        [("error", "signature.revoked", index)],
    )


def suspect_ledger() -> Ledger:
    """Entries 4 to 6 are signed by a key that entry 7 revokes, suspect from entry 5 on."""
    ledger = keyed_ledger()
    for second in (5, 6, 7):
        ledger.add(ledgers.denied(second), SECOND)
    ledger.add(ledgers.key_revoked(SECOND, 5, second=8), ROOT)
    ledger.add(ledgers.denied(9), RECEIPT)
    return ledger


def test_receipts_signed_since_a_key_was_compromised_are_suspect(tmp_path: Path) -> None:
    report = verified(suspect_ledger(), tmp_path)
    assert (report.exit_code, report.integrity) == (ExitCode.EVIDENCE_INCOMPLETE, "intact")
    assert told(report) == [("error", "signature.suspect", 5), ("error", "signature.suspect", 6)]


def test_receipts_below_a_pinned_checkpoint_are_not_suspect(tmp_path: Path) -> None:
    ledger = suspect_ledger()
    report = verified(ledger, tmp_path, Question(pinned=ledger.notes[6]))
    assert told(report) == [("error", "signature.suspect", 6)]
    whole = verified(ledger, tmp_path / "whole", Question(pinned=ledger.notes[7]))
    assert (whole.exit_code, told(whole)) == (ExitCode.SUCCESS, [])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (ledgers.key_revoked(ROOT, None, "root", "retired"), "key.lastRoot"),
        (ledgers.key_revoked(RECEIPT, 5), "key.suspectFrom"),
    ],
)
def test_a_revocation_that_no_root_key_may_sign_is_found(tmp_path: Path, change: Draft, rule: str) -> None:
    ledger = begun()
    index = ledger.add(change, ROOT)
    report = verified(ledger, tmp_path)
    assert (report.exit_code, told(report)) == (ExitCode.LEDGER_INCONSISTENT, [("error", rule, index)])


def test_revoking_a_key_that_never_counted_changes_nothing(tmp_path: Path) -> None:
    ledger = begun()
    ledger.add(ledgers.key_revoked(SECOND, 0), ROOT)
    ledger.add(ledgers.denied(6))
    assert verified(ledger, tmp_path).exit_code is ExitCode.SUCCESS


def test_a_key_that_is_added_twice_counts_once(tmp_path: Path) -> None:
    ledger = keyed_ledger()
    ledger.add(ledgers.key_added(SECOND), SECOND, ROOT)
    ledger.add(ledgers.denied(6), SECOND)
    assert verified(ledger, tmp_path).exit_code is ExitCode.SUCCESS
