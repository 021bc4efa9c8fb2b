"""A report for programs: one JSON object, `schemas/report.v1.json`.

What its members are called and mean does not change within a version; the words in `what`, `found`, `expected` and
`grounds` are for people and may.
"""

from __future__ import annotations

from govrun import canonical
from govrun.audit.report import Check, Counts, Finding, PolicyCounts, Report
from govrun.canonical import JsonObject
from govrun.errors import ExitCode


def render(report: Report) -> bytes:
    """The report's bytes, canonical JSON and a newline; equal reports give equal bytes."""
    return canonical.encode(to_object(report)) + b"\n"


def to_object(report: Report) -> JsonObject:
    """The report as a value of report.v1."""
    code = report.exit_code
    return {
        "format": 1,
        "verdict": "yes" if code is ExitCode.SUCCESS else "none" if code is ExitCode.COULD_NOT_CHECK else "no",
        "exitCode": int(code),
        "exitName": code.label,
        "ledger": {"origin": report.origin, "size": report.size, "rootHash": report.root},
        "read": {"fromIndex": report.checked_from, "bookmarkUnused": report.unused},
        "integrity": {
            "status": report.integrity,
            "brokenAt": None if report.broken_at is None else finding_object(report.broken_at),
        },
        "assurance": {
            "level": report.assurance,
            "grounds": list(report.assurance_lines),
            "pinnedSize": report.pinned_size,
            "truncation": "notChecked" if report.pinned_size is None else "checkedBelowPin",
        },
        "checks": [_check(check) for check in report.checks],
        "counts": _counts(report.counts),
        "policy": None if report.policy is None else _policy(report.policy),
        "notShown": list(report.not_shown),
    }


def _check(check: Check) -> JsonObject:
    return {
        "id": check.id,
        "what": check.what,
        "status": check.status,
        "judged": check.judged,
        "failed": check.failed,
        "findingCount": check.count,
        "findings": [finding_object(finding) for finding in check.findings],
        "note": check.note,
    }


def finding_object(finding: Finding) -> JsonObject:
    """A finding as programs read it."""
    return {
        "check": finding.check,
        "rule": finding.rule,
        "level": finding.level,
        "index": finding.index,
        "what": finding.what,
        "found": finding.found,
        "expected": finding.expected,
        "exitCode": None if finding.code is None else int(finding.code),
    }


def _counts(counts: Counts) -> JsonObject:
    return {
        "kinds": dict(counts.kinds),
        "statuses": dict(counts.statuses),
        "refusals": counts.refusals,
        "running": counts.running,
        "orphaned": counts.orphaned,
        "open": counts.open,
        "overdue": counts.overdue,
    }


def _policy(policy: PolicyCounts) -> JsonObject:
    return {
        "sha256": policy.digest,
        "judged": policy.judged,
        "compliant": policy.compliant,
        "inForce": {
            "judged": policy.in_force_judged,
            "compliant": policy.in_force_compliant,
            "unavailable": policy.unavailable,
        },
    }
