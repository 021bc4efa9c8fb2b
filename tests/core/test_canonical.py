"""One value has one spelling, and it is the one of RFC 8785."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from govrun import canonical
from govrun.errors import ExitCode, GovrunError

Refuses = Callable[..., GovrunError]
Attempt = Callable[..., Any]
WRONG = ExitCode.LEDGER_INCONSISTENT
INVALID = ExitCode.RECEIPT_INVALID

names = st.text(st.characters(max_codepoint=127), max_size=8)
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(names, v, max_size=4), max_leaves=20)
objects = st.dictionaries(names, values, max_size=5)


@given(values)
def test_the_fast_writer_writes_what_rfc8785_writes(value: Any) -> None:
    assert rfc8785.dumps(value) == canonical.encode(value)


@given(values)
def test_what_was_read_is_written_again_the_same(value: Any) -> None:
    assert canonical.encode(value) == canonical.encode_again(value)


@given(objects)
def test_decoding_undoes_encoding(value: dict[str, Any]) -> None:
    assert value == canonical.decode(canonical.encode(value))


@given(objects, st.data())
def test_a_flipped_byte_is_refused_or_is_another_value(
    attempt: Attempt, value: dict[str, Any], data: st.DataObject
) -> None:
    written = bytearray(canonical.encode(value))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    read = attempt(WRONG, canonical.decode, bytes(written))
    if not isinstance(read, GovrunError):
        assert canonical.encode(read) == bytes(written) != canonical.encode(value)


@given(st.binary(max_size=40))
def test_only_our_errors_come_out_of_any_bytes(attempt: Attempt, data: bytes) -> None:
    value = attempt(WRONG, canonical.decode, data)
    if not isinstance(value, GovrunError):
        assert canonical.encode(value) == data


# RFC 8785 3.2.3 and 3.2.2 without their floats; the keys of 3.2.3 outside ASCII are not in the profile.
PUBLISHED = [
    (
        '{"string": "\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/", "literals": [null, true, false]}',
        '{"literals":[null,true,false],"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    ),
    (
        '{"\\r": "Carriage Return", "1": "One", "\\u0080": 0}',
        None,
    ),
    ('{"\\r": "Carriage Return", "1": "One"}', '{"\\r":"Carriage Return","1":"One"}'),
    ('[56, {"d": true, "10": null, "1": []}]', '[56,{"1":[],"10":null,"d":true}]'),
    (
        '{"1": {"f": {"f": "hi", "F": 5}, "\\n": 56}, "10": {}, "": "empty", "a": {}, "111": [], "A": {}}',
        '{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[],"A":{},"a":{}}',
    ),
    (
        '{"numbers": [0, 1, -1, 9007199254740991, -9007199254740991]}',
        '{"numbers":[0,1,-1,9007199254740991,-9007199254740991]}',
    ),
    (
        '{"a": "\\b\\t\\n\\f\\r\\u001f\\u007f\\u2028\\ud83d\\ude02"}',
        '{"a":"\\b\\t\\n\\f\\r\\u001f\x7f\u2028\U0001f602"}',
    ),
]


@pytest.mark.parametrize(("source", "expected"), PUBLISHED)
def test_published_vectors_inside_the_profile(source: str, expected: str | None) -> None:
    import json

    if expected is None:
        with pytest.raises(GovrunError):
            canonical.encode(json.loads(source))
    else:
        assert expected.encode() == canonical.encode(json.loads(source))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b' {"a":1}',
        b'{"a":1}\n',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1.0}',
        b'{"a":[1.5]}',
        b'{"a":1e3}',
        b'{"a":1E3}',
        b'{"a":-0}',
        b'{"a":-0.0}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":100000000000000000000000000000000000000000}',
        b'{"a":"\\u00e9"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u000A"}',
        b'{"\xc3\xa9":1}',
        b'{"a":{"\xc3\xa9":1}}',
        b'{"a":' * 255 + b"1" + b"}" * 255,
    ],
    ids=lambda data: data[:24].decode(),
)
def test_another_spelling_is_refused(refuses: Refuses, data: bytes) -> None:
    refuses(WRONG, "canonical.bytes", canonical.decode, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1}{}',
        b'{"a":1}x',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":\xff}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'\xef\xbb\xbf{"a":1}',
        b"[" * 100_000,
        b"{'a':1}",
    ],
    ids=lambda data: repr(data[:16]),
)
def test_what_is_not_json_is_refused(refuses: Refuses, data: bytes) -> None:
    refuses(WRONG, "canonical.json", canonical.decode, data)


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"a"', b"true"])
def test_what_is_not_an_object_is_refused(refuses: Refuses, data: bytes) -> None:
    refuses(WRONG, "canonical.object", canonical.decode, data)


def test_size_is_bounded_before_anything_is_read(refuses: Refuses) -> None:
    whole = b'{"a":"' + b"x" * (canonical.MAX_BYTES - 8) + b'"}'
    assert len(whole) == canonical.MAX_BYTES
    assert canonical.decode(whole)
    refuses(WRONG, "canonical.size", canonical.decode, whole + b" ")


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (1.5, "canonical.float"),
        ({"a": 1.0}, "canonical.float"),
        ({"a": [float("nan")]}, "canonical.float"),
        ({"a": {"b": float("inf")}}, "canonical.float"),
        ({"é": 1}, "canonical.name"),
        ({"a": datetime.date(2026, 1, 1)}, "canonical.type"),
        ({"a": uuid.UUID(int=1)}, "canonical.type"),
        ([Colour.RED], "canonical.type"),
        ({"a": 2**53}, "canonical.encode"),
        ({"a": -(2**53)}, "canonical.encode"),
        ({"a": "\ud800"}, "canonical.encode"),
        ({"\ud800": 1}, "canonical.encode"),
        ({1: 2}, "canonical.encode"),
        ({"a": b"x"}, "canonical.encode"),
        ({"a": {1, 2}}, "canonical.encode"),
    ],
    ids=str,
)
def test_a_value_outside_the_profile_is_not_written(refuses: Refuses, value: Any, rule: str) -> None:
    refuses(INVALID, rule, canonical.encode, value)


def test_a_value_that_contains_itself_is_not_written(refuses: Refuses) -> None:
    endless: list[Any] = []
    endless.append(endless)
    refuses(INVALID, "canonical.encode", canonical.encode, endless)


def test_words_and_numbers_of_closed_vocabularies_are_written_as_what_they_are() -> None:
    assert canonical.encode({"a": ExitCode.USAGE}) == b'{"a":2}'
    assert canonical.encode(("x", ("y",))) == b'["x",["y"]]'
