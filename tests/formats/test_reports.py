"""Reports as people and as programs read them."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import orjson
import pytest
from syrupy.assertion import SnapshotAssertion

from govrun import schemas
from govrun.audit.report import Check, Counts, Finding, Report
from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, audit_ledger, verify_ledger
from govrun.errors import ExitCode
from govrun.formats import as_json, as_text
from govrun.ledger.read import open_ledger
from govrun.policy import parse_policy
from tests.audit import ledgers
from tests.audit.ledgers import TRUSTED, Ledger

POLICY = parse_policy(b"format = 1\n[backends.process]\n[tasks.route]\nbackend = 'process'\n")


def verified(
    ledger: Ledger, tmp_path: Path, question: Question | None = None, trusted: TrustedKeys | None = TRUSTED
) -> Report:
    return verify_ledger(open_ledger(ledgers.write_sqlite(ledger, tmp_path / "ledger")), trusted, question)


def broken() -> Ledger:
    ledger = ledgers.six()
    ledger.leaves[2] = ledger.leaves[2].replace(b"A", b"B", 1)
    return ledger


def orphaned() -> Ledger:
    ledger = ledgers.six()
    ledger.add(ledgers.intent(3, 6))
    ledger.add(ledgers.intent(4, 7))
    ledger.add(ledgers.gap(6, ledger.hash_at(6), 8))
    ledger.add(ledgers.intent(5, 9))
    ledger.add(ledgers.denied(5, count=3))
    return ledger


CASES = {
    "intact": lambda path: verified(ledgers.six(), path),
    "broken": lambda path: verified(broken(), path),
    "unauthenticated": lambda path: verified(ledgers.six(), path, trusted=None),
    "log key alone": lambda path: verified(ledgers.six(), path, trusted=TrustedKeys(log=TRUSTED.log)),
    "pinned": lambda path: verified(ledgers.six(), path, Question(pinned=ledgers.six().notes[4])),
    "diverged": lambda path: verified(
        ledgers.six(), path, Question(pinned=ledgers.many(9).notes[9], writers_hold_log_key=True)
    ),
    "orphaned": lambda path: verified(
        orphaned(), path, Question(is_running=lambda i: i == f"{5:032x}", at=ledgers.at(3600))
    ),
    "incomplete": lambda path: verified(orphaned(), path, Question(require=("pinned", "complete"))),
    "audited": lambda path: audit_ledger(open_ledger(ledgers.write_sqlite(ledgers.six(), path)), TRUSTED, POLICY),
    "nothing to judge": lambda path: audit_ledger(
        open_ledger(ledgers.write_sqlite(_only_genesis(), path)), TRUSTED, POLICY
    ),
}


def _only_genesis() -> Ledger:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    return ledger


@pytest.mark.parametrize("case", list(CASES))
def test_text_for_people(case: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert as_text.render(CASES[case](tmp_path)) == snapshot


@pytest.mark.parametrize("case", list(CASES))
def test_json_fits_its_schema_and_says_the_exit_code(case: str, tmp_path: Path) -> None:
    report = CASES[case](tmp_path)
    data = as_json.render(report)
    document = orjson.loads(data)
    schemas.check(document, "report.v1", None, ExitCode.CRASH, "report")
    assert data.endswith(b"\n")
    assert document["exitCode"] == int(report.exit_code)
    assert document["verdict"] == {0: "yes", 45: "none"}.get(int(report.exit_code), "no")
    assert [check["id"] for check in document["checks"]] == [check.id for check in report.checks]


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    one = as_json.render(verified(broken(), tmp_path / "a"))
    assert one == as_json.render(verified(broken(), tmp_path / "b"))


def test_colour_is_used_only_when_asked_for(tmp_path: Path) -> None:
    report = verified(broken(), tmp_path)
    plain, coloured = as_text.render(report), as_text.render(report, colour=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == plain
    assert "\x1b[31mFAIL" in coloured


@pytest.mark.parametrize("width", [0, 72, 100])
def test_long_lines_are_continued_below_their_text_and_lose_no_word(tmp_path: Path, width: int) -> None:
    report = verified(broken(), tmp_path)
    lines = as_text.render(report, width=width).splitlines()
    whole = as_text.render(report, width=10_000).splitlines()
    columns = [line for line in lines if line[:2] == "  " and line[2] != " "]
    assert all(len(line) <= max(width, 60) for line in lines if line not in columns and len(line.split()) > 2)
    assert columns == [line for line in whole if line[:2] == "  " and line[2] != " "]
    assert " ".join(lines).split() == " ".join(whole).split()


def test_what_a_ledger_says_cannot_drive_the_terminal(tmp_path: Path) -> None:
    finding = Finding(
        "receipts", "receipt.kind", "error", 0, "un\x1b[2Jknown\n", "\x07\u202e" + "x" * 999, None, ExitCode.CRASH
    )
    check = Check("receipts", "receipts", "failed", 1, 1, (finding,), 1, None)
    report = attrs.evolve(verified(ledgers.six(), tmp_path), origin="a\x1b]0;b\r", checks=(check,))
    text = as_text.render(report)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert max(map(len, text.split("\n"))) < 400
    assert "un\\x1b[2Jknown\\n" in text


def test_of_many_findings_five_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    for second in range(120, 0, -1):
        ledger.add(ledgers.denied(second), checkpoint=second == 1)
    report = verified(ledger, tmp_path)
    lines = as_text.render(report).split("\n")
    assert sum("[clock.backwards]" in line for line in lines) == 5
    assert "          and 114 more" in lines
    clock = next(check for check in orjson.loads(as_json.render(report))["checks"] if check["id"] == "clock")
    assert (clock["findingCount"], len(clock["findings"])) == (119, 100)


def test_an_empty_ledger_reads_as_no_verdict(tmp_path: Path) -> None:
    report = attrs.evolve(
        verified(ledgers.six(), tmp_path),
        size=0,
        root=None,
        integrity="unusable",
        checks=(),
        counts=Counts(),
    )
    assert "root" not in as_text.render(report)


def test_a_policy_that_is_unavailable_is_said_to_be(tmp_path: Path) -> None:
    text = as_text.render(CASES["audited"](tmp_path))
    assert "policy unavailable for 2" in text
