"""The bytes of policies that lie with a ledger: in its home, beside its published files, or in an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from govrun.cli.one_ledger import beside
from govrun.digest import sha256_hex
from govrun.ledger.read import kind_of
from govrun.policy import Policy, parse_policy
from govrun.settings import read_small


def kept_policies(location: str) -> Iterator[Policy]:
    """Every policy that is kept with the ledger at a location."""
    if kind_of(location) == "export":
        for digest, data in _in_export(location).items():
            yield parse_policy(data, f"{digest}.toml")
        return
    place = beside(location)
    if place is None:
        return
    for path in sorted((place / "policies").glob("*.toml")):
        if (kept := _kept(path)) is not None:
            yield parse_policy(kept, path.name)


def policy_by_digest(location: str) -> Callable[[str], bytes | None]:
    """What gives the bytes of the policy of a digest (sha256 in hex), None for one that is not kept there."""
    if kind_of(location) == "export":
        return _in_export(location).get
    place = beside(location)
    if place is None:
        return lambda _: None
    return lambda digest: _kept(place / "policies" / f"{digest}.toml")


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
