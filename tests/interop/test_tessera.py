"""Tessera's fsck accepts what `govrun ledger publish` writes, at every shape of tree, and refuses a damaged one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.signing.keys import format_vkey, signer_from_seed
from tests.audit import ledgers
from tests.audit.ledgers import LOG, ORIGIN, Ledger

VKEY = format_vkey(LOG.verifier)


def fsck(tessera: Path, vkey: str, directory: Path) -> tuple[int, str]:
    """Exit code, and what was said."""
    words = [tessera, "-fsck", vkey, directory]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


def published(ledger: Ledger, place: Path, directory: Path) -> None:
    reader = open_ledger(ledgers.write_sqlite(ledger, place))
    publish(reader, directory, LOG.verifier)
    reader.close()


def grown(ledger: Ledger, size: int) -> Ledger:
    """The ledger with small entries up to size, under one checkpoint."""
    while len(ledger.leaves) < size:
        ledger.add_leaf(b"entry %d" % len(ledger.leaves), checkpoint=False)
    ledger.sign()
    return ledger


def test_fsck_accepts_what_the_command_line_published(tessera: Path, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}

    def govrun(*words: str) -> None:
        command = [sys.executable, "-m", "govrun", *words]
        subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=True, timeout=120)

    govrun("init", "--origin", "example.com/fsck", "--allow", "process")
    for size in (1, 3, 5):
        govrun("ledger", "publish", "public")
        vkey = (tmp_path / "public" / "log.vkey").read_text().strip()
        code, said = fsck(tessera, vkey, tmp_path / "public")
        assert (0, True) == (code, f"log with size {size} " in said), said
        govrun("run", "--backend", "process", "--", "/bin/true")


def test_fsck_accepts_a_ledger_that_was_published_again_and_again(tessera: Path, tmp_path: Path) -> None:
    ledger = ledgers.six()
    for size in (6, 255, 256, 257, 513):
        published(grown(ledger, size), tmp_path / str(size), tmp_path / "public")
        code, said = fsck(tessera, VKEY, tmp_path / "public")
        assert (0, True) == (code, f"log with size {size} " in said), said


@pytest.mark.slow
def test_fsck_accepts_a_ledger_with_three_levels_of_tiles(tessera: Path, tmp_path: Path) -> None:
    published(grown(ledgers.six(), 70_000), tmp_path / "source", tmp_path / "public")
    code, said = fsck(tessera, VKEY, tmp_path / "public")
    assert (0, True) == (code, "log with size 70000 " in said), said


def test_fsck_accepts_the_reference_ledger(tessera: Path) -> None:
    ledger = Path(__file__).resolve().parents[2] / "ledger"
    code, said = fsck(tessera, (ledger / "log.vkey").read_text().strip(), ledger)
    assert (0, True) == (code, "log with size 26 " in said), said


def test_fsck_refuses_every_kind_of_damage(tessera: Path, tmp_path: Path) -> None:
    public = tmp_path / "public"
    published(grown(ledgers.six(), 300), tmp_path / "source", public)
    files = [
        "checkpoint",
        *sorted(str(file.relative_to(public)) for file in public.glob("tile/**/*") if file.is_file()),
    ]
    assert [
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    ] == files
    for name in files:
        file = public / name
        whole = file.read_bytes()
        for damaged in (
            whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:] if len(whole) > 40 else b"x",
            whole[:-1],
            None,
        ):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            code, said = fsck(tessera, VKEY, public)
            assert (1, True) == (code, "tessera: " in said), (name, said)
            file.write_bytes(whole)
    assert 0 == fsck(tessera, VKEY, public)[0]
    other = format_vkey(signer_from_seed(ORIGIN, b"o" * 32).verifier)
    assert 1 == fsck(tessera, other, public)[0]
