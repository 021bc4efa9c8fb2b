"""Worlds for tests of the command line: one without a home, and one that lets `process` run any command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.place import Place, a_place


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Place]:
    """A world without a home."""
    with a_place(tmp_path) as place:
        yield place


@pytest.fixture
def place(bare: Place) -> Place:
    """A world with a home whose policy lets callers bring any command for `process`."""
    bare.init("process")
    return bare
