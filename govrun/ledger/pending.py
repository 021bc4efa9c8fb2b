"""Outcomes that could not be appended, kept as files until they can be.

    pending/0f2c...9a.json    {"kind":"outcome","outputs":[...],"predicate":{...},"salt":"..."}

One canonical JSON file for each invocation, mode 0600, durable. Which intent it answers stands in its predicate. A
file here is no evidence: it is not signed, and whoever can write it can change it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import Final

from govrun import canonical
from govrun.digest import SALT_BYTES
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.lease import Lease
from govrun.ledger.place import sync_directory
from govrun.receipt import Draft

PENDING_DIRECTORY: Final = "pending"

# What is not a regular file that its owner can read is none that `keep` has written.
NOT_OURS: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM})

_NAME = re.compile(r"([0-9a-f]{32})\.json")


@frozen
class Pending:
    """An outcome that waits to be appended, and its salt (32 bytes, or None)."""

    draft: Draft
    salt: bytes | None


def keep(directory: Path, lease: Lease, draft: Draft, salt: bytes | None = None) -> Path:
    """Write an outcome into the room its lease reserved, durable when this returns; where it now is.

    GovrunError (append-failed, `pending.lost`) if even that fails: the outcome is then nowhere.
    """
    target = directory / f"{lease.invocation_id}.json"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lease.keep(format_pending(Pending(draft, salt)), target)
        # The directory may be new, and a power loss would take it away with all that is in it.
        sync_directory(directory.parent)
    except OSError as error:
        raise GovrunError(
            ExitCode.APPEND_FAILED,
            "pending.lost",
            "the outcome could neither be appended nor kept",
            found=os.strerror(error.errno or 0),
            expected="a disk that takes what was reserved on it",
            effect="the command ran; its intent stays open and will be reported as orphaned",
        ) from error
    return target


def format_pending(pending: Pending) -> bytes:
    """The bytes of a pending file; inverse of `parse_pending`."""
    draft = pending.draft
    return canonical.encode(
        {
            "kind": draft.kind,
            "outputs": [list(output) for output in draft.outputs],
            "predicate": draft.predicate,
            "salt": None if pending.salt is None else pending.salt.hex(),
        }
    )


def parse_pending(data: bytes) -> Pending:
    """Read a pending file; GovrunError (ledger-inconsistent) for anything that `format_pending` did not write."""
    value = canonical.decode(data, "pending outcome")
    try:
        if sorted(value) != ["kind", "outputs", "predicate", "salt"] or value["kind"] != "outcome":
            raise ValueError
        outputs = tuple((str(name), str(digest)) for name, digest in value["outputs"])
        salt = None if value["salt"] is None else bytes.fromhex(value["salt"])
        of = value["predicate"]["intent"]
        if type(of["index"]) is not int or not isinstance(of["leafHash"], str) or len(salt or _ANY) != SALT_BYTES:
            raise ValueError
    except (ValueError, TypeError, KeyError) as error:
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "pending.form",
            "this is not a pending outcome",
            expected="an outcome's kind, outputs, predicate and salt",
        ) from error
    return Pending(Draft("outcome", value["predicate"], outputs), salt)


_ANY: Final = bytes(SALT_BYTES)


def list_pending(directory: Path) -> tuple[str, ...]:
    """The invocation ids that have a pending outcome, sorted; none if there is no directory. OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ()
    return tuple(sorted(match[1] for name in names if (match := _NAME.fullmatch(name))))


def read_pending(directory: Path, invocation_id: str) -> Pending | None:
    """Read one pending outcome; None if there is none (any more).

    GovrunError: ledger-inconsistent if it is no file of ours, is too large, or is no pending outcome, and so never can
    be appended; ledger-unavailable (`pending.io`) if the system does not give it now.
    """
    path = directory / f"{invocation_id}.json"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(canonical.MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "pending.io",
                "the disk or the system does not give a pending outcome",
                found=os.strerror(error.errno or 0),
                expected="what was made durable",
                fix=f"look at the disk; without {path.name} in pending/ its intent gets a gap",
            ) from error
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "pending.unreadable",
            "a pending outcome cannot be read",
            found=os.strerror(error.errno or 0),
            expected="a regular file of our own",
        ) from error
    return parse_pending(data)


def remove(directory: Path, invocation_id: str) -> None:
    """Take a pending outcome away that is in the ledger now; harmless when another process did. OSError."""
    (directory / f"{invocation_id}.json").unlink(missing_ok=True)


def set_aside(directory: Path, invocation_id: str) -> None:
    """Rename a pending file that cannot be used, so that it is kept and not tried again.

    Harmless when another process did. OSError.
    """
    move_aside(directory / f"{invocation_id}.json")


def move_aside(path: Path) -> None:
    """Give a file that cannot be used the suffix `.unreadable`, with a number if there is such a file. OSError."""
    target = path.with_suffix(".unreadable")
    number = 1
    while os.path.lexists(target):
        number += 1
        target = path.with_suffix(f".unreadable{number}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, target)
