"""A receipt has one byte string, is bound to its place and its subject, and always fits."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from govrun import canonical, receipt
from govrun.backends.interface import Facts
from govrun.digest import FileDigest, sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.predicates import FileUse
from govrun.receipt import MAX_PAYLOAD_BYTES, Draft, Position, bounded, format_statement, parse_statement

Refuses = Callable[..., GovrunError]
Build = Callable[..., Any]
WRONG = ExitCode.LEDGER_INCONSISTENT
INVALID = ExitCode.RECEIPT_INVALID
PLACE = Position("example.com/log", 7, "cd" * 32)
WIDEST = Position("o" * 255, 2**53 - 1, "0" * 64)
HASH = "ab" * 32


def edited(payload: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(payload)
    edit(value)
    return canonical.encode(value)


def test_parsing_undoes_formatting_for_every_kind(drafts: dict[str, Draft]) -> None:
    for name, draft in drafts.items():
        payload = format_statement(draft, PLACE)
        statement = parse_statement(payload)
        assert (statement.kind, statement.position) == (name.partition(" ")[0], PLACE)
        bare = {k: v for k, v in statement.predicate.items() if k != "ledger"}
        assert bare == json.loads(json.dumps(draft.predicate))
        assert format_statement(Draft(statement.kind, bare, draft.outputs), statement.position) == payload


def test_a_statement_is_an_in_toto_statement(drafts: dict[str, Draft]) -> None:
    statement = json.loads(format_statement(drafts["gap"], PLACE))
    assert sorted(statement) == ["_type", "predicate", "predicateType", "subject"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:govrun:gap:v1"


def test_the_subject_is_the_digest_of_the_predicate_without_its_place(drafts: dict[str, Draft]) -> None:
    for name, draft in drafts.items():
        if name == "outcome with outputs":
            continue
        bare = json.dumps(draft.predicate, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(bare.encode()).hexdigest()
        statement = json.loads(format_statement(draft, PLACE))
        assert statement["subject"] == [{"name": "predicate", "digest": {"sha256": digest}}]


def test_the_subject_of_a_success_is_its_outputs(drafts: dict[str, Draft]) -> None:
    statement = json.loads(format_statement(drafts["outcome with outputs"], PLACE))
    assert statement["subject"] == [{"name": n, "digest": {"sha256": HASH}} for n in ("a.txt", "out/b.txt")]


def test_one_draft_at_two_places_differs_only_there(drafts: dict[str, Draft]) -> None:
    one, two = (json.loads(format_statement(drafts["intent"], place)) for place in (PLACE, WIDEST))
    assert one != two
    del one["predicate"]["ledger"], two["predicate"]["ledger"]
    assert one == two


@pytest.mark.parametrize("name", ["gap", "outcome with outputs", "keyRevoked"])
def test_a_flipped_byte_never_passes_as_the_same_statement(attempt: Build, drafts: dict[str, Draft], name: str) -> None:
    payload = format_statement(drafts[name], PLACE)
    whole = parse_statement(payload)
    for at in range(len(payload)):
        for bit in (0, 1, 5) if name == "gap" else (at % 7,):
            flipped = payload[:at] + bytes([payload[at] ^ 1 << bit]) + payload[at + 1 :]
            other = attempt(WRONG, parse_statement, flipped)
            if isinstance(other, GovrunError):
                continue
            assert (other.kind, other.predicate, other.position) != (whole.kind, whole.predicate, whole.position)
            # Everything but the place is bound by the subject; outputs bind themselves, by name and digest.
            assert other.position != whole.position or name == "outcome with outputs"


def test_a_cut_or_lengthened_payload_is_refused(drafts: dict[str, Draft]) -> None:
    payload = format_statement(drafts["intent"], PLACE)
    for bad in (*(payload[:n] for n in range(0, len(payload), 7)), payload + b" ", payload + b"\n", b" " + payload):
        with pytest.raises(GovrunError) as caught:
            parse_statement(bad)
        assert caught.value.code == WRONG


@pytest.mark.parametrize(
    "kind",
    ["urn:govrun:nothing:v1", "urn:govrun:gap:v2", "gap", "", None, ["urn:govrun:gap:v1"], "urn:govrun:gap:v1 "],
)
def test_an_unknown_kind_is_refused(refuses: Refuses, drafts: dict[str, Draft], kind: object) -> None:
    payload = format_statement(drafts["gap"], PLACE)
    refuses(WRONG, "receipt.kind", parse_statement, edited(payload, lambda v: v.update(predicateType=kind)))
    refuses(WRONG, "receipt.kind", parse_statement, edited(payload, lambda v: v.pop("predicateType")))


def test_a_receipt_of_one_kind_does_not_pass_as_another(refuses: Refuses, drafts: dict[str, Draft]) -> None:
    payload = format_statement(drafts["keyAdded"], PLACE)
    other = edited(payload, lambda v: v.update(predicateType="urn:govrun:keyRevoked:v1"))
    refuses(WRONG, "schema.receipt-v1", parse_statement, other)


@pytest.mark.parametrize(
    "edit",
    [
        lambda v: v["subject"][0].update(name="other"),
        lambda v: v["subject"][0]["digest"].update(sha256="0" * 64),
        lambda v: v["subject"].append(v["subject"][0]),
        lambda v: v["predicate"].update(reason="restored"),
    ],
)
def test_a_subject_that_is_not_the_predicates_is_refused(
    refuses: Refuses, drafts: dict[str, Draft], edit: Callable[[Any], object]
) -> None:
    payload = format_statement(drafts["gap"], PLACE)
    refuses(WRONG, "receipt.subject", parse_statement, edited(payload, edit))


def test_a_failed_outcome_never_names_outputs(refuses: Refuses, drafts: dict[str, Draft]) -> None:
    succeeded = drafts["outcome with outputs"]
    error = {"code": "x.y", "exitCode": 20, "found": None, "expected": None}
    failed = {**copy.deepcopy(succeeded.predicate), "status": "failed", "error": error}
    refuses(INVALID, "receipt.subject", format_statement, Draft("outcome", failed, succeeded.outputs), PLACE)
    statement = json.loads(format_statement(Draft("outcome", failed), PLACE))
    assert [s["name"] for s in statement["subject"]] == ["predicate"]
    forged = edited(format_statement(succeeded, PLACE), lambda v: v["predicate"].update(status="failed", error=error))
    refuses(WRONG, "receipt.subject", parse_statement, forged)


def test_no_other_kind_names_outputs(refuses: Refuses, drafts: dict[str, Draft]) -> None:
    named = attrs.evolve(drafts["gap"], outputs=(("a", HASH),))
    refuses(INVALID, "receipt.subject", format_statement, named, PLACE)


def test_a_success_names_exactly_the_outputs_of_its_predicate(refuses: Refuses, drafts: dict[str, Draft]) -> None:
    draft = drafts["outcome with outputs"]
    refuses(INVALID, "receipt.subject", format_statement, attrs.evolve(draft, outputs=draft.outputs[:1]), PLACE)
    without = attrs.evolve(draft, outputs=())
    assert format_statement(without, PLACE) == format_statement(draft, PLACE)


def test_names_that_were_redacted_are_redacted_in_the_subject_too(drafts: dict[str, Draft]) -> None:
    draft = drafts["outcome with outputs"]
    predicate = copy.deepcopy(draft.predicate)
    predicate["outputs"][0]["name"] = "<redacted>"
    payload = format_statement(attrs.evolve(draft, predicate=predicate), PLACE)
    assert b"a.txt" not in payload
    assert parse_statement(payload).kind == "outcome"


def test_a_draft_that_does_not_fit_its_schema_is_not_written(refuses: Refuses, drafts: dict[str, Draft]) -> None:
    for name, draft in drafts.items():
        for member in draft.predicate:
            short = {k: v for k, v in draft.predicate.items() if k != member}
            broken = Draft(draft.kind, short)
            refuses(INVALID, "schema.receipt-v1", format_statement, broken, PLACE)
            assert name


@pytest.mark.parametrize(
    "place",
    [
        Position("", 0, HASH),
        Position("a b", 0, HASH),
        Position("o" * 256, 0, HASH),
        Position("a+b", 0, HASH),
        Position("a", -1, HASH),
        Position("a", 2**53, HASH),
        Position("a", 0, "AB" * 32),
    ],
    ids=str,
)
def test_a_place_that_no_ledger_has_is_refused(refuses: Refuses, drafts: dict[str, Draft], place: Position) -> None:
    with pytest.raises(GovrunError) as caught:
        format_statement(drafts["gap"], place)
    assert caught.value.code == INVALID


def test_a_receipt_that_is_too_large_is_neither_written_nor_read(refuses: Refuses, an_intent: Build) -> None:
    parameters = [{"name": f"p{n:061}", "value": "v" * 160, "origin": "option"} for n in range(64)]
    heavy = {
        "parameters": parameters,
        "okExit": list(range(256)),
        **{name: ["w" * 1000] * 4 for name in ("outputs",)},
        "template": {**an_intent()["template"], "argv": ["w" * 2000] * 8},
    }
    large = Draft("intent", {**an_intent(), **heavy})
    refuses(INVALID, "receipt.size", format_statement, large, PLACE)
    refuses(WRONG, "receipt.size", parse_statement, b" " * (MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("count", [1, 3, 36, 64])
def test_the_worst_outcome_still_fits(an_outcome: Build, count: int, character: str) -> None:
    size = 2**53 - 1
    name = character * (1020 // len(character.encode()))
    longest = [FileUse(f"{n:03}{name}", f"/w/{n}", FileDigest(size, f"{n:064x}")) for n in range(count)]
    shortest = [FileUse(f"{n}", f"/w/{n}", FileDigest(size, f"{n:064x}")) for n in range(count)]
    error = GovrunError(
        ExitCode.COMMAND_FAILED, "r" * 128, "w" * 5000, found="f" * 160, expected="e" * 160, fix="x" * 5000
    )
    for outputs in (longest, shortest):
        for failure in (None, error):
            draft = an_outcome(
                error=failure,
                outputs=outputs,
                changed=[] if failure is None else [f.name for f in outputs],
                facts=Facts(b"x" * 10**6, size, size, "length", size),
                intent_index=size,
            )
            payload = format_statement(draft, WIDEST)
            assert len(payload) <= MAX_PAYLOAD_BYTES // 2
            assert parse_statement(payload).predicate["invocationId"] == "0" * 32


def test_a_short_list_stands_whole_and_a_long_one_as_count_and_digest() -> None:
    assert bounded(()) == []
    assert bounded(("a",) * 64) == ["a"] * 64
    assert bounded(("a",) * 65) == {"count": 65, "sha256": sha256_hex(canonical.encode(["a"] * 65))}
    assert bounded(("a" * 4092,)) == ["a" * 4092]
    assert bounded(("a" * 4093,)) == {"count": 1, "sha256": sha256_hex(canonical.encode(["a" * 4093]))}
    assert bounded(("é" * 2047,)) == {"count": 1, "sha256": sha256_hex(canonical.encode(["é" * 2047]))}


def test_every_kind_of_the_design_is_a_kind() -> None:
    assert set(receipt.KINDS) == {
        "genesis",
        "intent",
        "outcome",
        "denied",
        "gap",
        "policyAdopted",
        "keyAdded",
        "keyRevoked",
    }
