"""Publish a ledger as static files that any web server can serve (C2SP tlog-tiles).

    checkpoint                   signed note: origin, size, root
    tile/<L>/<N>[.p/<W>]         tree hashes
    tile/entries/<N>[.p/<W>]     the entries
    log.vkey                     the log's public key, a convenience
    README.md                    what an auditor should know about the rest

Tiles are durable before the checkpoint that needs them, and every file is replaced whole, so a reader never sees a
checkpoint it cannot check. Publishing again writes only what is new. Everything is hashed again on its way out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger import lock
from govrun.ledger.checkpoint import Checkpoint, verify_checkpoint
from govrun.ledger.merkle import (
    Frontier,
    consistency_proof,
    leaf_hash,
    stored_hash_count,
    verify_consistency,
)
from govrun.ledger.place import sync_directory
from govrun.ledger.read import Reader
from govrun.ledger.tile import (
    TILE_WIDTH,
    Bundle,
    Tile,
    bundles_of,
    format_bundle,
    format_tile_path,
    tile_data,
    tiles_of,
)
from govrun.signing.keys import Verifier, format_vkey
from govrun.signing.note import MAX_NOTE_BYTES

# Called with entries done and entries to do.
Progress = Callable[[int, int], None]

_CHECKPOINT: Final = "checkpoint"
_OURS: Final = frozenset({"tile", "log.vkey", "README.md", "checkpoint"})
_TEMPORARY: Final = ".new"

_README: Final = """# The published ledger `{origin}`

These files are an append-only log of signed receipts in the C2SP tlog-tiles form. Nothing here has to be trusted: you
need the log's key and a checkpoint that you kept earlier, both from somewhere else.

| file | what it is | what it is trusted for |
|---|---|---|
| `checkpoint` | a signed note (C2SP tlog-checkpoint): origin, number of entries, root hash | only what its signature says, under a key you already have |
| `tile/<L>/<N>` | 256 hashes of the Merkle tree (RFC 6962), level L; `.p/<W>`: the first W of them, while there are no more | nothing: they must lead to the signed root |
| `tile/entries/<N>` | 256 entries, each a DSSE envelope behind its length in 2 bytes, big-endian | nothing: their hashes must stand in the tiles of level 0 |
| `log.vkey` | the log's public key as its publisher states it | nothing: compare it with the key you were given elsewhere |
| `README.md` | this text | nothing |

Only the publisher of the log should be able to write here. Whoever else can may at most make verification fail, or
show an older state: a log cut at any signed checkpoint still verifies. Keep the newest checkpoint you have seen, and
check that later ones extend it.

    govrun verify . --key <the vkey you were given> --checkpoint <the checkpoint you kept>
"""  # noqa: E501 - a table's rows are lines


@frozen
class Published:
    """What publishing did: the size that is published now, the size that was, and how many files were written."""

    size: int
    since: int
    written: int


def publish(reader: Reader, directory: Path, verifier: Verifier, progress: Progress | None = None) -> Published:
    """Publish the ledger under reader's head into a directory, made if there is none.

    verifier: the log's key, under which the head and what is published already must verify. progress is called with
    entries done and entries to do. Everything is durable when this returns.

    GovrunError: history-diverged if the directory holds another origin, or a checkpoint that the ledger does not
    extend; ledger-inconsistent or signature-untrusted if the ledger itself does not hold; could-not-check
    (`publish.files`) if the files cannot be written, (`publish.foreign`) if others are there.
    """
    note = reader.checkpoint() or b""
    head = verify_checkpoint(note, verifier.name, [verifier]).checkpoint
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not lock.try_lock(descriptor, fcntl.LOCK_EX):
                raise GovrunError(
                    ExitCode.COULD_NOT_CHECK,
                    "publish.locked",
                    "another process is publishing here",
                    fix="wait for it to end",
                )
            return _publish(reader, head, note, _Directory(directory), verifier, progress or (lambda *_: None))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "publish.files",
            "the published files cannot be read or written",
            found=os.strerror(error.errno or 0),
            expected="a directory with room that can be written",
            effect="what was published before is still whole",
        ) from error


def _publish(
    reader: Reader,
    head: Checkpoint,
    note: bytes,
    files: _Directory,
    verifier: Verifier,
    progress: Progress,
) -> Published:
    since = _published_size(reader, head, files, verifier)
    _write_new(reader, head, since, files, progress)
    files.write("log.vkey", (format_vkey(verifier) + "\n").encode())
    files.write("README.md", _README.format(origin=head.origin).encode())
    files.sync()
    # From here every tile that the checkpoint needs is durable.
    files.write(_CHECKPOINT, note)
    files.sync()
    _remove_outgrown(head.size, since, files)
    return Published(head.size, since, files.written)


def _published_size(reader: Reader, head: Checkpoint, files: _Directory, verifier: Verifier) -> int:
    """The size that is published already, once the ledger is seen to extend it."""
    present = files.read(_CHECKPOINT)
    if present is None:
        strangers = sorted(set(files.names()) - _OURS)
        if strangers:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "publish.foreign",
                "the directory holds files that are no published ledger",
                found=ascii(strangers[0]),
                expected="an empty directory, or this ledger published before",
                fix="name a directory of its own",
            )
        return 0
    try:
        published = verify_checkpoint(present, verifier.name, [verifier]).checkpoint
        verify_consistency(consistency_proof(published.size, head.size, reader.hashes), published.root, head.root)
    except GovrunError as error:
        raise GovrunError(
            ExitCode.HISTORY_DIVERGED,
            "publish.diverged",
            "the directory holds a checkpoint that this ledger does not extend",
            found=error.found or error.what,
            expected=error.expected or f"a checkpoint of {verifier.name} below size {head.size}",
            fix="publish to another directory, and find out which of the two histories is the true one",
        ) from error
    return published.size


def _write_new(reader: Reader, head: Checkpoint, since: int, files: _Directory, progress: Progress) -> None:
    for bundle, entries in checked_bundles(reader, head, since, progress):
        files.write(format_tile_path(bundle), format_bundle(entries))
    for tile in tiles_of(head.size, since):
        files.write(format_tile_path(tile), tile_data(tile, reader.hashes))


def checked_bundles(
    reader: Reader, head: Checkpoint, since: int, progress: Progress
) -> Iterator[tuple[Bundle, list[bytes]]]:
    """The bundles of the tree under head that one of since entries does not have, with their entries.

    Every hash is computed again on the way. GovrunError (ledger-inconsistent), at the end at the latest, if the stored
    hashes or the root are not what the entries give.
    """
    frontier = Frontier.at(since, reader.hashes)
    start = since - since % TILE_WIDTH
    leaves = _leaves(reader, start, head.size)
    for bundle in bundles_of(head.size, since):
        entries = [next(leaves) for _ in range(bundle.width)]
        _check_hashes(reader, frontier, entries[max(0, frontier.size - bundle.index * TILE_WIDTH) :])
        yield bundle, entries
        progress(frontier.size - since, head.size - since)
    if frontier.root() != head.root:
        raise _inconsistent("the entries lead to another root", frontier.root().hex(), head.root.hex())


def _leaves(reader: Reader, start: int, stop: int) -> Iterator[bytes]:
    for batch in reader.leaves(start, stop):
        yield from batch


def _check_hashes(reader: Reader, frontier: Frontier, entries: list[bytes]) -> None:
    """Every stored hash of the new entries is computed again before it is published."""
    first = frontier.size
    computed = [one for entry in entries for one in frontier.append(leaf_hash(entry))]
    stored = reader.hashes(range(stored_hash_count(first), stored_hash_count(frontier.size)))
    if list(stored) != computed:
        raise _inconsistent(
            f"entries {first} to {frontier.size - 1} do not have the stored hashes", "other hashes", "those of the tree"
        )


def _remove_outgrown(size: int, since: int, files: _Directory) -> None:
    """Take away the partial tiles whose full tile the published checkpoint now has.

    One that stays behind after a crash does no harm: it is a prefix of the full one.
    """
    level = 0
    while size:
        for index in {since // TILE_WIDTH, max(0, size // TILE_WIDTH - 1)}:
            if (index + 1) * TILE_WIDTH <= size:
                files.remove_tree(format_tile_path(Tile(level, index, TILE_WIDTH)) + ".p")
                if not level:
                    files.remove_tree(format_tile_path(Bundle(index, TILE_WIDTH)) + ".p")
        level += 1
        size //= TILE_WIDTH
        since //= TILE_WIDTH


class _Directory:
    """The published directory: files replaced whole, and made durable by `sync`."""

    def __init__(self, path: Path) -> None:
        self.written = 0
        self._path = path
        self._touched: set[Path] = set()

    def names(self) -> list[str]:
        return os.listdir(self._path)

    def read(self, name: str) -> bytes | None:
        try:
            with open(self._path / name, "rb") as file:
                return file.read(MAX_NOTE_BYTES + 1)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        path = self._path / name
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
        self._make(path.parent)
        fresh = path.with_name(path.name + _TEMPORARY)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(fresh, path)
        self._touched.add(path.parent)
        self.written += 1

    def _make(self, directory: Path) -> None:
        if not directory.is_dir():
            self._make(directory.parent)
            directory.mkdir(exist_ok=True)
            self._touched.add(directory.parent)

    def sync(self) -> None:
        """Make every name given since the last time durable."""
        for directory in sorted(self._touched):
            sync_directory(directory)
        self._touched.clear()

    def remove_tree(self, name: str) -> None:
        if (self._path / name).is_dir():
            shutil.rmtree(self._path / name)


def _inconsistent(what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "publish.tree",
        what,
        found=found,
        expected=expected,
        fix="run `govrun verify` on the ledger",
        effect="nothing was written under this checkpoint",
    )
