"""Instants have one spelling; ids come from the world's random bytes."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.world import World, format_instant, parse_instant, real_world

LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z


@given(st.integers(-62_135_596_800_000 + 31_536_000_000 * 1000, LAST_MS))
def test_parsing_an_instant_undoes_formatting(milliseconds: int) -> None:
    assert milliseconds == parse_instant(format_instant(milliseconds))


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_795_348_800_007, "2026-11-22T12:00:00.007Z"),
        (LAST_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_known_instants(milliseconds: int, text: str) -> None:
    assert text == format_instant(milliseconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22T12:00:00Z",
        "2026-11-22T12:00:00.00Z",
        "2026-11-22T12:00:00.0000Z",
        "2026-11-22T12:00:00.000z",
        "2026-11-22 12:00:00.000Z",
        "2026-11-22T12:00:00,000Z",
        "2026-11-22T12:00:60.000Z",
        "2026-02-30T12:00:00.000Z",
        "2026-13-01T12:00:00.000Z",
        "2026-11-22T24:00:00.000Z",
        "2026-11-22T12:00:00.+00Z",
        "2026-11-22T12:00:00. 00Z",
        "2026-11-22T12:00:00.\u0661\u0661\u0661Z",
        "2026-1-022T12:00:00.000Z",
        "20261122T120000.0000000Z",
    ],
)
def test_any_other_spelling_of_an_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|time data|invalid literal|day|month|unconverted"):
        parse_instant(text)


def test_ids_and_instants_come_from_the_world(world: World) -> None:
    assert world.now() == "2026-11-22T12:00:00.000Z"
    first, second = world.new_id(), world.new_id()
    assert first != second
    assert all(len(i) == 32 and set(i) <= set("0123456789abcdef") for i in (first, second))


def test_the_real_world_is_this_machine() -> None:
    real = real_world()
    assert abs(real.now_ms() - time.time_ns() // 1_000_000) < 10_000
    assert real.monotonic_ns() <= real.monotonic_ns()
    assert len(real.random_bytes(16)) == 16
    assert real.environ == dict(os.environ)
    assert real.environ is not os.environ


def test_an_environment_that_is_given_is_copied() -> None:
    given_environ = {"A": "1"}
    taken = real_world(given_environ).environ
    given_environ["A"] = "2"
    assert taken == {"A": "1"}
