"""The proof after each test of `execute` that no process, zombie, descriptor or signal mask is left."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from govrun.execute import family
from tests.execute.children import a_plan, go, with_word

_COUNT = itertools.count(1)


@pytest.fixture
def nap() -> str:
    """A number of seconds that no other process sleeps: it finds the process that does."""
    return f"1{os.getpid():07}.{next(_COUNT):04}"


@pytest.fixture(autouse=True)
def nothing_left(nap: str) -> Iterator[None]:
    before = set(family.descendants(os.getpid()))
    descriptors = set(os.listdir("/proc/self/fd"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert set(family.descendants(os.getpid())) - before == set()
    assert with_word(nap) == []
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """Skip, aloud, where bubblewrap cannot make a pid namespace."""
    if go(a_plan("/bin/true"), isolation="pidNamespace").ended != "exited":
        pytest.skip("SKIPPED ALOUD: bubblewrap is missing or cannot make a pid namespace here")


@pytest.fixture(params=["group", "pidNamespace"])
def level(request: pytest.FixtureRequest) -> str:
    if request.param == "pidNamespace":
        request.getfixturevalue("bubblewrap")
    return str(request.param)
