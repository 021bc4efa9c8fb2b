"""The schemas are closed, hold the signed profile, and two validators read them alike."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from govrun import schemas
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.receipt import KINDS, Draft, Position, format_statement
from govrun.redact import TYPED

Refuses = Callable[..., GovrunError]
DIRECTORY = Path(schemas.__file__).parent.parent / "schemas"
WRITTEN_ONLY = {"inclusion.v1", "report.v1"}  # no bounds for what govrun writes and never reads
BOUND = 2**53 - 1
PLACE = Position("example.com/log", 7, "0" * 64)


def document(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(schemas.schema_bytes(name))
    return value


def nodes(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every object inside a schema document with its path, names of properties included."""
    if isinstance(value, dict):
        yield path, value
        for name, item in value.items():
            yield from nodes(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from nodes(item, (*path, str(number)))


def subschemas(name: str) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for path, node in nodes(document(name)):
        if not path or path[-1] not in ("properties", "$defs"):
            yield path, node


def test_every_schema_of_the_directory_is_known_by_name() -> None:
    assert sorted(schemas.NAMES) == list(schemas.NAMES)
    assert sorted(p.stem for p in DIRECTORY.glob("*.json")) == list(schemas.NAMES)


def test_schema_digests_are_those_of_the_exact_files() -> None:
    expected = tuple((name, sha256_hex((DIRECTORY / f"{name}.json").read_bytes())) for name in schemas.NAMES)
    assert expected == schemas.schema_digests()


@pytest.mark.parametrize("name", schemas.NAMES)
def test_every_schema_is_valid_2020_12_and_says_so(name: str) -> None:
    Draft202012Validator.check_schema(document(name))
    assert document(name)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document(name)["$id"] == f"urn:govrun:schema:{name.replace('.', ':')}"


@pytest.mark.parametrize("name", schemas.NAMES)
def test_every_object_is_closed(name: str) -> None:
    for path, node in subschemas(name):
        # The top of the receipt schema only chooses among its definitions, and a condition only narrows one of them.
        if (name == "receipt.v1" and path[:1] != ("$defs",)) or {"if", "then", "else"} & set(path):
            continue
        if "properties" in node or node.get("type") == "object":
            extra = node.get("additionalProperties")
            assert extra is False or (isinstance(extra, dict) and extra), path
            assert extra is False or "maxProperties" in node or name in WRITTEN_ONLY, path


@pytest.mark.parametrize("name", sorted({*schemas.NAMES} - WRITTEN_ONLY))
def test_every_array_is_bounded(name: str) -> None:
    for path, node in subschemas(name):
        if node.get("type") == "array":
            assert "maxItems" in node, path


def test_the_receipt_schema_enforces_the_signed_profile() -> None:
    for path, node in subschemas("receipt.v1"):
        assert node.get("type") != "number", path
        assert not isinstance(node.get("type"), list), path
        if node.get("type") == "integer":
            assert -BOUND <= node["minimum"] <= node["maximum"] <= BOUND, path
        if node.get("type") == "string":
            assert "maxLength" in node or "pattern" in node, path
        assert all(property_name.isascii() for property_name in node.get("properties", {}))


def test_members_that_the_scan_for_secrets_skips_can_hold_no_free_text() -> None:
    definitions = document("receipt.v1")["$defs"]
    free = ("token", "rule", "fileName", "word", "agent", "requestId", "name", "version")
    for path, node in subschemas("receipt.v1"):
        for member, schema in node.get("properties", {}).items():
            if member not in TYPED or path == () or {"if", "then", "else"} & set(path):
                continue
            reference = schema.get("$ref", "").removeprefix("#/$defs/")
            assert reference not in free, (path, member)
            target = definitions.get(reference, schema)
            typed = (
                {"enum", "const"} & set(target)
                or target.get("type") == "object"
                or reference in ("instant", "id", "origin")
            )
            assert (
                typed or reference == "sha256" or schema == {"anyOf": [{"type": "null"}, {"enum": ["stop", "length"]}]}
            )


@pytest.fixture(scope="session")
def statements(drafts: dict[str, Draft]) -> dict[str, Any]:
    return {name: json.loads(format_statement(draft, PLACE)) for name, draft in drafts.items()}


def test_there_is_a_definition_for_every_kind(statements: dict[str, Any]) -> None:
    assert {name.partition(" ")[0] for name in statements} == set(KINDS)
    for name, statement in statements.items():
        kind = name.partition(" ")[0]
        assert schemas.fits(statement, "receipt.v1", kind)
        assert schemas.fits(statement, "receipt.v1")
        assert not any(schemas.fits(statement, "receipt.v1", other) for other in KINDS if other != kind)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name, item in value.items():
            found += places(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += places(item, (*path, number))
    return found


STRANGE = [None, True, 0, 1, -1, 2**53, 1.0, 0.5, "", "x", "/etc/passwd", "~", "a" * 5000, [], [None], {}, {"x": 1}]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_both_validators_agree_on_broken_receipts(statements: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(statements)))
    broken = copy.deepcopy(statements[name])
    path = data.draw(st.sampled_from(places(broken)[1:]))
    parent = broken
    for step in path[:-1]:
        parent = parent[step]
    match data.draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            parent[path[-1]] = data.draw(st.sampled_from(STRANGE))
        case "remove":
            del parent[path[-1]]
        case _ if isinstance(parent, dict):
            parent["extra"] = 1
        case _:
            parent.append(parent[0])
    kind = name.partition(" ")[0]
    slow = Draft202012Validator({**document("receipt.v1"), "allOf": [{"$ref": f"#/$defs/{kind}"}]})
    assert slow.is_valid(broken) == schemas.fits(broken, "receipt.v1", kind)


def test_a_trailing_line_feed_fits_no_pattern(statements: dict[str, Any]) -> None:
    # ECMA 262 and the fast validator agree on this; Python's own `$` is more lenient, and does not decide.
    for member in ("task", "agent", "startedOn"):
        broken = copy.deepcopy(statements["intent"])
        broken["predicate"][member] += "\n"
        assert not schemas.fits(broken, "receipt.v1", "intent")


def test_a_misfit_says_where_and_why(refuses: Refuses, statements: dict[str, Any]) -> None:
    broken = copy.deepcopy(statements["intent"])
    broken["predicate"]["isolation"]["level"] = "none"
    error = refuses(
        ExitCode.RECEIPT_INVALID,
        "schema.receipt-v1",
        schemas.check,
        broken,
        "receipt.v1",
        "intent",
        ExitCode.RECEIPT_INVALID,
        "a receipt",
    )
    assert error.what == "a receipt does not fit its schema at predicate.isolation.level"
    assert error.found == "'none' is not one of ['pidNamespace', 'group']"
    assert error.expected == "schemas/receipt.v1.json"


def test_what_only_the_fast_validator_refuses_is_still_refused(refuses: Refuses, statements: dict[str, Any]) -> None:
    broken = copy.deepcopy(statements["intent"])
    broken["predicate"]["task"] += "\n"
    arguments = (broken, "receipt.v1", "intent", ExitCode.RECEIPT_INVALID, "a receipt")
    error = refuses(ExitCode.RECEIPT_INVALID, "schema.receipt-v1", schemas.check, *arguments)
    assert "the fast validator alone" in str(error)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"format": 1, "ledger": nested(5000)},
        datetime.date(2026, 1, 1),
        {"format": datetime.time()},
        b"x",
        nested(5000),
        float("nan"),
        {1: 2},
    ],
)
def test_what_json_cannot_hold_fits_no_schema(refuses: Refuses, value: Any) -> None:
    assert not schemas.fits(value, "config.v1")
    refuses(ExitCode.USAGE, "schema.config-v1", schemas.check, value, "config.v1", None, ExitCode.USAGE, "it")
