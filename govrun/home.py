"""What a `.govrun` directory holds, how one is made, and whether the one that was found may be trusted.

A directory named `.govrun` may come with a checked-out repository. One that was found rather than named is used only
if it belongs to the user, nobody else may write it, and the user's own trust file, which lies elsewhere, names it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from govrun import schemas
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.policy import parse_toml
from govrun.settings import absolute_path, read_owned
from govrun.signing.keys import Verifier, format_vkey, parse_vkey
from govrun.world import World

NAME: Final = ".govrun"
KEY_ROLES: Final = ("root", "log", "receipt")


@frozen
class Trust:
    """What a verifier trusts about one ledger: its origin and its three keys; checkpoint is a pin, or None."""

    origin: str
    home: Path | None
    root: Verifier
    log: Verifier
    receipt: tuple[Verifier, ...]
    checkpoint: str | None = None


def find_home(world: World, cwd: Path, option: str | None) -> Path:
    """The home that an option or GOVRUN_HOME names, or the nearest `.govrun` above cwd that is ours.

    Raises GovrunError: request-invalid for a malformed setting, ledger-unavailable when there is none or it is not
    to be trusted.
    """
    named = option if option is not None else world.environ.get("GOVRUN_HOME")
    if named is not None:
        source = "--home" if option is not None else "GOVRUN_HOME"
        home = absolute_path(str(cwd / named) if option else named, "settings.home", f"home ({source})")
        return check_home(home)
    for directory in (cwd, *cwd.parents):
        candidate = directory / NAME
        if os.path.lexists(candidate):
            return _check_named_by_trust(check_home(candidate), world)
    raise GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "home.missing",
        "there is no .govrun here or above",
        found="none",
        expected="a .govrun that `govrun init` made, or GOVRUN_HOME",
        fix="run `govrun init`",
    )


def check_home(home: Path) -> Path:
    """The home, when it is a directory of this user that nobody else may write; else ledger-unavailable."""
    try:
        status = os.lstat(home)
    except OSError as error:
        raise _refused("home.missing", "the home cannot be read", error.strerror or "?", "a directory") from error
    if not stat.S_ISDIR(status.st_mode):
        raise _refused("home.directory", "the home is not a directory", "another kind of file", "a directory")
    if status.st_uid != os.geteuid():
        raise _refused(
            "home.owner", "the home belongs to another user", f"user {status.st_uid}", f"user {os.geteuid()}"
        )
    if status.st_mode & 0o022:
        raise _refused(
            "home.writable",
            "the home can be written by others",
            f"mode {stat.S_IMODE(status.st_mode):04o}",
            "mode 0700",
            "chmod 700 .govrun, after looking at what is in it",
        )
    return home


def _check_named_by_trust(home: Path, world: World) -> Path:
    real = os.path.realpath(home)
    if not any(t.home is not None and str(t.home) == real for t in read_trust_files(world)):
        raise _refused(
            "home.planted",
            "this .govrun was found, but no trust file of yours names it",
            "a .govrun that may have come with a checked-out repository",
            "one that `govrun init` made here",
            "if it is yours, name it: GOVRUN_HOME=/path/to/.govrun",
        )
    return home


def config_directory(environ: Mapping[str, str]) -> Path:
    """Where this user's trust files are: `$XDG_CONFIG_HOME/govrun`, by default `~/.config/govrun`."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    value = environ.get(variable, "")
    if value:
        return absolute_path(value, f"settings.{variable}", variable) / "govrun"
    home = environ.get("HOME", "")
    if not home:
        home = _home_of_user()
    return absolute_path(home, "settings.HOME", "HOME") / fallback / "govrun"


def _home_of_user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError as error:
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            "settings.HOME",
            "this user has no home directory",
            found="no HOME, and no entry in the password database",
            expected="HOME, or XDG_CONFIG_HOME and XDG_STATE_HOME",
        ) from error


def trust_path(environ: Mapping[str, str], origin: str) -> Path:
    """The trust file of one ledger, named by its origin's digest."""
    return config_directory(environ) / "trust" / f"{sha256_hex(origin.encode())[:16]}.toml"


def format_trust(trust: Trust) -> bytes:
    """The trust file's bytes; inverse of `parse_trust`."""
    receipts = ", ".join(f'"{format_vkey(v)}"' for v in trust.receipt)
    lines = [
        "# Whom you trust about one govrun ledger. Keep it apart from that ledger: keys in a ledger are never trust.",
        "format = 1",
        f"origin = {_toml_string(trust.origin)}",
        *([f"home = {_toml_string(str(trust.home))}"] if trust.home is not None else []),
        f'root = "{format_vkey(trust.root)}"',
        f'log = "{format_vkey(trust.log)}"',
        f"receipt = [{receipts}]",
        *([f"checkpoint = {_toml_string(trust.checkpoint)}"] if trust.checkpoint is not None else []),
    ]
    return ("\n".join(lines) + "\n").encode()


def rewrite_trust(path: Path, trust: Trust) -> None:
    """Replace a trust file whole, durable when this returns. OSError if it cannot be written."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(format_trust(trust))
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _toml_string(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_trust(data: bytes, name: str) -> Trust:
    """Read a trust file; raises GovrunError (could-not-check) for anything malformed."""
    document = parse_toml(data, name, ExitCode.COULD_NOT_CHECK, "trust")
    schemas.check(document, "trust.v1", None, ExitCode.COULD_NOT_CHECK, name)
    return Trust(
        origin=document["origin"],
        home=Path(document["home"]) if "home" in document else None,
        root=parse_vkey(document["root"]),
        log=parse_vkey(document["log"]),
        receipt=tuple(parse_vkey(text) for text in document["receipt"]),
        checkpoint=document.get("checkpoint"),
    )


def read_trust_files(world: World) -> tuple[Trust, ...]:
    """Every trust file of this user, sorted by name; one that is broken, or open to others, refuses by name."""
    directory = config_directory(world.environ) / "trust"
    try:
        names = sorted(n for n in os.listdir(directory) if n.endswith(".toml"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "trust.readable",
            "the trust files cannot be read",
            found=error.strerror,
            expected="a directory of trust files",
        ) from error
    return tuple(load_trust(directory / name) for name in names)


def load_trust(path: Path) -> Trust:
    """One trust file, which nobody but the user may write."""
    try:
        read = read_owned(path, "trust")
    except GovrunError as error:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK, error.rule, error.what, found=error.found, expected=error.expected
        ) from error
    if read is None:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "trust.missing",
            f"there is no trust file {path.name}",
            found="none",
            expected="one that `govrun init` made, or that you wrote",
        )
    data, status = read
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "trust.writable",
            f"the trust file {path.name} can be written by others",
            found=f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
            expected="a file of yours that only you can write",
        )
    return parse_trust(data, path.name)


def keep_policy(home: Path, data: bytes) -> None:
    """Keep a policy's bytes beside the ledger under their digest, so that an auditor can judge by them later."""
    kept = home / "policies" / f"{sha256_hex(data)}.toml"
    if os.path.lexists(kept):
        return
    # Several threads may come with the same policy at once.
    temporary = kept.with_suffix(f".{os.getpid()}-{threading.get_native_id()}")
    try:
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            # An intent that names this policy is durable soon: what it names must be too.
            os.fsync(file.fileno())
        temporary.rename(kept)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _refused(
            "policy.keep", "the policy's bytes cannot be kept beside the ledger", error.strerror or "?", "room"
        ) from error


def format_policy(allowed: Sequence[tuple[str, str]]) -> bytes:
    """A first policy.toml that allows (backend, distribution) pairs and nothing else."""
    lines = [
        "# What may run through this ledger. Whatever is not named here is refused, and the refusal is recorded.",
        "# An unknown key refuses the whole file. docs/policy.md explains every key.",
        "format = 1",
    ]
    for name, distribution in allowed:
        lines += ["", f"[backends.{name}]"]
        if distribution != "govrun":
            lines.append(f"distribution = {_toml_string(distribution)}")
        if name == "process":
            lines.append("freeArgv = true # callers may bring any command; without it only [tasks.NAME] may run")
    if not allowed:
        lines += ["", "# Nothing may run yet. For example:", "# [backends.bitnet]", '# determinism = "deterministic"']
    return ("\n".join(lines) + "\n").encode()


def _refused(rule: str, what: str, found: str, expected: str, fix: str | None = None) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=found, expected=expected, fix=fix)
