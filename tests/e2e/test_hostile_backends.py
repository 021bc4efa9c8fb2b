"""Backends that misbehave: a refusal or an outcome, never a crash, a silent success or an unwritable receipt."""

from __future__ import annotations

from typing import Any

import pytest

from govrun.errors import GovrunError
from tests.e2e.place import PLUGINS, Place, assert_denied, assert_refused


@pytest.fixture
def hostile(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    monkeypatch.syspath_prepend(str(PLUGINS))
    return place


def ask(place: Place, monkeypatch: pytest.MonkeyPatch, way: str) -> Any:
    """Run the backend in this process, misbehaving in one way; what it gave or how it was refused."""
    import govrun_plugins.hostile

    monkeypatch.setattr(govrun_plugins.hostile, "WAY", way)
    try:
        return place.call(backend="hostile", prompt="x")
    except GovrunError as refusal:
        return refusal


def test_the_backend_works_when_it_behaves(hostile: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 == ask(hostile, monkeypatch, "").exit
    assert 1 == hostile.runs


RAISED = [
    f"{method}-{way}"
    for method in ("settings", "parameters", "checks", "plan")
    for way in ("none", "number", "raises", "exits", "succeeds", "odd-error")
]
MALFORMED = [
    *("plan-text", "plan-numbers", "plan-environment-flat", "plan-determinism"),
    "check-exits",
]
PLANS = {
    "plan-relative-program": "template.program",
    "plan-empty": "template.empty",
    "plan-relative-cwd": "template.cwd",
    "plan-text-cwd": "template.cwd",
    "plan-environment": "template.environment",
    "plan-environment-nul": "template.environment",
    "plan-environment-number": "template.environment",
    "plan-descriptor-low": "template.descriptor",
    "plan-descriptor-twice": "template.descriptor",
    "plan-descriptor-text": "template.descriptor",
    "plan-dependency": "template.dependency",
    "plan-dependency-text": "template.dependency",
}
CHECKS = {
    "check-raises": "hostile.check",
    "check-says-yes": "hostile.check",
    "checks-empty": "preflight.empty",
    "checks-vacuous": "preflight.vacuous",
    "checks-twice": "preflight.duplicate",
}


@pytest.mark.parametrize("way", RAISED + MALFORMED)
def test_a_backend_that_breaks_when_it_is_asked_is_unavailable(
    hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    refusal = ask(hostile, monkeypatch, way)
    assert (12, "backend.raised") == (refusal.code, refusal.rule)
    assert "nothing was executed; refusal recorded as entry 1" == refusal.effect
    assert_denied(hostile, 1, "backend.raised")


@pytest.mark.parametrize("way", PLANS)
def test_a_plan_that_cannot_be_carried_out_is_refused_before_it_is_announced(
    hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    refusal = ask(hostile, monkeypatch, way)
    assert (14, PLANS[way]) == (refusal.code, refusal.rule)
    assert_denied(hostile, 1, PLANS[way])


@pytest.mark.parametrize("way", CHECKS)
def test_checks_that_show_nothing_refuse(hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    refusal = ask(hostile, monkeypatch, way)
    assert (13, CHECKS[way]) == (refusal.code, refusal.rule)
    assert_denied(hostile, 1, CHECKS[way])


@pytest.mark.parametrize("way", ["checks-odd-id", "plan-short-secret", "plan-path-in-word", "plan-dependency-role"])
def test_what_no_receipt_can_show_is_refused_before_it_is_announced(
    hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    refusal = ask(hostile, monkeypatch, way)
    assert refusal.code in (12, 14), refusal
    assert_denied(hostile, 1, refusal.rule)


UNREAD = {
    "parse-none": "backend.parseReturned",
    "parse-number": "backend.parseReturned",
    "parse-text": "backend.parseReturned",
    "parse-raises": "backend.parseRaised",
    "parse-exits": "backend.parseRaised",
    "parse-odd-error": "backend.parseRaised",
    "parse-succeeds": "hostile.success",
}


@pytest.mark.parametrize("way", UNREAD)
def test_a_backend_that_breaks_on_output_leaves_an_unparsable_outcome(
    hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    result = ask(hostile, monkeypatch, way)
    assert (22, None) == (result.exit, result.text)
    outcome = hostile.last("outcome")
    assert (1, "unparsable", UNREAD[way]) == (hostile.runs, outcome["status"], outcome["error"]["code"])
    assert [] == hostile.leftovers()


@pytest.mark.parametrize("way", ["parse-negative", "parse-odd-facts"])
def test_facts_that_no_engine_tells_are_nothing_that_it_told(
    hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    assert 0 == ask(hostile, monkeypatch, way).exit
    facts = hostile.last("outcome")["facts"]
    assert (None, None, None) == (facts["promptTokens"], facts["finishReason"], facts["seed"])


EXPLAINED = {
    "explain-none": "backend.explainMalformed",
    "explain-number": "backend.explainMalformed",
    "explain-odd": "backend.explainMalformed",
    "explain-raises": "backend.explainRaised",
    "explain-exits": "backend.explainRaised",
}


@pytest.mark.parametrize("way", EXPLAINED)
def test_a_backend_that_cannot_name_a_failure_does_not_hide_it(
    hostile: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (hostile.work / "executed").mkdir()  # so that the command fails
    result = ask(hostile, monkeypatch, way)
    assert (20, "failed") == (result.exit, hostile.last("outcome")["status"])
    assert EXPLAINED[way] == hostile.last("outcome")["error"]["code"]


@pytest.mark.parametrize(
    ("name", "rule", "found"),
    [
        ("import-exits", "registry.import", "SystemExit"),
        ("import-raises", "registry.import", "RuntimeError"),
        ("old-interface", "registry.interface", "0"),
    ],
)
def test_a_backend_that_cannot_be_loaded_is_refused_by_name(place: Place, name: str, rule: str, found: str) -> None:
    place.with_plugins()
    place.policy(f'[backends.{name}]\ndistribution = "govrun-hostile"\n')
    done = place.go("run", "--backend", name, "--prompt", "x")
    assert_refused(done, 12, rule, f"found:    {found}", "expected:", "fix:")
    assert_denied(place, 1, rule)


def test_a_backend_that_the_policy_does_not_name_is_not_even_imported(place: Place) -> None:
    place.with_plugins()
    done = place.go("run", "--backend", "import-exits", "--prompt", "x")
    assert_refused(done, 11, "policy.backend", "found:    import-exits", "expected: process", "fix:")
    assert_denied(place, 1, "policy.backend")


def test_a_backend_of_another_distribution_than_the_policys_is_not_even_imported(place: Place) -> None:
    place.with_plugins()
    place.policy("[backends.import-exits]\n")
    done = place.go("run", "--backend", "import-exits", "--prompt", "x")
    assert_refused(done, 11, "policy.distribution", "found:    govrun-hostile", "expected: govrun", "fix:")
    assert_denied(place, 1, "policy.distribution")


def test_a_backend_that_takes_a_name_of_ours_disables_the_name_and_no_other(place: Place) -> None:
    shadow = place.root / "shadow" / "govrun_shadow-1.0.dist-info"
    shadow.mkdir(parents=True)
    (shadow / "entry_points.txt").write_text("[govrun.backends]\nprocess = govrun_plugins.echoing:BACKEND\n")
    place.with_plugins()
    place.extra["PYTHONPATH"] += f":{shadow.parent}"
    done = place.run("--", *place.mark)
    assert_refused(done, 12, "registry.duplicate", "govrun_shadow 1.0", "expected: one distribution", "fix:")
    assert_denied(place, 1, "registry.duplicate")
    place.policy('[backends.echoing]\ndistribution = "govrun-echoing"\n')
    assert b"x" == place.go("run", "--backend", "echoing", "--prompt", "x").out


def test_one_broken_backend_breaks_no_listing(place: Place) -> None:
    place.with_plugins()
    place.extra["HOSTILE"] = "settings-raises"
    listed = {row["name"] for row in place.go("backends", "--json").json}
    assert {"bitnet", "llamacpp", "process", "echoing", "hostile", "import-exits", "old-interface"} <= listed
    shown = place.go("config", "show", "--json")
    assert (0, True) == (shown.code, "LLAMACPP_MODEL_GGUF" in shown.json), shown.err
    checked = place.go("backends", "--check", "hostile")
    assert (12, True) == (checked.code, "[backend.raised]" in checked.err)


@pytest.mark.parametrize("way", ["checks-raises", "check-exits"])
def test_a_preflight_of_a_broken_backend_is_a_refusal(place: Place, way: str) -> None:
    place.with_plugins()
    done = place.go("preflight", "--backend", "hostile", env={"HOSTILE": way})
    assert (12, True) == (done.code, "[backend.raised]" in done.err)
    assert 1 == place.size


def test_a_plugins_own_words_do_not_reach_the_ledger(hostile: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(hostile, monkeypatch, "plan-raises")
    assert b"secret words" not in hostile.ledger.read_bytes()


def test_what_a_backend_says_of_an_output_is_scrubbed(place: Place) -> None:
    place.with_plugins()
    place.policy('[backends.hostile]\ndistribution = "govrun-hostile"\n')
    secret = "hunter2hunter2"
    words = ("run", "--backend", "hostile", "--prompt", "x")
    assert 22 == place.go(*words, env={"HOSTILE": "parse-leaks", "MY_TOKEN": secret}).code
    error = place.last("outcome")["error"]
    assert "hostile.leak" == error["code"]
    shown = f"{error['found']} {error['expected']}"
    assert secret not in shown
    assert str(place.work) not in shown
