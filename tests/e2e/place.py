"""A home in a world of its own, and the ways to work with it: the real program in a child process, or in here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import govrun
from govrun.audit.report import Report
from govrun.audit.trust import trusted_by
from govrun.audit.verify import verify_ledger
from govrun.home import load_trust
from govrun.initialise import make_home
from govrun.ledger.read import open_ledger
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope
from govrun.world import real_world

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "tests" / "data" / "plugins"
PATIENCE_S = 30.0

# What a child needs to find python and to report its coverage; nothing else of the caller's environment reaches it.
_INHERITED = ("PATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Done:
    """How one `govrun` ended. code is negative for a death by signal, as in subprocess."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """What stdout says, wherever its lines are broken."""
        return " ".join(self.out.decode().split())


@dataclass(frozen=True)
class Entry:
    """One entry of a ledger, as it is read back from its bytes."""

    index: int
    kind: str
    predicate: dict[str, Any]


@dataclass
class Place:
    """One operator's world below one directory. is_whole: the ledger must be intact when the test is over."""

    root: Path
    extra: dict[str, str] = field(default_factory=dict)
    is_whole: bool = True

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def home(self) -> Path:
        return self.work / ".govrun"

    @property
    def ledger(self) -> Path:
        return self.home / "ledger.sqlite"

    @property
    def marker(self) -> Path:
        """The file that `mark` makes: it is there exactly when a child was executed."""
        return self.work / "executed"

    @property
    def mark(self) -> tuple[str, ...]:
        """A command that leaves a line in the marker each time it is executed."""
        return ("/bin/sh", "-c", "echo executed >>executed")

    @property
    def runs(self) -> int:
        """How many times `mark` was executed."""
        return len(self.marker.read_text().splitlines()) if self.marker.exists() else 0

    @property
    def environ(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        own = {
            "HOME": str(self.root / "user"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
        }
        return {**inherited, **own, **self.extra}

    def start(
        self, *words: str | bytes, env: Mapping[str, str] | None = None, cwd: Path | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start the real program in a child process and do not wait for it."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        argv = [sys.executable, "-m", "govrun", *words]
        return subprocess.Popen(argv, env={**self.environ, **(env or {})}, cwd=cwd or self.work, **given)

    def go(
        self,
        *words: str | bytes,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> Done:
        """Run the real program to its end."""
        options = options if stdin is None else {**options, "stdin": subprocess.PIPE}
        return finish(self.start(*words, env=env, cwd=cwd, **options), stdin)

    def run(self, *words: str | bytes, **options: Any) -> Done:
        """`govrun run --backend process`, and what follows."""
        return self.go("run", "--backend", "process", *words, **options)

    def call(self, **wanted: Any) -> govrun.Result:
        """`govrun.run` in this process, in the same world."""
        given = {"backend": "process", "cwd": str(self.work), "world": real_world(self.environ), **wanted}
        return govrun.run(**given)

    def init(self, *allowed: str) -> None:
        """Make the home as `govrun init` does, in this process; the command itself has tests of its own."""
        make_home(real_world(self.environ), self.home, None, [(name, "govrun") for name in allowed])

    def config(self, text: str) -> None:
        (self.home / "config.toml").write_text("format = 1\n" + text)

    def policy(self, text: str) -> None:
        (self.home / "policy.toml").write_text("format = 1\n" + text)

    def with_plugins(self) -> None:
        """Put the third-party backends of `tests/data/plugins` on the path of the programs that are started."""
        self.extra["PYTHONPATH"] = f"{ROOT}:{PLUGINS}"

    def entries(self) -> list[Entry]:
        """Every entry, read in place from the stored bytes."""
        reader = open_ledger(str(self.ledger))
        try:
            leaves = [leaf for batch in reader.leaves(0, reader.size) for leaf in batch]
        finally:
            reader.close()
        statements = [parse_statement(parse_envelope(leaf).payload) for leaf in leaves]
        return [Entry(n, s.kind, s.predicate) for n, s in enumerate(statements)]

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.entries()]

    def last(self, kind: str) -> dict[str, Any]:
        return next(e.predicate for e in reversed(self.entries()) if e.kind == kind)

    @property
    def size(self) -> int:
        reader = open_ledger(str(self.ledger))
        try:
            return reader.size
        finally:
            reader.close()

    def verify(self) -> Report:
        """The verdict of a verifier who holds the operator's trust file."""
        [trust] = (self.root / "config" / "govrun" / "trust").glob("*.toml")
        reader = open_ledger(str(self.ledger))
        try:
            return verify_ledger(reader, trusted_by(load_trust(trust)))
        finally:
            reader.close()

    def leftovers(self) -> list[str]:
        """What should not be there after everything has ended: leases, pending outcomes, unfinished files."""
        found = [str(p.relative_to(self.home)) for p in self.home.rglob("*") if p.parent.name in ("leases", "pending")]
        return found + [p.name for p in self.work.glob(".govrun.new-*")]


def finish(child: subprocess.Popen[bytes], stdin: bytes | None = None, patience_s: float = 60) -> Done:
    """Wait for a started program; one that does not end is killed, and fails the test."""
    try:
        out, err = child.communicate(stdin, timeout=patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise
    return Done(child.returncode, out or b"", (err or b"").decode("utf-8", "backslashreplace"))


def until(holds: Callable[[], Any], what: str) -> Any:
    """Poll until something holds; fails the test when it does not come true."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.01)
    raise AssertionError(f"never came true: {what}")


def processes_below(directory: Path) -> list[int]:
    """The processes whose working directory lies below a directory."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if name.isdigit() and Path(os.readlink(f"/proc/{name}/cwd")).is_relative_to(directory):
                found.append(int(name))
    return found


@contextlib.contextmanager
def a_place(root: Path) -> Iterator[Place]:
    """A world; at its end no process of it is left, and its ledger is intact unless the test says otherwise."""
    place = Place(root)
    for directory in ("work", "user", "config", "state"):
        (root / directory).mkdir(mode=0o700)
    try:
        yield place
        left = processes_below(root)
        assert [] == left
        if place.is_whole and place.ledger.exists():
            report = place.verify()
            assert ("intact", 0) == (report.integrity, report.exit_code), report
    finally:
        for pid in processes_below(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def assert_refused(
    done: Done, code: int, rule: str, *parts: str, recorded: bool = True, effect: str = "nothing was executed"
) -> None:
    """The refusal as a person reads it: exit code, rule in the first line, the parts, and what it did to the world."""
    assert code == done.code, done.err
    assert b"" == done.out
    head, *rest = done.err.rstrip("\n").split("\n")
    assert f"[{rule}]" in head, done.err
    for part in parts:
        assert part in done.err, done.err
    said = "refusal recorded as entry" if recorded else "nothing was recorded"
    assert effect in rest[-1], done.err
    assert said in rest[-1], done.err
    assert "Traceback" not in done.err


def assert_denied(place: Place, size: int, rule: str) -> None:
    """Nothing was executed, and the ledger grew by one `denied` that names the rule."""
    assert 0 == place.runs
    assert (size + 1, rule) == (place.size, place.last("denied")["rule"])
    assert [] == place.leftovers()


def assert_untouched(place: Place, size: int) -> None:
    """Nothing was executed and nothing was written."""
    assert 0 == place.runs
    assert size == place.size
    assert [] == place.leftovers()
