"""Which receipt keys a home may sign with, remembered beside the keys, and locked for as long as one is in use.

One file for each key, `keys/use/<keyid>`, says `counts`, and how many entries were looked at for that, or `revoked`.
Whoever signs holds a shared lock on it; whoever revokes the key takes the lock alone and writes `revoked` first. So no
process that opened a key before its revocation signs with it afterwards, which would break the ledger for good.

The file is no evidence. What the ledger says decides: it is asked where the file is missing, and where there is a key
entry among those that were appended since, by whatever machine. It stops accidents, and no thief; a process of another
machine that has opened the key already does not see that it was revoked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lock
from govrun.ledger.store import Reads
from govrun.signing.keys import Verifier
from govrun.world import World

REVOKED: Final = b"revoked\n"
KEY_KINDS: Final = ("keyAdded", "keyRevoked")

_DIRECTORY: Final = "use"
_MAX_BYTES: Final = 32
_COUNTS = re.compile(rb"counts ([0-9]{16})\n")

# More entries than this are looked at quicker by reading the ledger in batches, which is what `counts` does.
_FEW: Final = 4096


@contextmanager
def using(keys: Path, verifier: Verifier, store: Reads, counts: Callable[[], bool]) -> Iterator[None]:
    """While this lasts nobody revokes the key; keys is the home's directory of keys.

    counts reads the whole ledger, and is asked where nothing is remembered or a key entry was appended since.
    GovrunError (ledger-unavailable): the key is revoked (`key.revoked`), is being revoked (`key.busy`), or the ledger
    does not count on it (`ledger.receiptKey`).
    """
    descriptor = _open(keys, verifier)
    try:
        try:
            _check(descriptor, verifier, store, counts)
        except OSError as error:
            raise _unusable(error) from error
        yield
    finally:
        os.close(descriptor)


def _check(descriptor: int, verifier: Verifier, store: Reads, counts: Callable[[], bool]) -> None:
    if not lock.try_lock(descriptor, fcntl.LOCK_SH):
        raise _refused("key.busy", "the receipt key is being changed", verifier, "a key that nobody is changing")
    said = os.pread(descriptor, _MAX_BYTES, 0)
    if said == REVOKED:
        raise _refused("key.revoked", "the receipt key was revoked", verifier, "a key that counts")
    found = _COUNTS.fullmatch(said)
    size = store.size()
    if (found is None or _may_have_changed(store, int(found[1]), size)) and not counts():
        raise _refused(
            "ledger.receiptKey", "the ledger does not count on this receipt key", verifier, "a key that counts"
        )
    # Several may find this out at once; each writes what is true, in as many bytes. Nothing depends on its being kept.
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, _counting(size), 0)


def _may_have_changed(store: Reads, checked: int, size: int) -> bool:
    """Whether there may be a key entry among those from checked up to size."""
    if not size - _FEW <= checked <= size:
        return True
    rows = (store.columns(index) for index in range(checked, size))
    return any(row is None or row.kind in KEY_KINDS for row in rows)


def _counting(size: int) -> bytes:
    return b"counts %016d\n" % size


@contextmanager
def ending(keys: Path, verifier: Verifier, world: World, wait_ms: int) -> Iterator[None]:
    """Revoke a key inside: nobody uses it meanwhile, and nobody does afterwards unless this raises.

    GovrunError (ledger-unavailable, `key.busy`): others went on using it until the deadline.
    """
    descriptor = _open(keys, verifier)
    try:
        if not lock.lock_within(descriptor, world, wait_ms):
            raise _refused(
                "key.busy",
                "processes go on signing with the key that is to be revoked",
                verifier,
                f"that they end within {wait_ms} ms",
                "wait until what runs has ended, or end it; then revoke the key again",
            )
        _write(descriptor, REVOKED)
        try:
            yield
        except BaseException:
            # Whether the entry was written may be unknown, so nothing is said: whoever asks is sent to the ledger.
            _write(descriptor, b"")
            raise
    finally:
        os.close(descriptor)


def remember(keys: Path, verifier: Verifier, size: int) -> None:
    """Say that a key counts after so many entries, once the ledger says so durably."""
    descriptor = _open(keys, verifier)
    try:
        _write(descriptor, _counting(size))
    finally:
        os.close(descriptor)


def _open(keys: Path, verifier: Verifier) -> int:
    path = keys / _DIRECTORY / verifier.keyid
    try:
        try:
            return lock.open_lock_file(path)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return lock.open_lock_file(path)
    except OSError as error:
        raise _unusable(error) from error


def _write(descriptor: int, said: bytes) -> None:
    try:
        os.pwrite(descriptor, said, 0)
        os.ftruncate(descriptor, len(said))
        os.fsync(descriptor)
    except OSError as error:
        raise _unusable(error) from error


def _unusable(error: OSError) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "key.use",
        "what is known of a key cannot be looked up or written down beside it",
        found=error.strerror,
        expected="a directory keys/use that its owner can write, and room on the disk",
        fix="make it a directory of your own with mode 0700",
    )


def _refused(rule: str, what: str, verifier: Verifier, expected: str, fix: str | None = None) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        rule,
        what,
        found=f"{verifier.name}+{verifier.key_id.hex()}",
        expected=expected,
        fix=fix or "`govrun keys list` shows which keys count; `govrun keys rotate receipt` makes a new one",
    )
