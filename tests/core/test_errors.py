"""Every refusal has one code, and people and processes can read it whole."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import MEANING, ExitCode, GovrunError

# The table of the design, spelt out a second time.
TABLE = {
    0: "success",
    1: "crash",
    2: "usage",
    10: "request-invalid",
    11: "policy-denied",
    12: "backend-unavailable",
    13: "preflight-refused",
    14: "template-refused",
    15: "ledger-unavailable",
    16: "ledger-rolled-back",
    20: "command-failed",
    21: "limit-exceeded",
    22: "output-unparsable",
    23: "interrupted",
    30: "receipt-invalid",
    31: "signing-failed",
    32: "append-failed",
    33: "checkpoint-failed",
    40: "ledger-inconsistent",
    41: "signature-untrusted",
    42: "policy-violated",
    43: "evidence-incomplete",
    44: "history-diverged",
    45: "could-not-check",
    50: "replay-different",
    51: "replay-not-comparable",
}
RAN = {0: "yes", 1: "unknown", 2: "no"}
RAN_BY_TENS = {1: "no", 2: "yes", 3: "yes", 4: "nothing run", 5: "yes"}


def test_exit_codes_are_those_of_the_design_and_no_others() -> None:
    assert {int(code): code.label for code in ExitCode} == TABLE


def test_every_code_has_a_meaning_in_the_order_of_the_table() -> None:
    assert list(ExitCode) == list(MEANING)
    assert all(len(row) == 3 and all(row) for row in MEANING.values())


@pytest.mark.parametrize("code", ExitCode)
def test_the_tens_digit_says_whether_anything_ran(code: ExitCode) -> None:
    expected = RAN[code] if code < 10 else RAN_BY_TENS[code // 10]
    assert expected == MEANING[code][0]


def test_evidence_follows_the_tens_digit() -> None:
    evidence = {code // 10: set() for code in ExitCode}
    for code, (_, what, _) in MEANING.items():
        evidence[code // 10].add(what)
    assert evidence[1] == {"denied entry if the ledger can be written", "none"}
    assert evidence[2] == {"outcome appended"}
    assert evidence[3] == {"kept in pending/"}
    assert evidence[4] == {"verdict no", "no verdict"}
    assert evidence[5] == {"appended"}


words = st.none() | st.text(max_size=20)


@given(st.sampled_from(ExitCode), st.text(max_size=20), st.text(max_size=20), words, words, words, words)
def test_an_error_survives_the_way_to_another_process(
    code: ExitCode,
    rule: str,
    what: str,
    found: str | None,
    expected: str | None,
    fix: str | None,
    effect: str | None,
) -> None:
    error = GovrunError(code, rule, what, found=found, expected=expected, fix=fix, effect=effect)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert vars(error) == vars(again)
        assert str(error) == str(again)


def test_a_refusal_reads_what_rule_found_expected_fix_effect() -> None:
    error = GovrunError(
        ExitCode.POLICY_DENIED, "policy.task", "the task is not known", found="a", expected="b", fix="c", effect="d"
    )
    assert str(error).splitlines() == [
        "policy-denied: the task is not known [policy.task]",
        "  found:    a",
        "  expected: b",
        "  fix:      c",
        "  effect:   d",
    ]


def test_what_is_not_said_takes_no_line() -> None:
    assert GovrunError(ExitCode.USAGE, "usage", "wrong").lines() == ["usage: wrong [usage]"]


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_in_a_refusal_can_drive_the_terminal_or_start_a_line(what: str, found: str) -> None:
    lines = GovrunError(ExitCode.USAGE, "usage", what, found=found).lines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_control_characters_are_shown_escaped() -> None:
    assert "\\x1b[2J\\n" in GovrunError(ExitCode.USAGE, "usage", "\x1b[2J\n").lines()[0]
