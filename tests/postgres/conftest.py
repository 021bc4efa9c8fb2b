"""One PostgreSQL cluster for these tests, and a ledger in a database of its own for each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres.cluster import Cluster, find_binaries
from tests.postgres.shared_world import Shared

_names = itertools.count(1)


@pytest.fixture(scope="session")
def running() -> Iterator[Cluster]:
    """A cluster that runs, started once."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no initdb and postgres here: NOTHING about ledgers in PostgreSQL was shown")
    cluster = Cluster(binaries)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The cluster, running with its usual settings whatever the test before did."""
    return running


@pytest.fixture
def make(cluster: Cluster, tmp_path: Path) -> Callable[..., Shared]:
    """Make a ledger in a new database, not begun yet."""

    def made(**options: bool) -> Shared:
        name = f"l{next(_names)}"
        return Shared(cluster, name, tmp_path / name, **options)

    return made


@pytest.fixture
def shared(make: Callable[..., Shared]) -> Shared:
    """A ledger of one entry whose writers hold the log key."""
    made = make()
    made.create()
    return made
