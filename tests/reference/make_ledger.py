"""Make the reference ledger: fixed requests, published test keys, a fixed clock, the real pipeline.

    python tests/reference/make_ledger.py DIRECTORY

It was run once for format 1, and the result in `ledger/` is kept for ever as the proof that old ledgers still verify.
The keys follow from the seed below, so everybody has them: they sign nothing else, and prove nothing but the format.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from govrun.api import open_ground
from govrun.errors import GovrunError
from govrun.frozen import evolve
from govrun.home import format_trust, load_trust
from govrun.initialise import make_home
from govrun.invoke import announce, run
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.permit import permit
from govrun.request import Request
from govrun.settings import load_settings
from govrun.world import World, parse_instant

SEED = 1
ORIGIN = "govrun.example/reference/v1"
BEGIN = parse_instant("2026-01-01T00:00:00.000Z")
MODEL = Path(__file__).resolve().parents[2] / "examples" / "tiny-bitnet-tq2_0.gguf"
POLICY = b"""format = 1

[backends.process]
freeArgv = true

[backends.llamacpp]
determinism = "deterministic"
maxPromptBytes = 4096

[backends.bitnet]

[tasks.checksum]
backend = "process"
argv = ["sha256sum", "{input.1}"]

[limits]
wallMs = 60000
"""


def fixed_world(environ: Mapping[str, str]) -> World:
    """A clock that moves one second whenever it is read, and random bytes that everybody can make again."""
    source = random.Random(SEED)
    clock = iter(range(BEGIN, BEGIN + 10**9, 1000))
    elapsed = iter(range(0, 10**15, 1_000_000))
    return World(
        now_ms=lambda: next(clock),
        monotonic_ns=lambda: next(elapsed),
        random_bytes=source.randbytes,
        environ=environ,
    )


def requests(cwd: str) -> tuple[Request, ...]:
    """What is asked, in order: some succeed, some fail, some are refused."""
    return (
        Request(backend="process", agent="reference", argv=("true",), cwd=cwd),
        Request(backend="process", agent="reference", argv=("false",), cwd=cwd),
        Request(backend="process", argv=("false",), ok_exit=(0, 1), cwd=cwd),
        Request(backend="process", argv=("cp", "in.txt", "out.txt"), inputs=("in.txt",), outputs=("out.txt",), cwd=cwd),
        Request(backend="process", task="checksum", inputs=("in.txt",), cwd=cwd),
        Request(backend="process", argv=("true",), outputs=("missing.txt",), cwd=cwd),
        Request(backend="process", argv=("true",), request_id="once", cwd=cwd),
        Request(backend="process", argv=("true",), request_id="once", cwd=cwd),
        Request(backend="llamacpp", agent="reference", prompt=b"abc", cwd=cwd),
        Request(backend="llamacpp", prompt=b"abc", parameters=(("temperature", "0.5"),), cwd=cwd),
        Request(backend="bitnet", prompt=b"abc", cwd=cwd),
        Request(backend="nonesuch", prompt=b"abc", cwd=cwd),
        Request(backend="process", argv=("a\x00b",), cwd=cwd),
    )


def main() -> int:
    target = Path(sys.argv[1])
    if (target / "checkpoint").exists():
        print(f"{target} holds the reference ledger already; it is never written again", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o700)
        work = Path(place, "work")
        work.mkdir()
        (work / "in.txt").write_text("what goes in\n")
        environ = {
            "HOME": place,
            "XDG_CONFIG_HOME": f"{place}/config",
            "XDG_STATE_HOME": f"{place}/state",
            "LLAMACPP_MODEL_GGUF": str(MODEL),
        }
        world = fixed_world(environ)
        made = make_home(world, Path(place, ".govrun"), ORIGIN, [])
        (made.home / "policy.toml").write_bytes(POLICY)
        settings = load_settings(made.home, environ, {})
        with open_ground(world, settings) as ground:
            for wanted in requests(str(work)):
                try:
                    result = run(ground, wanted)
                    print(f"{wanted.backend}: {result.exit.label}, outcome {result.outcome_index}")
                except GovrunError as refusal:
                    print(f"{wanted.backend}: {refusal.code.label}, {refusal.effect}")
            # An invocation whose process died after the intent: the next run finds its lease free and says so.
            announce(
                ground, permit(ground.site, Request(backend="process", argv=("true",), cwd=str(work)))
            ).lease.release()
            run(ground, Request(backend="process", argv=("true",), cwd=str(work)))
        trust = load_trust(made.trust_file)
        reader = open_ledger(settings.ledger)
        published = publish(reader, target, trust.log)
        reader.close()
        (target / "trust.toml").write_bytes(format_trust(evolve(trust, home=None)))
        shutil.copytree(made.home / "policies", target / "policies")
    print(f"{published.size} entries in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
