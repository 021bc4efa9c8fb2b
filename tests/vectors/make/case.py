"""One case: what is asked, the bytes it is asked about, and the answer; written as a directory of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.vectors.make.spec import LOG, ORIGIN, RECEIPT, ROOT, Json

# Who is trusted about the test ledger, when a case does not say otherwise.
TRUST: Json = {"origin": ORIGIN, "root": ROOT.vkey, "log": LOG.vkey, "receipt": [RECEIPT.vkey]}


class Case(NamedTuple):
    """name: of the directory, without `_fail`. expected: `verdict` and what else a verifier must answer."""

    name: str
    kind: str
    says: str
    asks: Mapping[str, Any]
    files: Mapping[str, bytes]
    expected: Mapping[str, Any]

    @property
    def directory(self) -> str:
        return self.name if self.expected["verdict"] == "accept" else f"{self.name}_fail"

    def write(self, place: Path) -> None:
        manifest = {"kind": self.kind, "says": self.says, **self.asks, "expected": dict(self.expected)}
        text = json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"
        for name, data in {**self.files, "case.json": text.encode()}.items():
            file = place / self.directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def accepted(**more: Any) -> Json:
    return {"verdict": "accept", "exitCode": 0} | more


def rejected(code: int, **more: Any) -> Json:
    """code: the exit code of SPEC's table."""
    return {"verdict": "reject", "exitCode": code} | more
