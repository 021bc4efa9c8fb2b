"""Worlds for tests of the command line: those of the tests from end to end."""

from tests.e2e.conftest import bare, place

__all__ = ["bare", "place"]
