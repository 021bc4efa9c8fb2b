"""What one command costs from its start to its end, in CPU time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import Command, Row, alternate, below, cpu_ms
from benchmarks.place import Place

# All that a run imports and that is not govrun's, in a program that does nothing else.
_LIBRARIES = (
    "import gc; gc.disable(); import click, attrs, orjson, jsonschema_rs, tomllib, sqlite3, ctypes, hashlib;"
    "from cryptography.hazmat.primitives.asymmetric import ed25519; import os; os._exit(0)"
)


def rows(directory: Path, quick: bool) -> Iterator[Row]:
    """`govrun run` against `in-toto-run`; `--help` and `--version` against a Python that does nothing."""
    place = Place(directory)
    key, links = directory / "in-toto.pem", directory / "links"
    links.mkdir()
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    in_toto = place.command(
        *("in-toto-run", "--step-name", "bench", "--signing-key", str(key), "--metadata-directory", str(links)),
        *("--quiet", "--", "true"),
    )
    times = 9 if quick else 41
    govrun = place.command("govrun", "run", "--backend", "process", "--", "true")
    libraries = place.command("python", "-c", _LIBRARIES)
    ours, floor, theirs = alternate(times, *(_cpu(command) for command in (govrun, libraries, in_toto)))
    yield below("run a command and prove it, CPU", ours, theirs, "ms", "in-toto-run", 0.5)
    yield Row(
        "... of which importing third-party libraries alone",
        f"{floor:.3g} ms",
        f"{theirs:.3g} ms, in-toto-run",
        floor / theirs,
        "",
        None,
    )
    words = [place.command("govrun", word) for word in ("--help", "--version")]
    shown, version, bare = alternate(times, *map(_cpu, (*words, place.command("python", "-c", "pass"))))
    yield below("govrun --help, CPU", shown, bare, "ms", "python -c pass", 5)
    yield below("govrun --version, CPU", version, bare, "ms", "python -c pass", 4)


def _cpu(command: Command) -> Callable[[], float]:
    return lambda: cpu_ms(command)
