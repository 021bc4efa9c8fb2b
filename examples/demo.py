"""The whole path of govrun, for real: from `govrun init` to an auditor's verdict, in a directory of its own.

Run it with `make demo`. Every command shown is the one that ran, and every line below it is what it printed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".demo"
GOVRUN = Path(sys.executable).with_name("govrun")
MODEL = ROOT / "examples" / "tiny-bitnet-tq2_0.gguf"
COLOUR = sys.stdout.isatty()


def say(text: str) -> None:
    """One line of explanation before a step."""
    print(f"\n\x1b[1m{text}\x1b[0m" if COLOUR else f"\n# {text}", flush=True)


def run(*words: str, expected: int) -> None:
    """Show a govrun command, run it, show what it printed, and stop the demo if it did not end as it should."""
    shown = " ".join(f"'{word}'" if " " in word else word.replace(f"{ROOT}/", "") for word in words)
    print(f"$ govrun {shown}", flush=True)
    code = subprocess.run(
        [GOVRUN, *words], cwd=ROOT, env=environment(), stderr=subprocess.STDOUT, check=False
    ).returncode
    print(f"\n(exit code {code})" if code == 0 and words[0] == "run" else f"(exit code {code})", flush=True)
    if code != expected:
        sys.exit(f"the demo expected exit code {expected}; this is a defect, or something is missing on this machine")


def environment() -> dict[str, str]:
    """The demo's own home, trust files and state, so that nothing of yours is touched."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GOVRUN_", "BITNET_", "LLAMACPP_"))
    }
    return {
        **kept,
        "GOVRUN_HOME": str(PLACE / ".govrun"),
        "XDG_CONFIG_HOME": str(PLACE / "config"),
        "XDG_STATE_HOME": str(PLACE / "state"),
        "LLAMACPP_MODEL_GGUF": str(MODEL),
    }


def tamper(ledger: Path, index: int) -> None:
    """Change one byte of one stored receipt, as somebody without keys could."""
    with sqlite3.connect(ledger) as connection:
        (leaf,) = connection.execute("SELECT leaf FROM entry WHERE idx = ?", (index,)).fetchone()
        changed = bytearray(leaf)
        changed[len(changed) // 2] ^= 1
        connection.execute("UPDATE entry SET leaf = ? WHERE idx = ?", (bytes(changed), index))
    connection.close()


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()

    say("1. A ledger begins: three keys, an empty log, and a policy that lets three backends run and nothing else.")
    run(
        "init",
        "--origin",
        "demo.example/ledger",
        "--allow",
        "process",
        "--allow",
        "llamacpp",
        "--allow",
        "bitnet",
        expected=0,
    )

    say("2. A real command through backend=process: a sha256 manifest of this repository, its output digested.")
    manifest = str((PLACE / "MANIFEST.sha256").relative_to(ROOT))
    run(
        "run",
        "--backend",
        "process",
        "--agent",
        "demo",
        "--output",
        manifest,
        "--",
        sys.executable,
        "examples/manifest.py",
        manifest,
        expected=0,
    )

    say(
        "3. A real ternary b1.58 model through backend=llamacpp. Its weights learnt nothing, so the text means nothing;"
    )
    print("  what is shown is that this engine ran this model, by digest, with these parameters.", flush=True)
    run(
        "run",
        "--backend",
        "llamacpp",
        "--agent",
        "demo",
        "--prompt",
        "Route this message: the build is red",
        "--param",
        "maxTokens=16",
        expected=0,
    )

    say("4. backend=bitnet with nothing configured: refused before anything starts, and the refusal is a receipt too.")
    run("run", "--backend", "bitnet", "--agent", "demo", "--prompt", "hello", expected=13)

    say("5. What the ledger says happened.")
    run("ledger", "list", expected=0)

    say("6. An auditor's question: are these the bytes that were signed, in this order, and nothing else?")
    run("verify", expected=0)

    say("7. Somebody changes one byte of entry 2 in a copy. The verdict is no, and it says where.")
    copy = PLACE / "tampered.sqlite"
    shutil.copy(PLACE / ".govrun" / "ledger.sqlite", copy)
    tamper(copy, 2)
    run("verify", str(copy.relative_to(ROOT)), expected=40)

    say(f"Done. Look around: GOVRUN_HOME={PLACE.relative_to(ROOT)}/.govrun, and `govrun ledger show 1`.")


if __name__ == "__main__":
    main()
