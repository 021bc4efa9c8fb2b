"""The judge that nobody here made up: golang.org/x/mod/sumdb reads what is published and proves every entry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "tests" / "interop" / "go"


class Judge:
    """The Go program of tests/interop/go; absent where it cannot be built, and then nothing is asked."""

    def __init__(self, program: Path | None, absent: str) -> None:
        self.program = program
        self.absent = absent

    def refuses(self, public: Path, vkey: str, older: Path, size: int) -> list[str]:
        """What the program has against a published ledger of size entries that extends an older checkpoint."""
        if self.program is None:
            return []
        words = [str(self.program), "-consistency", str(older), vkey, str(public)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            return [f"Go: {done.stderr.strip()}"]
        found = json.loads(done.stdout)["entries"]
        return [] if found == size else [f"Go proved {found} entries of {size}"]


def build(directory: Path) -> Judge:
    """Build the program without the network; a judge that is absent, with the reason, where that does not work."""
    go = shutil.which("go")
    if go is None:
        return Judge(None, "no Go toolchain: golang.org/x/mod has not judged")
    program = directory / "interop"
    offline = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    done = subprocess.run([go, "build", "-o", program, "."], cwd=SOURCE, env=offline, capture_output=True, text=True)
    if done.returncode:
        return Judge(None, "golang.org/x/mod is not in Go's module cache (`go mod download` in tests/interop/go)")
    return Judge(program, "")
