"""Everything in a request is bounded, and every parameter has one value, one spelling and one origin."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun import request as requests
from govrun.errors import ExitCode, GovrunError
from govrun.request import (
    MAX_ARGUMENT_BYTES,
    MAX_ARGUMENTS,
    MAX_FILES,
    MAX_PARAMETERS,
    MAX_PROMPT_BYTES,
    MAX_WALL_MS,
    Parameter,
    ParameterSpec,
    Request,
    check_request,
    check_value,
    plain_decimal,
    resolve_parameters,
)

Refuses = Callable[..., GovrunError]
INVALID = ExitCode.REQUEST_INVALID
GOOD = Request("bitnet", task="scan", agent="ci-bot@host", prompt=b"x", request_id="job:1", wall_ms=5, cwd="/w")


def test_a_request_at_every_upper_bound_is_good() -> None:
    most = Request(
        "b" * 63,
        task="t" * 63,
        agent="a" * 128,
        prompt=b"x" * MAX_PROMPT_BYTES,
        parameters=tuple((f"p{n}", "v") for n in range(MAX_PARAMETERS)),
        argv=("w" * MAX_ARGUMENT_BYTES,) * MAX_ARGUMENTS,
        inputs=tuple(f"i{n}" for n in range(MAX_FILES // 2)),
        outputs=tuple(f"o{n}" for n in range(MAX_FILES // 2)),
        ok_exit=tuple(range(256)),
        request_id="r" * 128,
        wall_ms=MAX_WALL_MS,
        cwd="/" + "d" * 4000,
    )
    assert check_request(most) is most


def test_a_request_with_nothing_but_a_backend_is_good() -> None:
    assert check_request(Request("bitnet"))


BROKEN: list[tuple[str, dict[str, Any]]] = [
    *(("request.backend", {"backend": name}) for name in ("", "B", "a b", "1a", "a/b", "a" * 64, "a\n", "é", "-a")),
    *(("request.task", {"task": name}) for name in ("", "T", "../x", "t" * 64, "t\n")),
    *(("request.agent", {"agent": name}) for name in ("", "-a", "a b", "a/b", "a" * 129, "a\n", "a\x1b")),
    *(("request.id", {"request_id": name}) for name in ("", ".a", "a/b", "a@b", "r" * 129, "a\n")),
    ("request.promptSize", {"prompt": b"x" * (MAX_PROMPT_BYTES + 1)}),
    ("request.parameters", {"parameters": (("a", "1"), ("a", "1"))}),
    ("request.parameters", {"parameters": tuple((f"p{n}", "v") for n in range(MAX_PARAMETERS + 1))}),
    ("request.argv", {"argv": ("a",) * (MAX_ARGUMENTS + 1)}),
    *(
        (rule, {field: (word,)})
        for field in ("argv", "inputs", "outputs")
        for rule, word in (
            ("request.nul", "a\0b"),
            ("request.utf8", "a\udcff"),
            ("request.wordSize", "é" * (MAX_ARGUMENT_BYTES // 2 + 1)),
        )
    ),
    ("request.nul", {"parameters": (("a", "\0"),)}),
    ("request.utf8", {"parameters": (("\udcff", "1"),)}),
    ("request.nul", {"cwd": "/a\0"}),
    ("request.utf8", {"cwd": "/\udcff"}),
    *(("request.cwd", {"cwd": cwd}) for cwd in ("", ".", "w", "~/w", "./w")),
    ("request.files", {"inputs": ("i",), "outputs": tuple(f"o{n}" for n in range(MAX_FILES))}),
    ("request.files", {"inputs": ("a", "a")}),
    ("request.files", {"outputs": ("a", "a")}),
    *(("request.wallMs", {"wall_ms": ms}) for ms in (0, -1, MAX_WALL_MS + 1)),
    *(("request.okExit", {"ok_exit": codes}) for codes in ((), (-1,), (0, 256))),
]


@pytest.mark.parametrize(("rule", "change"), BROKEN, ids=[f"{r}-{n}" for n, (r, _) in enumerate(BROKEN)])
def test_one_field_out_of_bounds_refuses(refuses: Refuses, rule: str, change: dict[str, Any]) -> None:
    check_request(GOOD)
    refuses(INVALID, rule, check_request, attrs.evolve(GOOD, **change))


def test_only_the_repeated_parameter_is_named(refuses: Refuses) -> None:
    given_twice = attrs.evolve(GOOD, parameters=(("a", "1"), ("b", "1"), ("a", "2")))
    assert refuses(INVALID, "request.parameters", check_request, given_twice).found == "a"


INTEGER = ParameterSpec("n", "integer", "a count", default="16", minimum="1", maximum="32")
DECIMAL = ParameterSpec("temp", "decimal", "a temperature", minimum="0", maximum="2")
CHOICE = ParameterSpec("mode", "choice", "a mode", choices=("fast", "slow"))
FIXED = ParameterSpec("seed", "integer", "a seed", settable=False)
SPECS = (INTEGER, DECIMAL, CHOICE, FIXED)


def test_the_strongest_layer_wins_and_is_named() -> None:
    layers: list[tuple[requests.Origin, dict[str, str]]] = [
        ("option", {"n": "2"}),
        ("policy", {"n": "3", "temp": "0.50"}),
        ("project", {"temp": "1", "mode": "slow"}),
        ("environment", {}),
        ("config", {"mode": "fast"}),
    ]
    assert resolve_parameters(SPECS, layers) == (
        Parameter("mode", "slow", "project"),
        Parameter("n", "2", "option"),
        Parameter("seed", None, "engineDefault"),
        Parameter("temp", "0.5", "policy"),
    )


@given(st.permutations(SPECS))
def test_parameters_come_sorted_by_name_whatever_the_order_of_their_specs(specs: list[ParameterSpec]) -> None:
    assert resolve_parameters(SPECS, ()) == resolve_parameters(specs, ())


def test_what_nobody_sets_is_the_default_or_the_engines_own() -> None:
    assert resolve_parameters((INTEGER, DECIMAL), ()) == (
        Parameter("n", "16", "default"),
        Parameter("temp", None, "engineDefault"),
    )


def test_a_default_that_cannot_be_set_is_not_claimed() -> None:
    fixed = attrs.evolve(FIXED, default="5")
    assert resolve_parameters((fixed,), ()) == (Parameter("seed", None, "engineDefault"),)


@pytest.mark.parametrize("layer", range(5))
def test_an_unknown_name_in_any_layer_refuses_also_below_one_that_is_set(refuses: Refuses, layer: int) -> None:
    origins: list[requests.Origin] = ["option", "policy", "project", "environment", "config"]
    layers = [(o, {"n": "2", **({"n-predikt": "3"} if i == layer else {})}) for i, o in enumerate(origins)]
    error = refuses(INVALID, "parameter.unknown", resolve_parameters, SPECS, layers)
    assert origins[layer] in error.what


def test_a_backend_without_parameters_takes_none(refuses: Refuses) -> None:
    error = refuses(INVALID, "parameter.unknown", resolve_parameters, (), [("option", {"a": "1"})])
    assert error.expected == "no parameters"


def test_what_the_launcher_cannot_set_refuses_when_asked_for(refuses: Refuses) -> None:
    refuses(INVALID, "parameter.seed", resolve_parameters, SPECS, [("option", {"seed": "1"})])


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        *(
            (INTEGER, t)
            for t in ("0", "33", "-1", "", " 2", "2 ", "+2", "02", "2.0", "1e1", "0x2", "\uff12", "2\n", "1_0")
        ),
        *((DECIMAL, t) for t in ("-0.1", "2.1", "", ".5", "1.", "1e0", "NaN", "inf", "01", "0.5\n", "0.0000000001")),
        *((CHOICE, t) for t in ("Fast", "fast ", "slow,fast", "x")),
        (attrs.evolve(INTEGER, minimum=None), "33"),
        (attrs.evolve(INTEGER, maximum=None), "0"),
        (attrs.evolve(INTEGER, maximum=None), "1" * 20),
    ],
)
def test_a_value_out_of_range_or_misspelt_refuses(refuses: Refuses, spec: ParameterSpec, text: str) -> None:
    refuses(INVALID, f"parameter.{spec.name}", check_value, spec, text)


@pytest.mark.parametrize(
    ("spec", "text", "spelling"),
    [
        (INTEGER, "1", "1"),
        (INTEGER, "32", "32"),
        (attrs.evolve(INTEGER, minimum=None), "-5", "-5"),
        (attrs.evolve(INTEGER, minimum=None, maximum=None), "1" * 19, "1" * 19),
        (DECIMAL, "0", "0"),
        (DECIMAL, "-0", "0"),
        (DECIMAL, "-0.00", "0"),
        (DECIMAL, "0.70", "0.7"),
        (DECIMAL, "2.000000000", "2"),
        (CHOICE, "slow", "slow"),
    ],
)
def test_a_value_has_one_spelling(spec: ParameterSpec, text: str, spelling: str) -> None:
    assert spelling == check_value(spec, text)


@given(st.from_regex(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", fullmatch=True))
def test_the_plain_spelling_is_the_shortest_of_the_same_number(text: str) -> None:
    if not text.isascii():
        return
    plain = plain_decimal(text)
    assert Decimal(plain) == Decimal(text)
    assert plain == plain_decimal(plain)
    assert re.fullmatch(r"0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]", plain)


@pytest.mark.parametrize("text", ["", "NaN", "inf", "1e2", "\uff11", "1_0", " 1", "1.", ".1", "0x1", "--1"])
def test_what_is_no_plain_decimal_has_no_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r"^" if not text else None):
        plain_decimal(text)


def test_a_refused_request_repeats_only_well_formed_names() -> None:
    assert (requests.name_or_none("bitnet"), requests.agent_or_none("ci@x")) == ("bitnet", "ci@x")
    for bad in (None, "", "../x", "a\x1b"):
        assert requests.name_or_none(bad) is None
        assert requests.agent_or_none(bad) is None


def test_a_request_can_be_recorded_unless_its_id_or_words_are_malformed() -> None:
    assert requests.is_recordable(GOOD)
    assert requests.is_recordable(attrs.evolve(GOOD, request_id=None))
    assert not requests.is_recordable(attrs.evolve(GOOD, request_id="a/b"))
    for change in (
        {"argv": ("\udcff",)},
        {"inputs": ("\udcff",)},
        {"outputs": ("\udcff",)},
        {"cwd": "/\udcff"},
        {"backend": "\udcff"},
        {"parameters": (("a", "\udcff"),)},
    ):
        assert not requests.is_recordable(attrs.evolve(GOOD, **change))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a.b", True), ("policy.backend", True), ("x.A-1_b", True), ("a" * 128, True), ("a" * 129, False), ("", False)]
    + [(text, False) for text in ("A.b", "a..b", "a.", ".a", "a b", "a\n", "a/b", "é", None, 5)],
)
def test_rules_are_dotted_words(text: object, is_one: bool) -> None:
    assert is_one is requests.is_rule(text)
