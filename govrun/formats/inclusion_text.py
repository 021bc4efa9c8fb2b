"""The verdict on a proof for people: which entry of which log, what was checked, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from govrun.formats import words
from govrun.inclusion import Inclusion, InclusionReport

_INCLUSION: Final[dict[Inclusion, str]] = {
    "included": "included",
    "notIncluded": "not included",
    "notChecked": "not checked",
}


def render(report: InclusionReport, *, colour: bool = False, width: int = words.WIDTH) -> str:
    """The report as text, newline at the end, about width columns; escape sequences only for colour."""
    return "".join(f"{line}\n" for line in words.wrapped(_lines(report, colour), width))


def _lines(report: InclusionReport, colour: bool) -> Iterator[str]:
    yield words.field("entry", f"{report.index:,} of {words.plain(report.origin)}")
    yield words.field("leaf hash", report.leaf_hash)
    if report.statement is not None:
        yield words.field("receipt", _receipt(report))
    yield words.field("checkpoint", f"{report.size:,} entries, root {report.root}")
    yield ""
    for check in report.checks:
        note = f"  ({check.note})" if check.note else ""
        yield f"  {words.mark(check.status, colour)}  {check.what}{note}"
        for finding in check.findings:
            yield from words.finding_lines(finding)
    yield ""
    yield words.field("inclusion", _inclusion(report))
    yield words.field("assurance", report.assurance)
    yield from words.fields("not shown", report.not_shown)
    yield words.verdict_line(report.exit_code, colour)


def _receipt(report: InclusionReport) -> str:
    assert report.statement is not None  # noqa: S101 - the caller asked
    status = report.statement.predicate.get("status")
    return report.statement.kind + ("" if status is None else f", {status}")


def _inclusion(report: InclusionReport) -> str:
    verdict = _INCLUSION[report.inclusion]
    if report.inclusion == "included":
        return f"{verdict} at index {report.index:,} of the log {words.plain(report.origin)}, under a trusted log key"
    return verdict
