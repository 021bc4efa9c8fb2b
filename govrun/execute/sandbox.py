"""A pid namespace around one command: how bubblewrap is found, asked, and understood.

    bwrap --unshare-pid --die-with-parent --new-session --json-status-fd 3
          --dev-bind / / --proc /proc --chdir CWD -- ARGV

The files are those of the machine; only processes are shut in. When govrun or bubblewrap dies, the kernel ends
everything inside. An attacker inside can at most do to files what the user who runs govrun can.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Final

PLACES: Final = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap")
STATUS_FD: Final = 3

# bubblewrap writes this only when the command was executed; without it, it failed before.
_EXIT_CODE: Final = re.compile(rb'"exit-code": (\d+)')
_MAGIC_BYTES: Final = 20  # of an ELF file: up to and with the machine it is for


def bubblewrap_works(places: tuple[str, ...] = PLACES) -> bool:
    """True when a bubblewrap that can be trusted is installed; whether the kernel lets it work shows when it runs.

    No trial is run: it would cost as much as the command itself, and its answer could be out of date when it matters.
    """
    return locate(places) is not None


def locate(places: tuple[str, ...] = PLACES) -> str | None:
    """The bubblewrap to use: the first regular executable file among places that nobody but its owner may write.

    places are absolute. PATH is not asked: a checked-out repository may have set it.
    """
    return next((place for place in places if _is_trustworthy(place)), None)


def _is_trustworthy(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    owned = status.st_uid in (0, os.geteuid())
    closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and owned and closed and os.access(path, os.X_OK)


def command(bubblewrap: str, argv: tuple[str, ...], cwd: str) -> tuple[str, ...]:
    """The argv that runs argv in a pid namespace of its own; its status goes to descriptor STATUS_FD.

    bubblewrap adds PWD=cwd to the environment and offers no way to leave it out. Other descriptors pass through.
    """
    # /proc comes after the binding of /, which would cover it; then it shows the namespace and /dev/fd works.
    mounts = ("--dev-bind", "/", "/", "--proc", "/proc")
    # With a session of its own, the program's group can be asked to end without ending bubblewrap.
    life = ("--unshare-pid", "--die-with-parent", "--new-session", "--json-status-fd", str(STATUS_FD))
    return (bubblewrap, *life, *mounts, "--chdir", cwd, "--", *argv)


def parse_status(data: bytes) -> int | None:
    """The exit code that bubblewrap reported for the command, None when the command was never executed.

    Death by signal n is reported as 128 + n, which a program can also return by itself: bubblewrap does not tell.
    """
    found = _EXIT_CODE.search(data)
    return None if found is None else int(found[1])


def is_executed_as_it_is(program: str) -> bool:
    """True when the kernel surely knows how to execute program by itself.

    bubblewrap uses execvp, which hands a file of unknown format to /bin/sh; govrun never runs a shell unasked.
    """
    try:
        start, own = _start(program), _start("/proc/self/exe")
    except OSError:
        return False
    # Class, byte order and machine. The version, ABI and type of the file (5 to 18) may differ.
    native = start[:4] == b"\x7fELF" and (start[4:6], start[18:]) == (own[4:6], own[18:])
    return native or start[:2] == b"#!"


def _start(path: str) -> bytes:
    # A pipe in the place of a program must not make govrun wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(descriptor, _MAGIC_BYTES)
    finally:
        os.close(descriptor)
