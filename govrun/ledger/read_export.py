"""Read an export: a published ledger, policies and schemas in one zip (`archive`)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from govrun.digest import sha256_hex, without_waiting
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.archive import Archive
from govrun.ledger.read_published import byte_limit, too_large
from govrun.ledger.tile import parse_tile_path
from govrun.policy import MAX_BYTES as MAX_POLICY_BYTES
from govrun.signing.note import MAX_NOTE_BYTES

_SMALL: Final = {"README.md": 1 << 16, "checkpoint": MAX_NOTE_BYTES}
_SCHEMA: Final = re.compile(r"schemas/[a-z][a-z0-9.-]{0,60}\.json")
_MAX_SCHEMA_BYTES: Final = 1 << 20
_POLICY: Final = re.compile(r"policies/([0-9a-f]{64})\.toml")


class ExportFiles:
    """The files in an export (a `read_published.Files`), and the policies that came along.

    GovrunError: could-not-check (`export...`) for a zip of another form or one that cannot be read; ledger-inconsistent
    for a member that is not what the list of the zip says, or a policy that is not what its name says.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = without_waiting(str(path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "export.unreadable",
                f"{path.name} cannot be read",
                found=os.strerror(error.errno or 0),
                expected="a file that can be read",
            ) from error
        try:
            self._archive = Archive(self._descriptor, _limit_of)
            self._check_small()
        except BaseException:
            self.close()
            raise

    def fetch(self, name: str, limit: int) -> bytes | None:
        data = self._archive.read(name)
        if data is not None and len(data) > limit:
            raise too_large(name, limit)
        return data

    def ahead(self, wanted: Sequence[tuple[str, int]]) -> None:
        """The system reads ahead by itself."""

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def policies(self) -> tuple[bytes, ...]:
        """The bytes of each policy, by digest."""
        return tuple(self._archive.read(name) or b"" for name in self._archive.names() if _POLICY.fullmatch(name))

    def _check_small(self) -> None:
        """Read what no verification asks for, so that a damaged export is told as one."""
        for name in self._archive.names():
            if name.startswith("tile/"):
                continue
            data = self._archive.read(name) or b""
            match = _POLICY.fullmatch(name)
            if match is not None and sha256_hex(data) != match[1]:
                raise GovrunError(
                    ExitCode.LEDGER_INCONSISTENT,
                    "export.policy",
                    f"{name} is not the policy of that digest",
                    found=sha256_hex(data)[:16],
                    expected=match[1][:16],
                    fix="get the file once more from whoever exported it",
                )


def _limit_of(name: str) -> int | None:
    """How many bytes a member of this name may have, None for a name that an export does not have."""
    if name in _SMALL:
        return _SMALL[name]
    if _SCHEMA.fullmatch(name):
        return _MAX_SCHEMA_BYTES
    if _POLICY.fullmatch(name):
        return MAX_POLICY_BYTES
    if not name.startswith("tile/"):
        return None
    try:
        return byte_limit(parse_tile_path(name))
    except GovrunError:
        return None
