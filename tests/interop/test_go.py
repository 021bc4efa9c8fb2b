"""A published ledger satisfies the Go checksum database's packages, and a changed one does not.

Needs a Go toolchain and golang.org/x/mod in Go's module cache (`make modules` brings it). Nothing is downloaded here.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from govrun.ledger import merkle, tile
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint
from govrun.ledger.read import open_ledger
from govrun.signing.keys import format_vkey, signer_from_seed

SOURCE = Path(__file__).parent / "go"
ORIGIN = "example.com/ledger"
LOG = signer_from_seed(ORIGIN, b"l" * 32)


def leaves_of(size: int) -> list[bytes]:
    return [b'{"payload":"%d"}' % n * (n % 7) for n in range(size)]


def publish(directory: Path, leaves: Sequence[bytes]) -> Checkpoint:
    """Write the published form of a ledger of these leaves, with the project's own tile and checkpoint code."""
    frontier = merkle.Frontier()
    stored = [one for leaf in leaves for one in frontier.append(merkle.leaf_hash(leaf))]
    size = len(leaves)
    for one in tile.tiles_of(size):
        write(directory / tile.format_tile_path(one), tile.tile_data(one, lambda at: [stored[n] for n in at]))
    for bundle in tile.bundles_of(size):
        first = bundle.index * tile.TILE_WIDTH
        entries = leaves[first : first + bundle.width]
        write(directory / tile.format_tile_path(bundle), tile.format_bundle(entries))
    head = Checkpoint(ORIGIN, size, frontier.root())
    write(directory / "checkpoint", sign_checkpoint(head, LOG))
    return head


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


VKEY = format_vkey(LOG.verifier)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
def test_go_proves_every_entry_of_a_published_ledger(program: Path, tmp_path: Path, size: int) -> None:
    head = publish(tmp_path, leaves_of(size))
    result = run(program, VKEY, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert {
        "origin": ORIGIN,
        "size": size,
        "root": base64.b64encode(head.root).decode(),
        "entries": size,
    } == json.loads(result.stdout)


def test_go_proves_every_entry_of_a_ledger_with_three_levels_of_tiles(program: Path, tmp_path: Path) -> None:
    publish(tmp_path, leaves_of(70_000))
    result = run(program, VKEY, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["entries"] == 70_000


def test_go_proves_every_entry_of_the_reference_ledger(program: Path) -> None:
    ledger = Path(__file__).resolve().parents[2] / "ledger"
    done = run(program, (ledger / "log.vkey").read_text().strip(), ledger)
    assert (0, "") == (done.returncode, done.stderr)
    assert 26 == json.loads(done.stdout)["size"]


@pytest.mark.parametrize("old", [0, 1, 255, 256, 300, 600])
def test_go_proves_that_the_ledger_extends_an_older_checkpoint(program: Path, tmp_path: Path, old: int) -> None:
    leaves = leaves_of(600)
    publish(tmp_path / "new", leaves)
    publish(tmp_path / "old", leaves[:old])
    result = run(program, "-consistency", tmp_path / "old" / "checkpoint", VKEY, tmp_path / "new")
    assert (result.returncode, result.stderr) == (0, "")
    assert old == json.loads(result.stdout)["consistentWith"]


def test_go_refuses_a_ledger_that_does_not_extend_the_older_checkpoint(program: Path, tmp_path: Path) -> None:
    leaves = leaves_of(300)
    publish(tmp_path / "new", leaves)
    publish(tmp_path / "fork", [*leaves[:99], b"another history"])
    publish(tmp_path / "longer", [*leaves, b"one more"])
    for old in ("fork", "longer"):
        result = run(program, "-consistency", tmp_path / old / "checkpoint", VKEY, tmp_path / "new")
        assert (result.returncode, result.stdout) == (1, "")


def proof_of(directory: Path, index: int) -> bytes:
    """What `govrun ledger prove` gives for one entry of a published directory."""
    environ = {**os.environ, "PYTHONPATH": str(SOURCE.parents[2])}
    words = [sys.executable, "-m", "govrun", "ledger", "prove", str(index), "--ledger", str(directory)]
    return subprocess.run(words, env=environ, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("index", [0, 1, 16, 24, 25])
def test_go_checks_the_proof_of_one_entry_without_its_ledger(program: Path, tmp_path: Path, index: int) -> None:
    ledger = Path(__file__).resolve().parents[2] / "ledger"
    (tmp_path / "proof").write_bytes(proof_of(ledger, index))
    done = run(program, "-proof", tmp_path / "proof", (ledger / "log.vkey").read_text().strip())
    assert (0, "") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    (leaves,) = open_ledger(ledger).leaves(index, index + 1)
    assert {"index": index, "size": 26, "leafHash": base64.b64encode(merkle.leaf_hash(leaves[0])).decode()} == {
        name: found[name] for name in ("index", "size", "leafHash")
    }


def test_go_refuses_a_changed_proof_and_another_key(program: Path, tmp_path: Path) -> None:
    ledger = Path(__file__).resolve().parents[2] / "ledger"
    vkey = (ledger / "log.vkey").read_text().strip()
    data = proof_of(ledger, 7)
    file = tmp_path / "proof"
    for at in range(0, len(data), 97):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert (1, "") == ((done := run(program, "-proof", file, vkey)).returncode, done.stdout), at
    file.write_bytes(data)
    assert 0 == run(program, "-proof", file, vkey).returncode
    assert 1 == run(program, "-proof", file, VKEY).returncode


def test_go_refuses_another_key(program: Path, tmp_path: Path) -> None:
    publish(tmp_path, leaves_of(3))
    result = run(program, format_vkey(signer_from_seed(ORIGIN, b"i" * 32).verifier), tmp_path)
    assert (result.returncode, result.stdout) == (1, "")


@pytest.mark.parametrize(
    "path",
    [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ],
)
def test_go_refuses_one_changed_missing_or_added_byte(program: Path, tmp_path: Path, path: str) -> None:
    publish(tmp_path, leaves_of(600))
    file = tmp_path / path
    data = file.read_bytes()
    for at in (0, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        result = run(program, VKEY, tmp_path)
        assert (result.returncode, result.stdout) == (1, "")
    for other in (data[:-1], data + b"\0"):
        file.write_bytes(other)
        assert run(program, VKEY, tmp_path).returncode == 1
    file.unlink()
    assert run(program, VKEY, tmp_path).returncode == 1
    file.write_bytes(data)
    assert run(program, VKEY, tmp_path).returncode == 0
