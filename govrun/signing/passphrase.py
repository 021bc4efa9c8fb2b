"""Where the passphrase of an encrypted key file comes from: a file, a descriptor, or a person.

Never from the command line, and never from the environment itself: both can be read by others. `GOVRUN_PASSPHRASE_FILE`
names a file, `GOVRUN_PASSPHRASE_FD` a descriptor that was inherited; the root key may have its own,
`GOVRUN_ROOT_PASSPHRASE_FILE` and `GOVRUN_ROOT_PASSPHRASE_FD`. Only the first line counts, without its line break.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from govrun.errors import ExitCode, GovrunError

MAX_BYTES: Final = 1024

# Asks a person, by the words given; None when nobody can be asked.
Prompt = Callable[[str], bytes | None]


class Passphrases:
    """The passphrases of one command, each read or asked for once; nothing shows them."""

    def __init__(self, environ: Mapping[str, str], prompt: Prompt | None = None) -> None:
        self._environ = environ
        self._prompt = prompt
        self._known: dict[str, bytes] = {}

    def get(self, role: str, words: str) -> bytes:
        """The passphrase for the key of a role (`root`, `log`, `receipt`); words tell a person what it is for.

        GovrunError (ledger-unavailable): nobody gave one (`passphrase.none`), or what was named is unfit.
        """
        source = self._source(role)
        if source not in self._known:
            self._known[source] = self._read(source, words)
        return self._known[source]

    def _source(self, role: str) -> str:
        """The variable that tells, empty for a person."""
        names = ["GOVRUN_PASSPHRASE_FD", "GOVRUN_PASSPHRASE_FILE"]
        if role == "root":
            names = ["GOVRUN_ROOT_PASSPHRASE_FD", "GOVRUN_ROOT_PASSPHRASE_FILE", *names]
        # A person may have given the root key a passphrase of its own.
        return next((name for name in names if name in self._environ), "root" if role == "root" else "")

    def _read(self, source: str, words: str) -> bytes:
        if source.endswith("_FD"):
            return _of_descriptor(self._environ[source], source)
        if source.endswith("_FILE"):
            return _of_file(Path(self._environ[source]), source)
        given = None if self._prompt is None else self._prompt(words)
        if given is None:
            raise _refused(
                "passphrase.none",
                "a passphrase is needed and nobody can be asked for it",
                "no terminal",
                "GOVRUN_PASSPHRASE_FILE or GOVRUN_PASSPHRASE_FD",
            )
        return _checked(given, "the passphrase")


def _of_file(path: Path, source: str) -> bytes:
    if not path.is_absolute():
        raise _refused("passphrase.path", f"{source} is not an explicit path", ascii(str(path)), "an absolute path")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(source, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused("passphrase.regular", f"{source} names no regular file", None, "a regular file")
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o077:
            raise _refused(
                "passphrase.permissions",
                f"the file that {source} names is open to others",
                f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
                "a file of yours with mode 0600",
            )
        return _checked(os.read(descriptor, MAX_BYTES + 1), source)
    except OSError as error:
        raise _unreadable(source, error) from error
    finally:
        os.close(descriptor)


def _of_descriptor(text: str, source: str) -> bytes:
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise _refused("passphrase.descriptor", f"{source} is not the number of a descriptor", ascii(text[:16]), "3")
    data = b""
    try:
        while len(data) <= MAX_BYTES and b"\n" not in data and (more := os.read(int(text), MAX_BYTES + 1 - len(data))):
            data += more
        os.close(int(text))
    except OSError as error:
        raise _unreadable(source, error) from error
    return _checked(data, source)


def _checked(data: bytes, source: str) -> bytes:
    line = data.partition(b"\n")[0].removesuffix(b"\r")
    if not line:
        raise _refused("passphrase.empty", f"{source} gives an empty passphrase", "0 bytes", "some bytes")
    if len(line) > MAX_BYTES:
        raise _refused(
            "passphrase.size", f"{source} gives too much", f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES} bytes"
        )
    return line


def _unreadable(source: str, error: OSError) -> GovrunError:
    return _refused(
        "passphrase.readable",
        f"what {source} names cannot be read",
        os.strerror(error.errno or 0),
        "a file or a descriptor that this user can read",
    )


def _refused(rule: str, what: str, found: str | None, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=found, expected=expected)
