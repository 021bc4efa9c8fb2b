"""Old copies and forks of a ledger that is put back: refused by the writer (exit 16), whatever was put back how."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.place import Place, assert_refused


def kept(place: Place, name: str) -> Path:
    copy = place.root / name
    shutil.copytree(place.home, copy)
    return copy


def put_back(place: Place, copy: Path) -> None:
    shutil.rmtree(place.home)
    copy.rename(place.home)


def old_copy(place: Place) -> None:
    copy = kept(place, "copy")
    place.call(argv=("/bin/true",))
    put_back(place, copy)


def fork_of_the_same_size(place: Place) -> None:
    _fork(place, 1)


def fork_that_grew_further(place: Place) -> None:
    _fork(place, 3)


def _fork(place: Place, runs: int) -> None:
    """Two machines go on from one backup, each with a memory of its own; then one gets the ledger of the other."""
    copy = kept(place, "copy")
    place.call(argv=("/bin/true",))
    shutil.copytree(place.root / "state", place.root / "remembered")
    put_back(place, copy)
    shutil.rmtree(place.root / "state")
    (place.root / "state").mkdir(mode=0o700)
    for _ in range(runs):
        place.call(argv=("/bin/echo",))
    shutil.rmtree(place.root / "state")
    (place.root / "remembered").rename(place.root / "state")


@pytest.mark.parametrize("how", [old_copy, fork_of_the_same_size, fork_that_grew_further])
def test_what_is_put_back_is_refused_and_nothing_runs(place: Place, how: Callable[[Place], None]) -> None:
    place.call(argv=("/bin/true",))
    how(place)
    size = place.size
    done = place.run("--", *place.mark)
    assert_refused(done, 16, "ledger.rolledBack", recorded=False)
    assert (0, size) == (place.runs, place.size)
