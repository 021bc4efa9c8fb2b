"""The reference ledger of format 1 still verifies, and nobody writes it again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from govrun.audit.trust import trusted_by
from govrun.audit.verify import Question, audit_ledger, verify_ledger
from govrun.errors import ExitCode
from govrun.home import parse_trust
from govrun.ledger.read import open_ledger
from govrun.policy import parse_policy

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "ledger"
TRUSTED = trusted_by(parse_trust((LEDGER / "trust.toml").read_bytes(), "trust.toml"))


def test_the_reference_ledger_is_intact_under_its_published_keys() -> None:
    report = verify_ledger(open_ledger(LEDGER), TRUSTED, Question(pinned=(LEDGER / "checkpoint").read_bytes()))
    assert ("intact", "pinned", ExitCode.SUCCESS) == (report.integrity, report.assurance, report.exit_code)
    assert 26 == report.size
    kinds = dict(report.counts.kinds)
    assert {"genesis": 1, "policyAdopted": 1, "intent": 10, "outcome": 9, "denied": 4, "gap": 1} == kinds


def test_the_reference_ledger_keeps_to_the_policy_that_it_adopted() -> None:
    (file,) = (LEDGER / "policies").iterdir()
    policy = parse_policy(file.read_bytes())
    assert file.stem == policy.digest
    report = audit_ledger(open_ledger(LEDGER), TRUSTED, policy, None, (policy,))
    assert report.policy is not None
    assert (10, 10, 10, 0) == (
        report.policy.judged,
        report.policy.compliant,
        report.policy.in_force_compliant,
        report.policy.unavailable,
    )


def test_any_changed_byte_of_an_entry_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "ledger"
    shutil.copytree(LEDGER, copy)
    (bundle,) = (copy / "tile" / "entries").rglob("26")
    data = bytearray(bundle.read_bytes())
    data[len(data) // 3] ^= 1
    bundle.write_bytes(data)
    assert ExitCode.LEDGER_INCONSISTENT == verify_ledger(open_ledger(copy), TRUSTED).exit_code


def test_the_reference_ledger_is_never_written_again() -> None:
    before = {path: path.read_bytes() for path in LEDGER.rglob("*") if path.is_file()}
    script = ROOT / "tests" / "reference" / "make_ledger.py"
    done = subprocess.run([sys.executable, script, LEDGER], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (1, "") == (done.returncode, done.stdout)
    assert "never written again" in done.stderr
    assert before == {path: path.read_bytes() for path in LEDGER.rglob("*") if path.is_file()}
