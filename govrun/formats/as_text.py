"""A report for people: what was checked, what was found, what it rests on, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from govrun.audit.report import Check, Counts, Finding, PolicyCounts, Report, Status
from govrun.errors import ExitCode

# How many findings of one check are shown; the rest are counted.
SHOWN: Final = 5
_MOST_CHARACTERS: Final = 300

_MARKS: Final[dict[Status, tuple[str, str]]] = {
    "passed": ("ok", "\x1b[32m"),
    "warned": ("warn", "\x1b[33m"),
    "failed": ("FAIL", "\x1b[31m"),
    "notChecked": ("-", "\x1b[2m"),
}
_RESET: Final = "\x1b[0m"
_SINGULAR: Final = {"policyAdopted": "policy adopted", "keyAdded": "key added", "keyRevoked": "key revoked"}
_PLURAL: Final = {"intent": "intents", "outcome": "outcomes", "gap": "gaps"}


def render(report: Report, *, colour: bool = False) -> str:
    """The report as text, newline at the end; escape sequences only for colour.

    Whatever comes from the ledger is shown on one line, with control characters escaped and length bounded.
    """
    return "".join(f"{line}\n" for line in _lines(report, colour))


def _lines(report: Report, colour: bool) -> Iterator[str]:
    yield _field("ledger", _plain(report.origin))
    yield _field("entries", f"{report.size:,}{_kinds(report.counts)}")
    if report.root is not None:
        yield _field("root", report.root)
    yield ""
    wide = max((len(check.what) for check in report.checks), default=0)
    numbers = max((len(_ratio(check)) for check in report.checks), default=0)
    for check in report.checks:
        yield from _check(check, wide, numbers, colour)
    yield ""
    if report.policy is not None:
        yield from _fields("policy", _policy(report.policy))
    if unended := _unended(report.counts):
        yield _field("open", unended)
    yield from _fields("integrity", _integrity(report))
    yield from _fields("assurance", (report.assurance, *map(_plain, report.assurance_lines)))
    yield from _fields("not shown", report.not_shown)
    yield _field("verdict", _verdict(report.exit_code))


def _check(check: Check, wide: int, numbers: int, colour: bool) -> Iterator[str]:
    word, start = _MARKS[check.status]
    mark = f"{word:<4}"
    if colour:
        mark = f"{start}{mark}{_RESET}"
    note = f"  ({check.note})" if check.note else ""
    yield f"  {mark}  {check.what:<{wide}}  {_ratio(check):>{numbers}}{note}".rstrip()
    for finding in check.findings[:SHOWN]:
        yield from _finding(finding)
    if check.count > SHOWN:
        yield f"          and {check.count - SHOWN:,} more"


def _ratio(check: Check) -> str:
    if check.status == "notChecked":
        return "not checked"
    return f"{check.judged - check.failed:,} of {check.judged:,}"


def _finding(finding: Finding) -> Iterator[str]:
    where = "" if finding.index is None else f"entry {finding.index:,}: "
    yield f"          {where}{_plain(finding.what)} [{_plain(finding.rule)}]"
    values = [
        f"{name} {_plain(value)}"
        for name, value in (("found", finding.found), ("expected", finding.expected))
        if value is not None
    ]
    if values:
        yield f"            {'; '.join(values)}"


def _kinds(counts: Counts) -> str:
    shown = []
    for kind, number in counts.kinds:
        name = _SINGULAR.get(kind, kind) if number == 1 else _PLURAL.get(kind, _SINGULAR.get(kind, kind))
        refusals = f" ({counts.refusals:,} refusals)" if kind == "denied" and counts.refusals != number else ""
        shown.append(f"{number:,} {name}{refusals}")
    return f" ({', '.join(shown)})" if shown else ""


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
        yield f"{where}{_plain(broken.what)}"


def _verdict(code: ExitCode) -> str:
    if code is ExitCode.SUCCESS:
        return "yes"
    return f"{'none' if code is ExitCode.COULD_NOT_CHECK else 'no'} ({int(code)} {code.label})"


def _fields(name: str, values: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield _field(name if number == 0 else "", value)


def _field(name: str, value: str) -> str:
    return f"{name:<10}  {value}".rstrip()


def _plain(text: str) -> str:
    """The text on one line: nothing in it can move the cursor, and its length is bounded."""
    if len(text) > _MOST_CHARACTERS:
        text = text[:_MOST_CHARACTERS] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
