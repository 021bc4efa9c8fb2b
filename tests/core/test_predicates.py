"""What is written down: names and commitments, never bytes; and whatever happened can be written down."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun.backends.interface import Captured, Containment, Dependency, Facts, Stream
from govrun.digest import FileDigest
from govrun.errors import ExitCode, GovrunError
from govrun.predicates import FileUse, request_bytes, shown_dependencies
from govrun.receipt import Draft, Position, format_statement, parse_statement
from govrun.request import Request

Build = Callable[..., Any]
PLACE = Position("example.com/log", 1, "0" * 64)
HASH = "ab" * 32
SALT = bytes(range(32))
REQUEST = Request("bitnet", prompt=b"hello", parameters=(("b", "2"), ("a", "1")), ok_exit=(1, 0, 1), cwd="/w")


def hmac_hex(field: str, data: bytes) -> str:
    key = hmac.new(SALT, b"govrun-field-salt:" + field.encode(), hashlib.sha256).digest()
    return hmac.new(key, data, hashlib.sha256).hexdigest()


def test_an_intent_commits_to_the_prompt_without_showing_it(an_intent: Build) -> None:
    shown = an_intent()
    assert shown["prompt"] == {"algorithm": "hmacSha256", "digest": hmac_hex("prompt", b"hello"), "size": 5}
    assert "hello" not in json.dumps(shown)


def test_plain_digests_are_sha256(an_intent: Build) -> None:
    shown = an_intent(salt=None)["prompt"]
    assert shown == {"algorithm": "sha256", "digest": hashlib.sha256(b"hello").hexdigest(), "size": 5}


def test_no_prompt_is_null_and_an_empty_one_is_not(an_intent: Build) -> None:
    assert an_intent(request=Request("bitnet"))["prompt"] is None
    assert an_intent(request=Request("bitnet", prompt=b""))["prompt"]["size"] == 0


def test_equal_requests_have_equal_bytes_whatever_the_order_they_came_in() -> None:
    same = attrs.evolve(REQUEST, parameters=(("a", "1"), ("b", "2")), ok_exit=(0, 1))
    assert request_bytes(REQUEST) == request_bytes(same)


def test_the_request_id_is_no_part_of_the_request_it_names() -> None:
    assert request_bytes(REQUEST) == request_bytes(attrs.evolve(REQUEST, request_id="r1"))


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "process"},
        {"task": "t"},
        {"agent": "a"},
        {"prompt": b"other"},
        {"prompt": None},
        {"parameters": ()},
        {"argv": ("x",)},
        {"inputs": ("x",)},
        {"outputs": ("x",)},
        {"ok_exit": (0,)},
        {"wall_ms": 5},
        {"cwd": "/v"},
    ],
    ids=str,
)
def test_any_other_field_makes_another_request(change: dict[str, Any]) -> None:
    assert request_bytes(REQUEST) != request_bytes(attrs.evolve(REQUEST, **change))


def test_every_field_of_a_request_is_committed_to() -> None:
    names = {a.name for a in attrs.fields(Request)}
    assert len(json.loads(request_bytes(REQUEST))) == len(names - {"request_id"})


def test_dependencies_come_sorted_and_by_name_only() -> None:
    rows = [
        (Dependency("model", Path("/m/b.gguf")), FileDigest(1, HASH)),
        (Dependency("library", Path("/z/lib.so"), "notCovered"), FileDigest(2, HASH)),
        (Dependency("library", Path("/a/lib.so")), FileDigest(2, "00" * 32)),
    ]
    shown = shown_dependencies(rows)
    assert shown == shown_dependencies(rows[::-1])
    assert [(d["role"], d["name"], d["sha256"][:2]) for d in shown] == [
        ("library", "lib.so", "00"),
        ("library", "lib.so", "ab"),
        ("model", "b.gguf", "ab"),
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ExitCode.COMMAND_FAILED, "failed"),
        (ExitCode.LIMIT_EXCEEDED, "limitExceeded"),
        (ExitCode.OUTPUT_UNPARSABLE, "unparsable"),
        (ExitCode.INTERRUPTED, "interrupted"),
        (ExitCode.CRASH, "incomplete"),
        (ExitCode.PREFLIGHT_REFUSED, "incomplete"),
    ],
)
def test_every_end_of_a_run_has_a_status(an_outcome: Build, code: ExitCode, status: str) -> None:
    draft = an_outcome(error=GovrunError(code, "x.y", "no", found="a", expected="b"), facts=None, changed=None)
    assert draft.predicate["status"] == status
    assert draft.predicate["error"] == {"code": "x.y", "exitCode": int(code), "found": "a", "expected": "b"}
    assert parse_statement(format_statement(draft, PLACE))


def test_a_success_has_no_error_and_names_its_outputs(an_outcome: Build) -> None:
    draft = an_outcome(outputs=(FileUse("o", "/w/o", FileDigest(1, HASH)),))
    assert (draft.predicate["status"], draft.predicate["error"]) == ("succeeded", None)
    assert draft.outputs == (("o", HASH),)


def test_outputs_of_a_failure_or_too_many_to_list_are_not_named(an_outcome: Build) -> None:
    uses = tuple(FileUse(f"o{n}", "/w/o", FileDigest(1, HASH)) for n in range(64))
    error = GovrunError(ExitCode.COMMAND_FAILED, "x.y", "no")
    assert an_outcome(error=error, outputs=uses[:1]).outputs == ()
    long = an_outcome(outputs=uses)
    assert (long.outputs, long.predicate["outputs"]["count"]) == ((), 64)


@pytest.mark.parametrize(("changed", "status"), [(None, "notChecked"), ((), "unchanged"), (("b", "a"), "changed")])
def test_what_was_read_is_said_to_be_unchanged_only_if_somebody_looked(
    an_outcome: Build, changed: tuple[str, ...] | None, status: str
) -> None:
    after = an_outcome(changed=changed).predicate["dependenciesAfter"]
    assert after == {"status": status, "changed": sorted(changed or ())}


def test_a_run_that_never_started_has_nothing_to_show(an_outcome: Build) -> None:
    error = GovrunError(ExitCode.INTERRUPTED, "run.interrupted", "no")
    draft = an_outcome(captured=None, facts=None, error=error, changed=None)
    for member in ("byproducts", "facts", "usage", "containment", "durationMs", "cost"):
        assert draft.predicate[member] is None
    assert draft.predicate["exit"] == {"code": None, "signal": None}
    assert parse_statement(format_statement(draft, PLACE))


ODD = st.none() | st.integers() | st.text(max_size=20) | st.booleans() | st.floats()
texts = st.none() | st.text(max_size=300)
counts = st.integers(0, 2**53 - 1)
streams = st.builds(Stream, st.binary(max_size=20), counts, st.booleans(), st.just(HASH))
ends = st.builds(
    Captured,
    st.just("exited"),
    st.none() | st.integers(0, 255),
    st.none() | st.integers(1, 64),
    streams,
    streams,
    st.builds(Containment, st.sampled_from(["pidNamespace", "group"]), st.booleans(), st.booleans(), counts),
    counts,
    st.none() | counts,
    st.none() | counts,
)
errors = st.builds(
    GovrunError, st.sampled_from(ExitCode), st.text(max_size=140), st.text(max_size=20), found=texts, expected=texts
).filter(lambda e: e.code != ExitCode.SUCCESS)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.none() | ends, st.none() | st.builds(Facts, st.binary(max_size=20), ODD, ODD, ODD, ODD), st.none() | errors)
def test_nothing_that_a_child_or_its_backend_says_makes_an_outcome_unwritable(
    an_outcome: Build, captured: Captured | None, facts: Facts | None, error: GovrunError | None
) -> None:
    # A run without facts, or without a child, is never a success.
    failure = GovrunError(ExitCode.OUTPUT_UNPARSABLE, "x.y", "no") if captured is None or facts is None else None
    draft = an_outcome(captured=captured, facts=facts, error=error or failure)
    assert parse_statement(format_statement(draft, PLACE)).kind == "outcome"


def test_what_cannot_be_a_count_is_not_told(an_outcome: Build) -> None:
    facts = an_outcome(facts=Facts(b"", -1, 2**53, "tool_calls", True)).predicate["facts"]  # type: ignore[arg-type]
    assert [facts[m] for m in ("promptTokens", "generatedTokens", "finishReason", "seed")] == [None] * 4


REFUSED = [c for c in ExitCode if 10 <= c <= 14]


@settings(deadline=None)
@given(errors.filter(lambda e: e.code in REFUSED))
def test_every_refusal_can_be_written_down(a_denial: Build, error: GovrunError) -> None:
    draft = a_denial(error=error)
    assert parse_statement(format_statement(draft, PLACE)).predicate["exitCode"] == int(error.code)


@pytest.mark.parametrize(
    ("code", "rule", "stage"),
    [
        (ExitCode.REQUEST_INVALID, "request.task", "request"),
        (ExitCode.REQUEST_INVALID, "parameter.temp", "parameters"),
        (ExitCode.POLICY_DENIED, "policy.agent", "policy"),
        (ExitCode.BACKEND_UNAVAILABLE, "backend.unknown", "backend"),
        (ExitCode.PREFLIGHT_REFUSED, "bitnet.model", "preflight"),
        (ExitCode.TEMPLATE_REFUSED, "template.dash", "template"),
        (ExitCode.TEMPLATE_REFUSED, "redact.intent", "receipt"),
        (ExitCode.TEMPLATE_REFUSED, "receipt.size", "receipt"),
        (ExitCode.TEMPLATE_REFUSED, "schema.receipt-v1", "receipt"),
    ],
)
def test_a_denial_says_at_which_stage(a_denial: Build, code: ExitCode, rule: str, stage: str) -> None:
    draft = a_denial(error=GovrunError(code, rule, "no", found="a", expected="b"))
    assert draft.predicate["stage"] == stage
    assert parse_statement(format_statement(draft, PLACE))


def test_a_refusal_of_another_kind_is_no_denial() -> None:
    # It has no place in the schema; whoever records it learns so, and is not torn down.
    error = GovrunError(ExitCode.RECEIPT_INVALID, "x.y", "no")
    draft = Draft("denied", {"error": error.rule})
    with pytest.raises(GovrunError) as caught:
        format_statement(draft, PLACE)
    assert caught.value.code == ExitCode.RECEIPT_INVALID


def test_a_denial_with_a_code_from_elsewhere_is_refused_as_a_receipt(a_denial: Build) -> None:
    draft = a_denial(error=GovrunError(ExitCode.RECEIPT_INVALID, "x.y", "no"))
    with pytest.raises(GovrunError) as caught:
        format_statement(draft, PLACE)
    assert caught.value.code == ExitCode.RECEIPT_INVALID


def test_a_request_too_malformed_to_commit_to_is_null(a_denial: Build) -> None:
    draft = a_denial(request=None, backend=None, task=None, agent=None, policy=None, salt=None)
    assert parse_statement(format_statement(draft, PLACE)).predicate["request"] is None
