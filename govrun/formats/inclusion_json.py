"""The verdict on a proof for programs: one JSON object, `schemas/inclusion.v1.json`.

What its members are called and mean does not change within a version; the words in `what`, `note`, `found`,
`expected` and `notShown` are for people and may.
"""

from __future__ import annotations

from govrun import canonical
from govrun.canonical import JsonObject
from govrun.formats import as_json, words
from govrun.inclusion import InclusionReport


def render(report: InclusionReport) -> bytes:
    """The report's bytes, canonical JSON and a newline; equal reports give equal bytes."""
    return canonical.encode(to_object(report)) + b"\n"


def to_object(report: InclusionReport) -> JsonObject:
    """The report as a value of inclusion.v1."""
    code = report.exit_code
    return {
        "format": 1,
        "verdict": words.verdict_word(code),
        "exitCode": int(code),
        "exitName": code.label,
        "inclusion": report.inclusion,
        "entry": {
            "index": report.index,
            "leafHash": report.leaf_hash,
            "kind": None if report.statement is None else report.statement.kind,
        },
        "checkpoint": {"origin": report.origin, "size": report.size, "rootHash": report.root},
        "assurance": report.assurance,
        "checks": [
            {
                "id": check.id,
                "what": check.what,
                "status": check.status,
                "note": check.note,
                "findings": [as_json.finding_object(finding) for finding in check.findings],
            }
            for check in report.checks
        ],
        "notShown": list(report.not_shown),
    }
