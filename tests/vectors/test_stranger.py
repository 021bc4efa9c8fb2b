"""A verifier that was written from SPEC alone answers the cases that need schemas and rules between entries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vectors import stranger, stranger_disclosure, stranger_forms, stranger_policy

HERE = Path(__file__).parent


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    asked = {path.parent.name: json.loads(path.read_bytes()) for path in sorted(HERE.glob(f"{kind}-*/case.json"))}
    assert {kind} == {one["kind"] for one in asked.values()}
    return asked


STATEMENTS = of_kind("statement")
LEDGERS = of_kind("ledger")
POLICIES = of_kind("policy")
DISCLOSURES = of_kind("disclosure")


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements(name: str) -> None:
    payload = (HERE / name / STATEMENTS[name]["file"]).read_bytes()
    expected = STATEMENTS[name]["expected"]
    if expected["verdict"] == "accept":
        assert expected["statementKind"] == stranger_forms.parse_statement(payload)[0]
        return
    with pytest.raises(stranger_forms.NoError) as caught:
        stranger_forms.parse_statement(payload)
    assert expected["exitCode"] == caught.value.finding[2]


@pytest.mark.parametrize("name", LEDGERS)
def test_ledgers(name: str) -> None:
    asked = LEDGERS[name]
    expected = asked["expected"]
    code, failed = stranger.judge_ledger(HERE / name, asked)
    assert expected["exitCode"] == code, failed
    if "check" in expected:
        assert (expected["check"], expected.get("index")) in failed


@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str) -> None:
    asked = POLICIES[name]
    expected = asked["expected"]
    data = (HERE / name / asked["policy"]).read_bytes()
    if asked["intent"] is None:
        with pytest.raises(stranger_forms.NoError) as caught:
            stranger_policy.parse_policy(data)
        assert expected["exitCode"] == caught.value.finding[2]
        return
    intent = json.loads((HERE / name / asked["intent"]).read_bytes())
    objections = stranger_policy.objections(stranger_policy.parse_policy(data), intent)
    assert expected["objections"] == objections
    assert expected["verdict"] == ("reject" if objections else "accept")


@pytest.mark.parametrize("name", DISCLOSURES)
def test_disclosures(name: str) -> None:
    asked = DISCLOSURES[name]
    expected = asked["expected"]
    given = [(HERE / name / asked[member]).read_bytes() for member in ("disclosure", "receipt", "content")]
    if expected["verdict"] == "accept":
        assert expected["closed"] == stranger_disclosure.open_field(*given)
        return
    with pytest.raises(stranger_forms.NoError) as caught:
        stranger_disclosure.open_field(*given)
    assert expected["exitCode"] == caught.value.finding[2]


def test_it_knows_nothing_of_govrun() -> None:
    modules = ", ".join(
        f"tests.vectors.{one}" for one in ("stranger", "stranger_policy", "stranger_disclosure", "make.__main__")
    )
    code = f"import sys, {modules}; sys.exit(any(name.split('.')[0] == 'govrun' for name in sys.modules))"
    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[1], timeout=60).returncode
