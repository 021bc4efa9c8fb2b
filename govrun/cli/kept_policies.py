"""The bytes of policies that lie with a ledger: in its home, beside its published files, or in an export."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from govrun.cli.one_ledger import beside
from govrun.digest import sha256_hex
from govrun.errors import GovrunError
from govrun.ledger.read import kind_of
from govrun.policy import Policy, parse_policy
from govrun.settings import read_small


def kept_policies(location: str, home: Path | None) -> Iterator[Policy]:
    """Every policy that is kept with the ledger at a location, and in the home whose ledger it is."""
    for digest, data in _kept_bytes(location, home):
        # What has a digest and is no policy was never in force, whoever put it there.
        with contextlib.suppress(GovrunError):
            yield parse_policy(data, f"{digest}.toml")


def _kept_bytes(location: str, home: Path | None) -> Iterator[tuple[str, bytes]]:
    if kind_of(location) == "export":
        yield from _in_export(location).items()
        return
    found = {path.stem: path for place in (beside(location), home) if place for path in place.glob("policies/*.toml")}
    for digest, path in sorted(found.items()):
        if (kept := _kept(path)) is not None:
            yield digest, kept


def policy_by_digest(location: str, home: Path | None) -> Callable[[str], bytes | None]:
    """What gives the bytes of the policy of a digest (sha256 in hex), None for one that is not kept there."""
    if kind_of(location) == "export":
        return _in_export(location).get
    places = [place / "policies" for place in (beside(location), home) if place is not None]

    def look(digest: str) -> bytes | None:
        found = (_kept(place / f"{digest}.toml") for place in places)
        return next((data for data in found if data is not None), None)

    return look


def _kept(path: Path) -> bytes | None:
    data = read_small(path, "policy")
    # Of another digest than its name's: not that policy any more, and an audit says that this one is unavailable.
    return None if data is None or sha256_hex(data) != path.stem else data


def _in_export(location: str) -> dict[str, bytes]:
    from govrun.ledger.read_export import ExportFiles

    files = ExportFiles(Path(location))
    try:
        return {sha256_hex(data): data for data in files.policies()}
    finally:
        files.close()
