"""A Go program that shares no code with govrun judges the corpus, and finds what the cases say.

It does not read what they expect. Schemas, rules between entries, and what a verifier demands are beyond it: it must
accept a case that is wrong in nothing else, which shows that such a case has one fault.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).resolve().parents[1] / "vectors"

# Kinds and checks that the program leaves alone.
NOT_JUDGED = {"statement", "policy", "disclosure"}
BEYOND = {
    "ledger": {"receipts", "genesis", "outcomes", "requests", "links", "intents", "suspects", "assurance"},
    "proof": {"pin", "assurance"},
}


@pytest.fixture(scope="module")
def judged(program: Path) -> list[dict[str, Any]]:
    done = subprocess.run([program, "-vectors", VECTORS], capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected_of(case: str) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((VECTORS / case / "case.json").read_bytes())["expected"]
    return expected


def test_go_finds_what_the_cases_say(judged: list[dict[str, Any]]) -> None:
    differing = {}
    for one in judged:
        expected = expected_of(one["case"])
        verdict = expected["verdict"]
        # A payload in another spelling is seen without its schema.
        if expected.get("check") in BEYOND.get(one["kind"], ()) and one["case"] != "ledger-not-canonical_fail":
            verdict = "accept"
        if one["verdict"] not in (verdict, "notJudged"):
            differing[one["case"]] = one
    assert {} == differing


def test_go_judges_every_case_but_those_of_three_kinds_and_those_without_a_log_key(
    judged: list[dict[str, Any]],
) -> None:
    assert {path.parent.name for path in VECTORS.glob("*/case.json")} == {one["case"] for one in judged}
    left = Counter(one["kind"] for one in judged if one["verdict"] == "notJudged" and one["kind"] not in NOT_JUDGED)
    assert {"ledger": 2, "proof": 1} == dict(left)
    both = {(one["kind"], one["verdict"]) for one in judged if one["verdict"] != "notJudged"}
    assert {(kind, verdict) for kind, _ in both for verdict in ("accept", "reject")} == both
    assert sum(one["verdict"] == "reject" for one in judged) > 200
