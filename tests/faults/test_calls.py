"""A fault in system calls that touch the ledger, a sample of what `make faults` does at each of them."""

from __future__ import annotations

import pytest

from tests.faults import harness


@pytest.mark.slow
def test_a_fault_in_any_system_call_loses_nothing_that_was_acknowledged() -> None:
    found = harness.run("calls", "--quick")
    assert [] == harness.broken(found)
    assert 0 == sum(row["lost"] for row in found["rows"])
    kinds = [(row["fault"].split()[0], row["during"]) for row in found["rows"]]
    scenes = ("append", "run", "recovery")
    assert [(how, scene) for scene in scenes for how in ("SIGKILL", "EIO", "ENOSPC")] == kinds
    assert all(row["times"] > 0 for row in found["rows"])
