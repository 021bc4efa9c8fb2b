"""`govrun ledger prove`: one entry with its way to the newest checkpoint, in a file that needs no ledger."""

from __future__ import annotations

import os

import click

from govrun.cli.one_ledger import Source, leaf_at, ledger_options, newest_checkpoint, reading
from govrun.cli.output import note, show_bytes
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.read import Reader


@click.command("prove")
@click.argument("index", type=click.IntRange(0))
@ledger_options
@click.option("--out", metavar="FILE", help="A new file for the proof (default: stdout).")
def prove(index: int, source: Source, out: str | None) -> None:
    """Prove that one entry is in the log: a C2SP tlog-proof under the newest checkpoint, with the entry's bytes.

    `govrun verify FILE` checks it without the ledger.
    """
    with reading(source) as reader:
        proof = _proof(reader, index)
    if out is None:
        show_bytes(proof)
        return
    _write_new(out, proof)
    note(f"proof of entry {index}: {len(proof)} bytes in {out}")


def _proof(reader: Reader, index: int) -> bytes:
    from govrun.ledger.checkpoint import parse_checkpoint
    from govrun.ledger.merkle import inclusion_proof, leaf_hash, verify_inclusion
    from govrun.ledger.proof import LogProof, format_proof
    from govrun.signing.note import parse_note

    checkpoint = newest_checkpoint(reader)
    leaf = leaf_at(reader, index)
    head = parse_checkpoint(parse_note(checkpoint).text)
    path = inclusion_proof(index, head.size, reader.hashes)
    # A ledger whose hashes do not lead to its own checkpoint proves nothing, and the next to notice is not the holder.
    verify_inclusion(path, leaf_hash(leaf), head.root)
    return format_proof(LogProof(leaf, index, path.hashes, checkpoint))


def _write_new(file: str, data: bytes) -> None:
    try:
        with open(file, "xb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
    except FileExistsError as error:
        raise GovrunError(
            ExitCode.USAGE, "prove.exists", "the file is there already", found=file, expected="the name of a new file"
        ) from error
    except OSError as error:
        raise GovrunError(
            ExitCode.USAGE,
            "prove.out",
            "the proof cannot be written",
            found=error.strerror,
            expected="a file in a directory",
        ) from error
