"""Whether content is what a receipt commits to: the lines and the members that go beside the report on the receipt."""

from __future__ import annotations

from collections.abc import Iterator

from govrun.canonical import JsonObject
from govrun.disclosure import Disclosure, Opened
from govrun.errors import ExitCode, GovrunError
from govrun.formats import words


def lines(asked: Disclosure, result: Opened | GovrunError, code: ExitCode) -> Iterator[str]:
    """The answer for people; code: the exit code of the whole."""
    yield words.field("disclosure", f"{words.plain(asked.field)} of entry {asked.index:,}, {asked.algorithm}")
    if isinstance(result, Opened):
        yield words.field("content", f"these {result.size:,} bytes are what the receipt commits to")
        if asked.salt is not None:
            names = ", ".join([*map(words.plain, result.closed), "and whatever other receipts commit to"])
            yield words.field("closed", f"{names}: this salt opens none of it")
    else:
        yield words.field("content", f"{words.plain(result.what)} [{result.rule}]")
        if result.found is not None and result.expected is not None:
            yield words.field("", f"found {words.plain(result.found)}; expected {words.plain(result.expected)}")
    yield words.field("opened", words.verdict(code))


def to_object(asked: Disclosure, result: Opened | GovrunError, code: ExitCode, report: JsonObject) -> JsonObject:
    """The answer for programs, with the report on the receipt inside."""
    error = result if isinstance(result, GovrunError) else None
    return {
        "format": 1,
        "verdict": words.verdict_word(code),
        "exitCode": int(code),
        "exitName": code.label,
        "disclosure": {
            "index": asked.index,
            "field": asked.field,
            "algorithm": asked.algorithm,
            "rule": error and error.rule,
            "what": error and error.what,
            "found": error and error.found,
            "expected": error and error.expected,
            "closed": list(result.closed) if isinstance(result, Opened) else [],
        },
        "report": report,
    }
