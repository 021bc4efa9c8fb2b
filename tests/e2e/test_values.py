"""No value becomes a flag, a command, a path or a line of its own: every word comes back exactly as it was given."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun import refusals
from govrun.errors import GovrunError
from govrun.frozen import evolve
from govrun.world import real_world
from tests.e2e.place import Place, a_place

ODD = [
    "",
    " ",
    "-",
    "--",
    "--help",
    "--home=/etc",
    "-rf",
    "$(id)",
    "`id`",
    "$HOME",
    "*",
    "~",
    "; touch executed",
    "| cat",
    "a\nb",
    "\t",
    "'",
    '"',
    "\\",
    "\\n",
    "%s%n",
    "{prompt}",
    "{input.1}",
    "<redacted>",
    "/etc/passwd",
    "C:\\x",
    "file:///etc/passwd",
    "grüße",
    "\u202e",
    "\x1b[2J",
    "😀",
    "\ufeff",
    "e\u0301",
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as root, a_place(Path(root)) as place:
        place.init("process")
        yield place


def test_odd_words_come_back_exactly(shared: Place) -> None:
    done = shared.run("--", "/usr/bin/printf", "%s\\0", *ODD)
    assert (0, ODD) == (done.code, done.out.decode().split("\0")[:-1]), done.err
    assert not (shared.work / "executed").exists()


def test_words_of_a_request_document_come_back_exactly(shared: Place) -> None:
    document = json.dumps({"backend": "process", "argv": ["/usr/bin/printf", "%s\\0", *ODD]})
    done = shared.go("run", "--request", "-", stdin=document.encode())
    assert (0, ODD) == (done.code, done.out.decode().split("\0")[:-1]), done.err


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(WORDS, max_size=8))
def test_any_words_come_back_exactly(shared: Place, words: list[str]) -> None:
    result = shared.call(argv=("/usr/bin/printf", "%s\\0", *words))
    assert result.text is not None
    # printf says its format once when there is no word.
    assert (words or [""]) == result.text.decode().split("\0")[:-1]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.text(max_size=60) | st.binary(max_size=60).map(os.fsdecode))
def test_any_names_run_or_refuse_and_leave_a_record(shared: Place, text: str) -> None:
    before = shared.size
    for field in ("task", "agent", "request_id", "backend"):
        refusal = _refusal(shared, **{field: text})
        assert refusal is None or 10 <= refusal.code <= 14, refusal
        assert refusal is None or "refusal recorded as entry" in str(refusal.effect), refusal
    assert shared.size >= before + 3


_MINUTES = itertools.count()


def _refusal(place: Place, **wanted: str) -> GovrunError | None:
    # A minute later each time, so that no refusal is counted with another.
    now_ms = time.time_ns() // 1_000_000 + next(_MINUTES) * refusals.WINDOW_MS
    try:
        place.call(argv=("/bin/true",), world=evolve(real_world(place.environ), now_ms=lambda: now_ms), **wanted)
    except GovrunError as refusal:
        return refusal
    return None


@pytest.mark.parametrize("word", [b"\xff", b"a\xffb", b"\xed\xa0\x80"])
def test_a_word_that_is_no_text_is_refused(place: Place, word: bytes) -> None:
    done = place.run("--", *place.mark, word)
    assert (10, "request.utf8") == (done.code, place.last("denied")["rule"])
    assert 0 == place.runs
