"""Which receipt keys a home may sign with, remembered beside the keys, and locked for as long as one is in use.

One file for each key, `keys/use/<keyid>`, says `counts` or `revoked`. Whoever signs holds a shared lock on it; whoever
revokes the key takes the lock alone and writes `revoked` first. So no process that opened a key before its revocation
signs with it afterwards, which would break the ledger for good. The file is no evidence: what the ledger says decides,
and is looked up again where the file is missing. It stops accidents on one machine, no thief and no other machine.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import lock
from govrun.signing.keys import Verifier
from govrun.world import World

COUNTS: Final = b"counts\n"
REVOKED: Final = b"revoked\n"

_DIRECTORY: Final = "use"
_MAX_BYTES: Final = 16


@contextmanager
def using(keys: Path, verifier: Verifier, counts: Callable[[], bool]) -> Iterator[None]:
    """While this lasts nobody revokes the key; keys is the home's directory of keys.

    counts is asked where nothing is remembered. GovrunError (ledger-unavailable): the key is revoked (`key.revoked`),
    is being revoked (`key.busy`), or the ledger does not name it (`ledger.receiptKey`).
    """
    descriptor = _open(keys, verifier)
    try:
        if not lock.try_lock(descriptor, fcntl.LOCK_SH):
            raise _refused("key.busy", "the receipt key is being changed", verifier, "a key that nobody is changing")
        said = os.pread(descriptor, _MAX_BYTES, 0)
        if said == REVOKED:
            raise _refused("key.revoked", "the receipt key was revoked", verifier, "a key that counts")
        if said != COUNTS:
            if not counts():
                raise _refused(
                    "ledger.receiptKey", "the ledger does not count on this receipt key", verifier, "a key that counts"
                )
            # Several may find this out at once; they write the same.
            os.pwrite(descriptor, COUNTS, 0)
        yield
    finally:
        os.close(descriptor)


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


def remember(keys: Path, verifier: Verifier) -> None:
    """Say that a key counts, once the ledger says so durably."""
    descriptor = _open(keys, verifier)
    try:
        _write(descriptor, COUNTS)
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
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "key.use",
            "the home's directory of keys cannot be used",
            found=error.strerror,
            expected="a directory that its owner can write",
            fix="make it a directory of your own with mode 0700",
        ) from error


def _write(descriptor: int, said: bytes) -> None:
    try:
        os.pwrite(descriptor, said, 0)
        os.ftruncate(descriptor, len(said))
        os.fsync(descriptor)
    except OSError as error:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "key.use",
            "what is known of a key cannot be written down",
            found=error.strerror,
            expected="room on the disk",
        ) from error


def _refused(rule: str, what: str, verifier: Verifier, expected: str, fix: str | None = None) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        rule,
        what,
        found=f"{verifier.name}+{verifier.key_id.hex()}",
        expected=expected,
        fix=fix or "`govrun keys list` shows which keys count; `govrun keys rotate receipt` makes a new one",
    )
