"""A report for people: what was checked, what was found, what it rests on, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from govrun.audit.report import Check, Counts, PolicyCounts, Report
from govrun.formats import words

# How many findings of one check are shown; the rest are counted.
SHOWN: Final = 5
_SINGULAR: Final = {"policyAdopted": "policy adopted", "keyAdded": "key added", "keyRevoked": "key revoked"}
_PLURAL: Final = {"intent": "intents", "outcome": "outcomes", "gap": "gaps"}


def render(report: Report, *, colour: bool = False, width: int = words.WIDTH) -> str:
    """The report as text, newline at the end, about width columns; escape sequences only for colour.

    Whatever comes from the ledger is shown on one line, with control characters escaped and length bounded.
    """
    return "".join(f"{line}\n" for line in words.wrapped(_lines(report, colour), width))


def _lines(report: Report, colour: bool) -> Iterator[str]:
    yield words.field("ledger", words.plain(report.origin))
    yield words.field("entries", f"{report.size:,}{_kinds(report.counts)}")
    if report.root is not None:
        yield words.field("root", report.root)
    if read := _read(report):
        yield words.field("read", read)
    yield ""
    wide = max((len(check.what) for check in report.checks), default=0)
    numbers = max((len(_ratio(check)) for check in report.checks), default=0)
    for check in report.checks:
        yield from _check(check, wide, numbers, colour)
    yield ""
    if report.policy is not None:
        yield from words.fields("policy", _policy(report.policy))
    if unended := _unended(report.counts):
        yield words.field("open", unended)
    yield from words.fields("integrity", _integrity(report))
    yield from words.fields("assurance", (report.assurance, *map(words.plain, report.assurance_lines)))
    yield from words.fields("not shown", report.not_shown)
    yield words.verdict_line(report.exit_code, colour)


def _check(check: Check, wide: int, numbers: int, colour: bool) -> Iterator[str]:
    note = f"  ({check.note})" if check.note else ""
    yield f"  {words.mark(check.status, colour)}  {check.what:<{wide}}  {_ratio(check):>{numbers}}{note}".rstrip()
    for finding in check.findings[:SHOWN]:
        yield from words.finding_lines(finding)
    if check.count > SHOWN:
        yield f"          and {check.count - SHOWN:,} more"


def _ratio(check: Check) -> str:
    if check.status == "notChecked":
        return "not checked"
    return f"{check.judged - check.failed:,} of {check.judged:,}"


def _kinds(counts: Counts) -> str:
    shown = []
    for kind, number in counts.kinds:
        name = _SINGULAR.get(kind, kind) if number == 1 else _PLURAL.get(kind, _SINGULAR.get(kind, kind))
        refusals = f" ({counts.refusals:,} refusals)" if kind == "denied" and counts.refusals != number else ""
        shown.append(f"{number:,} {name}{refusals}")
    return f" ({', '.join(shown)})" if shown else ""


def _read(report: Report) -> str | None:
    """Which entries were read, where a bookmark had a say in it."""
    if report.checked_from:
        new = f"{report.size - report.checked_from:,} entries, from {report.checked_from:,} on"
        return f"{new}; the bookmark vouches for the {report.checked_from:,} before"
    return None if report.unused is None else f"every entry: {words.plain(report.unused)}"


def _policy(policy: PolicyCounts) -> Iterator[str]:
    if not policy.judged:
        yield f"0 invocations judged by the auditor's policy {policy.digest[:16]}"
        return
    yield (
        f"{policy.compliant:,} of {policy.judged:,} invocations allowed by the auditor's policy {policy.digest[:16]}"
    )
    yield f"{policy.in_force_compliant:,} of {policy.in_force_judged:,} allowed by the policy that they name"
    if policy.unavailable:
        yield f"policy unavailable for {policy.unavailable:,}"


def _unended(counts: Counts) -> str:
    named = (("running", counts.running), ("orphaned", counts.orphaned), ("open", counts.open))
    parts = [f"{number:,} {name}" for name, number in named if number]
    if counts.overdue:
        parts.append(f"{counts.overdue:,} of them overdue")
    return ", ".join(parts)


def _integrity(report: Report) -> Iterator[str]:
    yield report.integrity
    if (broken := report.broken_at) is not None:
        where = "" if broken.index is None else f"at entry {broken.index:,}: "
        yield f"{where}{words.plain(broken.what)}"
