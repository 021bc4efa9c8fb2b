"""The Go programs of these tests, each built once for all that use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.golang import build


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program over golang.org/x/mod."""
    return build("go", tmp_path_factory.mktemp("go") / "interop", "nothing was checked with golang.org/x/mod")


@pytest.fixture(scope="session")
def tessera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program over the packages of transparency-dev."""
    lost = "nothing was checked with Tessera's fsck or transparency-dev/merkle"
    return build("tessera", tmp_path_factory.mktemp("go") / "tessera", lost)
