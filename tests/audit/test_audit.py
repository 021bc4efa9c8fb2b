"""An audit verifies, and judges every invocation by two policies; refusals that were recorded are no violations."""

from __future__ import annotations

from pathlib import Path

from govrun.audit.report import PolicyCounts, Report
from govrun.audit.verify import audit_ledger
from govrun.errors import ExitCode
from govrun.ledger.read import open_ledger
from govrun.policy import Policy, parse_policy
from tests.audit import ledgers
from tests.audit.ledgers import TRUSTED, Ledger

ALLOWING = parse_policy(b"format = 1\n[backends.bitnet]\n[tasks.route]\nbackend = 'bitnet'\n")
FORBIDDING = parse_policy(b"format = 1\n[backends.process]\n[tasks.route]\nbackend = 'process'\n")


def audited(ledger: Ledger, tmp_path: Path, policy: Policy, known: tuple[Policy, ...] = ()) -> Report:
    path = ledgers.write_sqlite(ledger, tmp_path / "ledger")
    return audit_ledger(open_ledger(path), TRUSTED, policy, known=known)


def test_a_compliant_ledger_is_a_yes(tmp_path: Path) -> None:
    report = audited(ledgers.six(), tmp_path, ALLOWING)
    assert (report.exit_code, report.integrity) == (ExitCode.SUCCESS, "intact")
    assert report.policy == PolicyCounts(ALLOWING.digest, 2, 2, 0, 0, 2)


def test_every_violation_is_found_and_located(tmp_path: Path) -> None:
    report = audited(ledgers.six(), tmp_path, FORBIDDING)
    assert (report.exit_code, report.integrity, report.assurance) == (ExitCode.POLICY_VIOLATED, "intact", "keyed")
    assert {(f.check, f.rule, f.index) for f in report.findings} == {
        ("policy", rule, index) for rule in ("policy.backend", "policy.task") for index in (1, 4)
    }
    assert report.policy is not None
    assert (report.policy.judged, report.policy.compliant) == (2, 0)


def test_the_policy_that_an_intent_names_is_judged_on_its_own(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis(policy={"sha256": FORBIDDING.digest}))
    ledger.invoke(1, 1, policy={"sha256": FORBIDDING.digest})
    ledger.add(ledgers.policy_adopted(ALLOWING.digest, 3))
    ledger.invoke(2, 4, policy={"sha256": ALLOWING.digest})
    ledger.add(ledgers.policy_adopted("8" * 64, 6))
    ledger.invoke(3, 7, policy={"sha256": "8" * 64})
    report = audited(ledger, tmp_path, ALLOWING, (FORBIDDING, ALLOWING))
    assert report.exit_code is ExitCode.POLICY_VIOLATED
    assert {(f.check, f.index) for f in report.findings} == {("policyInForce", 1)}
    assert report.policy == PolicyCounts(ALLOWING.digest, 3, 3, 2, 1, 1)
    assert next(check for check in report.checks if check.id == "policyInForce").note == "policy unavailable for 1"


def test_a_refusal_is_no_violation(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    ledger.add(ledgers.denied())
    assert audited(ledger, tmp_path, FORBIDDING).exit_code is ExitCode.SUCCESS


def test_a_ledger_without_invocations_says_that_none_was_judged(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    report = audited(ledger, tmp_path, ALLOWING)
    check = next(check for check in report.checks if check.id == "policy")
    assert report.exit_code is ExitCode.SUCCESS
    assert (check.status, check.note) == ("notChecked", "0 invocations judged")


def test_damage_outweighs_a_violation(tmp_path: Path) -> None:
    ledger = ledgers.six()
    ledger.leaves[3] = b"{}"
    assert audited(ledger, tmp_path, FORBIDDING).exit_code is ExitCode.LEDGER_INCONSISTENT
