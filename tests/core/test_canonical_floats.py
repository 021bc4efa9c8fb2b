"""Floats are not part of the signed profile, wherever they stand; instants and versions are no floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun import canonical
from govrun.errors import ExitCode, GovrunError
from govrun.schemas import schema_bytes

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | ASCII
SHAPES = st.recursive(
    st.sampled_from(["HOLE"]) | PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ASCII, inner, max_size=4),
    max_leaves=12,
)


def fill(shape: object, value: float) -> object:
    if shape == "HOLE":
        return value
    if isinstance(shape, dict):
        return {name: fill(item, value) for name, item in shape.items()}
    if isinstance(shape, list):
        return [fill(item, value) for item in shape]
    return shape


@given(SHAPES, FLOATS)
def test_a_float_anywhere_is_refused_when_writing_and_when_reading(shape: object, value: float) -> None:
    document = {"a": fill(shape, value), "z": [fill(shape, value), value]}
    with pytest.raises(GovrunError) as written:
        canonical.encode(document)
    with pytest.raises(GovrunError) as read:
        canonical.decode(orjson.dumps(document, option=orjson.OPT_SORT_KEYS))
    assert written.value.code == ExitCode.RECEIPT_INVALID
    assert read.value.code == ExitCode.LEDGER_INCONSISTENT


@given(st.dictionaries(ASCII, st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4), max_leaves=8)))
def test_what_holds_no_float_is_written_and_read_back(document: dict[str, object]) -> None:
    assert canonical.decode(canonical.encode(document)) == document


@pytest.mark.parametrize(
    "data", [b'{"a":1.5}', b'{"a":-0.5}', b'{"a":1e300}', b'{"a":[1e16]}', b'{"a":[1,2.5]}', b'{"a":1E5}']
)
def test_every_spelling_of_a_float_is_refused(data: bytes) -> None:
    with pytest.raises(GovrunError):
        canonical.decode(data)


def test_strings_that_look_like_floats_are_no_floats() -> None:
    document = {"a": "12:00:00.000Z", "b": '":1.5', "c": ["[1.5", ",2e3"]}
    assert canonical.decode(canonical.encode(document)) == document


@given(SHAPES, st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_float_that_a_schema_takes_for_an_integer_is_refused(shape: object, value: int) -> None:
    for document in (
        {"a": fill(shape, float(value)), "z": [fill(shape, float(value)), float(value)]},
        {"a": float(value)},
        {"a": [float(value), 1]},
    ):
        with pytest.raises(GovrunError) as written:
            canonical.encode_fitting(document)
        assert written.value.code == ExitCode.RECEIPT_INVALID
    plain = {"a": fill(shape, value), "version": "1.0", "list": "1.0, 2.0] 3.0}"}
    assert canonical.encode(plain) == canonical.encode_fitting(plain)


def test_every_number_of_a_receipt_is_an_integer_of_the_profile() -> None:
    """What `encode_fitting` builds on: no float but a whole one fits, and none that is written with an exponent."""
    found = list(_numbers(orjson.loads(schema_bytes("receipt.v1"))))
    assert len(found) > 20
    for schema in found:
        assert "number" not in schema["type"]
        assert -(2**53) < schema["minimum"] <= schema["maximum"] < 2**53


def _numbers(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if {"number", "integer"} & set(
            [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
        ):
            yield schema
        for inner in schema.values():
            yield from _numbers(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _numbers(inner)
