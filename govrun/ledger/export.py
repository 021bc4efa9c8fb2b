"""Export a ledger for an auditor: one zip of the published form, the policies that it names, and the schemas.

    README.md                  what an auditor should know about the rest
    checkpoint                 signed note: origin, size, root
    schemas/<name>.json        the form of receipts, policies and reports
    tile/entries/<N>[.p/<W>]   the entries
    tile/<L>/<N>[.p/<W>]       tree hashes: every inclusion and every consistency proof can be made from them
    policies/<sha256>.toml     each policy that the entries name and whose bytes were at hand

No key and no salt is in it: whom to trust is told elsewhere, and nothing can be opened with what stands here. Equal
head, policies and schemas give equal bytes. Everything is hashed again on its way out.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from govrun import schemas
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.archive import MAX_MEMBERS, write_archive
from govrun.ledger.checkpoint import Checkpoint, verify_checkpoint
from govrun.ledger.place import sync_directory
from govrun.ledger.publish import Progress, checked_bundles
from govrun.ledger.read import Reader
from govrun.ledger.tile import bundles_of, format_bundle, format_tile_path, tile_data, tiles_of
from govrun.signing.dsse import parse_envelope
from govrun.signing.keys import Verifier
from govrun.world import World

# Canonical JSON has this nowhere but where a predicate names its policy.
_NAMED_POLICY: Final = re.compile(rb'"policy":\{"sha256":"([0-9a-f]{64})"\}')

_README: Final = """# An export of the ledger `{origin}`

{size} entries of an append-only log of signed receipts. Nothing here has to be trusted: you need the log's key, or the
operator's trust file, and a checkpoint that you kept earlier, all from somewhere else.

| file | what it is | what it is trusted for |
|---|---|---|
| `checkpoint` | a signed note (C2SP tlog-checkpoint): origin, number of entries, root hash | only what its signature says, under a key you already have |
| `tile/entries/<N>` | 256 entries, each a DSSE envelope behind its length in 2 bytes, big-endian; `.p/<W>`: the last W | nothing: their hashes must stand in the tiles of level 0 |
| `tile/<L>/<N>` | 256 hashes of the Merkle tree (RFC 6962), level L | nothing: they must lead to the signed root |
| `policies/<sha256>.toml` | a policy under which something ran | nothing: its digest stands in the receipts |
| `schemas/<name>.json` | the form of each document (JSON Schema 2020-12) | nothing: a verifier brings its own |
| `README.md` | this text | nothing |

    govrun verify FILE.zip --key <the vkey you were given> --checkpoint <the checkpoint you kept>
    govrun audit FILE.zip --key <the vkey you were given> --policy <your policy>

Unpacked with any unzip program this is a published ledger in the C2SP tlog-tiles form, which other tools read too.
Neither the keys of the log nor the salts of its commitments are in it.
"""  # noqa: E501 - a table's rows are lines


@frozen
class Exported:
    """What an export holds: entries, members, bytes, and the digests of policies that were named but not at hand."""

    size: int
    members: int
    byte_count: int
    missing: tuple[str, ...]


def export(
    reader: Reader,
    file: Path,
    verifier: Verifier,
    policy_of: Callable[[str], bytes | None],
    world: World,
    progress: Progress | None = None,
) -> Exported:
    """Write the ledger under reader's head into a new file, durable when this returns; never over another file.

    verifier: the log's key, under which the head must verify. policy_of: the bytes of the policy of a
    digest (sha256 in hex), None when they are not at hand.

    GovrunError: ledger-inconsistent or signature-untrusted if the ledger itself does not hold; could-not-check if the
    file is there already (`export.exists`) or cannot be written (`export.file`).
    """
    note = reader.checkpoint() or b""
    head = verify_checkpoint(note, verifier.name, [verifier]).checkpoint
    if os.path.lexists(file):
        raise _exists(file)
    making = file.with_name(f"{file.name}.{world.new_id()}")
    contents = _Contents(reader, head, note, policy_of, progress or (lambda *_: None))
    try:
        with open(making, "xb") as target:
            members = write_archive(target, contents.members())
            target.flush()
            os.fsync(target.fileno())
            byte_count = target.tell()
        _name(making, file)
        sync_directory(file.absolute().parent)
    except OSError as error:
        making.unlink(missing_ok=True)
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "export.file",
            "the export cannot be written",
            found=os.strerror(error.errno or 0),
            expected="a directory with room that can be written",
            effect="nothing was left behind",
        ) from error
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    return Exported(head.size, members, byte_count, tuple(sorted(contents.missing)))


class _Contents:
    """The members of an export, in their order; while the entries pass, the policies that they name are noted."""

    def __init__(
        self,
        reader: Reader,
        head: Checkpoint,
        note: bytes,
        policy_of: Callable[[str], bytes | None],
        progress: Progress,
    ) -> None:
        self.missing: set[str] = set()
        self._reader, self._head, self._note = reader, head, note
        self._policy_of, self._progress = policy_of, progress

    def members(self) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of each."""
        _check_count(self._head.size)
        yield "README.md", _README.format(origin=self._head.origin, size=self._head.size).encode()
        yield "checkpoint", self._note
        for name in sorted(schemas.NAMES):
            yield f"schemas/{name}.json", schemas.schema_bytes(name)
        named: set[str] = set()
        for bundle, entries in checked_bundles(self._reader, self._head, 0, self._progress):
            for leaf in entries:
                found = _NAMED_POLICY.findall(parse_envelope(leaf).payload)
                named.update(digest.decode() for digest in found)
            yield format_tile_path(bundle), format_bundle(entries)
        for tile in tiles_of(self._head.size):
            yield format_tile_path(tile), tile_data(tile, self._reader.hashes)
        for digest in sorted(named):
            data = self._policy_of(digest)
            if data is None:
                self.missing.add(digest)
            else:
                yield f"policies/{digest}.toml", data


def _check_count(size: int) -> None:
    most = sum(1 for _ in bundles_of(size)) + sum(1 for _ in tiles_of(size)) if size < MAX_MEMBERS << 8 else MAX_MEMBERS
    if most >= MAX_MEMBERS:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "export.size",
            "the ledger is too large for one file",
            found=f"{size} entries",
            expected=f"fewer than {MAX_MEMBERS} tiles and bundles",
            fix="publish it, and let the auditor read the published directory or its URL",
        )


def _name(making: Path, file: Path) -> None:
    """Give a finished file its name, never in the place of another."""
    try:
        os.link(making, file)
    except FileExistsError as error:
        making.unlink()
        raise _exists(file) from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        # A file system without links, as on many portable disks.
        if os.path.lexists(file):
            making.unlink()
            raise _exists(file) from error
        os.rename(making, file)
        return
    making.unlink()


def _exists(file: Path) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "export.exists",
        "the file is there already",
        found=file.name,
        expected="the name of a new file",
        effect="nothing was written",
    )
