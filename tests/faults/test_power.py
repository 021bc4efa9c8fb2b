"""The power fails at any instant: what was acknowledged is there, and what is not whole does no harm."""

from __future__ import annotations

from tests.faults import harness


def test_after_a_power_loss_what_was_acknowledged_is_there() -> None:
    found = harness.run("power", "--quick")
    assert [] == harness.broken(found)
    assert 0 == sum(row["lost"] for row in found["rows"])
    least = [row for row in found["rows"] if "leaves nothing" in row["fault"]]
    assert ["append", "pending", "publish"] == [row["during"] for row in least]
    assert all(row["times"] > 0 for row in found["rows"])
    assert all(row["acknowledged"] > 0 for row in least)
