"""The rollback guard: the greatest head of a log that this user has seen, kept outside the ledger's directory.

A restored backup or an old copy is intact in itself; only somebody who remembers a later head can tell. The guard
remembers one signed checkpoint for each origin. It is written after a commit, so it may lag and never leads. It stops
accidents: whoever can write here too can remove it, and only checkpoints kept elsewhere stop that.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lock
from govrun.ledger.checkpoint import Checkpoint, VerifiedCheckpoint, verify_checkpoint
from govrun.ledger.merkle import HashReader, consistency_proof, verify_consistency
from govrun.signing.keys import Verifier
from govrun.world import World

WAIT_MS: Final = 2_000
# Twice what a checkpoint under the longest origin takes, and one block of most file systems.
SLOT_BYTES: Final = 4096

# In the place of a head: the log has ended, and behind this stands the origin that continues it.
_ENDED: Final = b"ended, continued by "


def heads_directory(environ: Mapping[str, str]) -> Path:
    """Where heads are kept: `govrun/heads` in XDG_STATE_HOME, which counts only if absolute, else in ~/.local/state.

    GovrunError (ledger-unavailable) when the environment names neither.
    """
    state = environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "guard.place",
                "there is no place to remember the ledger's head",
                found="neither XDG_STATE_HOME nor HOME is an absolute path",
                expected="one of them",
                fix="set XDG_STATE_HOME to a directory outside the ledger's",
            )
        state = home + "/.local/state"
    return Path(state) / "govrun" / "heads"


def notes_of(directory: Path, origin: str) -> tuple[bytes, ...]:
    """The notes remembered for an origin as they were found, unverified, at most two; none if nothing is.

    GovrunError (ledger-unavailable): they cannot be read.
    """
    data = _read(_path(directory, origin))
    return tuple(note for note in _slots(data) if note and not note.startswith(_ENDED))


class Guard:
    """What is remembered of one log, the one that verifier's key signs; its name is the origin.

    One file of two slots, each a note padded with zeros. A new head goes into the slot that does not hold the greatest,
    so what a power failure tears is never the only one. Nothing is synced: a head lost with the power makes the guard
    lag, which it may, and the entries themselves were durable before. (Replacing a file instead costs a hundred times
    as much, since the file system then writes it out at once.)
    """

    def __init__(self, directory: Path, verifier: Verifier, world: World) -> None:
        self.path = _path(directory, verifier.name)
        self._verifier = verifier
        self._world = world
        self._known: dict[bytes, Checkpoint] = {}
        self._read: tuple[bytes, int, Checkpoint | None] | None = None

    def seen(self) -> Checkpoint | None:
        """The greatest head seen, None if none was.

        GovrunError (ledger-rolled-back) if only heads are remembered that this log's key did not sign.
        """
        return self._greatest(_read(self.path))[1]

    def check(self, head: Checkpoint, reader: HashReader) -> None:
        """Return if the ledger under head extends what was seen; else GovrunError (ledger-rolled-back).

        reader gives the ledger's stored hashes; a consistency proof is made of them and verified.
        """
        seen = self.seen()
        if seen is None:
            return
        if head.size < seen.size:
            raise self._rolled_back(f"tree size {head.size}", f"at least {seen.size}")
        try:
            verify_consistency(consistency_proof(seen.size, head.size, reader), seen.root, head.root)
        except GovrunError as error:
            raise self._rolled_back(
                f"root {head.root.hex()[:16]}... at size {head.size}",
                f"an extension of {seen.root.hex()[:16]}... at size {seen.size}",
            ) from error

    def merge(self, head: VerifiedCheckpoint) -> None:
        """Remember the head that a commit has just made, unless a greater one is remembered already.

        GovrunError (ledger-unavailable): it cannot be written; the guard then lags, and the ledger is as good as
        before.
        """
        try:
            descriptor = self._open()
            try:
                if not lock.lock_within(descriptor, self._world, WAIT_MS):
                    raise self._locked()
                self._merge_locked(descriptor, head.note, head.checkpoint)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unusable(self.path, "the ledger's head cannot be remembered", error) from error

    def end(self, last: VerifiedCheckpoint, successor: str) -> None:
        """Let no writer of this log append any more, because another origin continues it; durable when this returns.

        last: the last checkpoint that survived, which is remembered in the place of any later one: what stood behind it
        is known to be lost. GovrunError (ledger-unavailable, ledger-rolled-back) if it cannot be written, or the log
        has ended before.
        """
        try:
            descriptor = self._open()
            try:
                if not lock.lock_within(descriptor, self._world, WAIT_MS):
                    raise self._locked()
                self._greatest(os.pread(descriptor, 2 * SLOT_BYTES, 0))
                data = last.note.ljust(SLOT_BYTES, b"\0") + (_ENDED + successor.encode()).ljust(SLOT_BYTES, b"\0")
                if os.pwrite(descriptor, data, 0) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unusable(self.path, "the end of the ledger cannot be remembered", error) from error

    def _open(self) -> int:
        try:
            return lock.open_lock_file(self.path)
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return lock.open_lock_file(self.path)

    def _merge_locked(self, descriptor: int, note: bytes, head: Checkpoint) -> None:
        data = os.pread(descriptor, 2 * SLOT_BYTES, 0)
        slot, seen = self._greatest(data)
        if seen is not None and seen.size >= head.size:
            return
        padded = note.ljust(SLOT_BYTES, b"\0")
        if os.pwrite(descriptor, padded, (1 - slot) * SLOT_BYTES) != SLOT_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._known[note] = head
        # What the next check will read, unless another writer comes between.
        kept = data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES].ljust(SLOT_BYTES, b"\0")
        self._read = (kept + padded if slot == 0 else padded + kept), 1 - slot, head

    def _greatest(self, data: bytes) -> tuple[int, Checkpoint | None]:
        """The slot and the head that it holds; the second slot and None if nothing was ever written."""
        # Equal bytes say the same; taking eight kilobytes of them apart anew would cost 40 us an append.
        if self._read is None or self._read[0] != data:
            self._read = (data, *self._greatest_of(data))
        return self._read[1:]

    def _greatest_of(self, data: bytes) -> tuple[int, Checkpoint | None]:
        notes = _slots(data)
        for note in notes:
            if note.startswith(_ENDED):
                raise self._ended(note.removeprefix(_ENDED).decode("ascii", "backslashreplace"))
        heads = [self._verified(note) for note in notes]
        self._known = {note: head for note, head in zip(notes, heads, strict=True) if head is not None}
        if not any(notes):
            # Some file systems also leave zeros when the power fails: that says nothing about the log.
            return 1, None
        if not self._known:
            raise GovrunError(
                ExitCode.LEDGER_ROLLED_BACK,
                "guard.foreign",
                "the head remembered for this origin was not signed by this ledger's log key",
                found="other notes, or none",
                expected=f"a checkpoint by {self._verifier.name}+{self._verifier.key_id.hex()}",
                fix=f"use the ledger that belongs to the origin; if it is gone for good, remove {self.path}",
            )
        sizes = [-1 if head is None else head.size for head in heads]
        slot = sizes.index(max(sizes))
        return slot, heads[slot]

    def _verified(self, note: bytes) -> Checkpoint | None:
        """The head in a slot, None if the slot is empty, torn, or written by somebody else."""
        # Equal bytes under the same key verify the same way; one verification costs more than the rest of a check.
        if note in self._known or not note:
            return self._known.get(note)
        try:
            return verify_checkpoint(note, self._verifier.name, [self._verifier]).checkpoint
        except GovrunError:
            return None

    def _ended(self, successor: str) -> GovrunError:
        return GovrunError(
            ExitCode.LEDGER_ROLLED_BACK,
            "ledger.continued",
            "this ledger has ended, and another one continues it",
            found=self._verifier.name,
            expected=successor,
            fix=f"use the home of {successor}; this ledger can be read and verified as it is",
        )

    def _locked(self) -> GovrunError:
        return GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "guard.locked",
            "another process keeps the remembered head locked",
            found=f"locked for {WAIT_MS} ms",
            expected="a lock that is released within the deadline",
        )

    def _rolled_back(self, found: str, expected: str) -> GovrunError:
        return GovrunError(
            ExitCode.LEDGER_ROLLED_BACK,
            "ledger.rolledBack",
            "the ledger is not an extension of the one seen before",
            found=found,
            expected=expected,
            fix=(
                "put the newest ledger back; if it is gone, keep this one as it is, put its .govrun aside, and begin a"
                " new ledger that continues it: `govrun init --continues CHECKPOINT`"
            ),
        )


def _path(directory: Path, origin: str) -> Path:
    return directory / hashlib.sha256(origin.encode()).hexdigest()


def _read(path: Path) -> bytes:
    """What is in a guard's file, nothing if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, 2 * SLOT_BYTES, 0)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _unusable(path, "the remembered head cannot be read", error) from error


def _slots(data: bytes) -> list[bytes]:
    return [data[:SLOT_BYTES].rstrip(b"\0"), data[SLOT_BYTES:].rstrip(b"\0")]


def _unusable(path: Path, what: str, error: OSError) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "guard.unusable",
        what,
        found=os.strerror(error.errno or 0),
        expected=f"a file {path.name} that its owner can read and write",
        fix=f"make {path.parent} a directory of your own with mode 0700",
    )
