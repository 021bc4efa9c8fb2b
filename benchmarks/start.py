"""What one command costs from its start to its end, in CPU time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import Command, Rounds, Row, below, cpu_ms
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
    key.write_bytes(_new_key())
    in_toto = place.command(
        *("in-toto-run", "--step-name", "bench", "--signing-key", str(key), "--metadata-directory", str(links)),
        *("--quiet", "--", "true"),
    )
    times = 9 if quick else 41
    govrun = place.command("govrun", "run", "--backend", "process", "--", "true")
    libraries = place.command("python", "-c", _LIBRARIES)
    rounds = Rounds(times, *(_cpu(command) for command in (govrun, libraries, in_toto)))
    yield below("run a command and prove it, CPU", rounds, 0, 2, "ms", "in-toto-run", 0.5)
    libraries_ms, in_toto_ms = rounds.median(1), rounds.median(2)
    yield Row(
        "... of which importing third-party libraries",
        f"{libraries_ms:.3g} ms",
        f"{in_toto_ms:.3g} ms, in-toto-run",
        rounds.ratio(1, 2),
        "",
        None,
    )
    words = [place.command("govrun", word) for word in ("--help", "--version")]
    rounds = Rounds(times, *map(_cpu, (*words, place.command("python", "-c", "pass"))))
    yield below("govrun --help, CPU", rounds, 0, 2, "ms", "python -c pass", 5)
    yield below("govrun --version, CPU", rounds, 1, 2, "ms", "python -c pass", 4)


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _cpu(command: Command) -> Callable[[], float]:
    return lambda: cpu_ms(command)
