"""Defects that are put into govrun make tests fail; the list of them stays in step with the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.mutate import ROOT, Mutant, load
from tests.faults import harness


@pytest.mark.parametrize("mutant", load(), ids=lambda mutant: mutant.name)
def test_every_text_that_a_mutant_replaces_occurs_once(mutant: Mutant) -> None:
    assert mutant.breaks
    assert mutant.tests
    for edit in mutant.edits:
        assert 1 == (ROOT / edit.file).read_text().count(edit.old), edit
        assert edit.old != edit.new
    for test in mutant.tests:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}" in Path(ROOT / file).read_text(), test


def test_no_two_mutants_are_the_same() -> None:
    mutants = load()
    assert len(mutants) >= 25
    assert len(mutants) == len({mutant.name for mutant in mutants}) == len({mutant.edits for mutant in mutants})


@pytest.mark.slow
def test_a_sample_of_mutants_does_not_survive() -> None:
    found = harness.run("mutants", "--quick")
    assert [] == harness.broken(found)
    assert 5 == found["rows"][0]["times"]
