"""Where each setting came from: option, environment, config.toml, default, in that order.

Only those four may set home, ledger, policy, keys, signers and paths. A project's `govrun.toml` (or `[tool.govrun]` in
its `pyproject.toml`) may set parameters, because a checked-out repository is not trusted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NewType

import attrs

from govrun import canonical, schemas
from govrun.canonical import JsonObject
from govrun.digest import sha256_hex, without_waiting
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.policy import MAX_BYTES, parse_toml
from govrun.redact import base_name
from govrun.request import SettingSpec

Source = Literal["option", "environment", "config", "default"]

# Where a ledger in PostgreSQL is; no password stands in it, so that it can be shown.
LedgerUrl = NewType("LedgerUrl", str)
POSTGRES: Final = "postgresql://"

_ENVIRONMENT: Final = {
    "ledger": "GOVRUN_LEDGER",
    "policy": "GOVRUN_POLICY",
    "backend": "GOVRUN_BACKEND",
    "signer": "GOVRUN_SIGNER",
    "logSigner": "GOVRUN_LOG_SIGNER",
}
DEFAULT_LEDGER_TIMEOUT_MS: Final = 10_000

# Where a key is: in its file of the home, or behind an ssh-agent that knows it by its fingerprint.
KEY_FILE: Final = "file"
AGENT_PREFIX: Final = "ssh-agent:"


@frozen
class Setting:
    """One setting with its value as text and where it came from; value None when nothing set it."""

    name: str
    value: str | None
    source: Source


@frozen
class Settings:
    """The core's settings, resolved. config is the operator's config.toml, whole.

    signer, log_signer: where the receipt key and the log key are, `file` or `ssh-agent:SHA256:...`.
    """

    home: Path
    ledger: Path | LedgerUrl
    policy: Path
    backend: str | None
    digests: Literal["salted", "plain"]
    ledger_timeout_ms: int
    signer: str
    log_signer: str
    origins: tuple[Setting, ...]
    config: JsonObject = attrs.field(repr=False, eq=False)


def load_settings(home: Path, environ: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    """Resolve the core's settings for a home that was found and checked; options beat environment beat config.

    Raises GovrunError (request-invalid) naming the setting, its source and what is wrong with it.
    """
    config = read_config(home / "config.toml")
    resolved = {
        name: _pick(name, options, environ, config, default)
        for name, default in (
            ("ledger", str(home / "ledger.sqlite")),
            ("policy", str(home / "policy.toml")),
            ("backend", None),
            ("signer", KEY_FILE),
            ("logSigner", KEY_FILE),
        )
    }
    digests = config.get("digests", "salted")
    timeout = config.get("ledgerTimeoutMs", DEFAULT_LEDGER_TIMEOUT_MS)
    return Settings(
        home=home,
        ledger=_ledger(resolved["ledger"]),
        policy=_path(resolved["policy"]),
        backend=resolved["backend"].value,
        digests=digests,
        ledger_timeout_ms=timeout,
        signer=_signer(resolved["signer"]),
        log_signer=_signer(resolved["logSigner"]),
        origins=(
            *(resolved[name] for name in ("ledger", "policy", "backend")),
            Setting("digests", digests, "config" if "digests" in config else "default"),
            Setting("ledgerTimeoutMs", str(timeout), "config" if "ledgerTimeoutMs" in config else "default"),
            resolved["signer"],
            resolved["logSigner"],
        ),
        config=config,
    )


def _pick(
    name: str, options: Mapping[str, str], environ: Mapping[str, str], config: JsonObject, default: str | None
) -> Setting:
    if name in options:
        return Setting(name, options[name], "option")
    if _ENVIRONMENT[name] in environ:
        return Setting(name, environ[_ENVIRONMENT[name]], "environment")
    if name in config:
        return Setting(name, config[name], "config")
    return Setting(name, default, "default")


def _signer(setting: Setting) -> str:
    value = setting.value or ""
    if not is_signer(value):
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            f"settings.{setting.name}",
            f"{setting.name} ({setting.source}) does not say where a key is",
            found=ascii(value[:100]),
            expected=f"{KEY_FILE}, or {AGENT_PREFIX}SHA256:... as `ssh-add -l` prints it",
        )
    return value


def is_signer(text: str) -> bool:
    """Whether text says where a key is."""
    if text == KEY_FILE:
        return True
    if not text.startswith(AGENT_PREFIX):
        return False
    from govrun.signing.ssh_wire import is_fingerprint

    return is_fingerprint(text.removeprefix(AGENT_PREFIX))


def _ledger(setting: Setting) -> Path | LedgerUrl:
    value = setting.value or ""
    return check_url(value, f"ledger ({setting.source})") if value.startswith(POSTGRES) else _path(setting)


def check_url(value: str, what: str) -> LedgerUrl:
    """The URL of a ledger in PostgreSQL, without a password in it; else GovrunError (request-invalid)."""
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(value)
        named = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        secret = parts.password is not None or any("password" in name for name in named)
    except ValueError:
        secret = True
    if secret or not value.startswith(POSTGRES) or not value.isprintable():
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            "settings.ledger",
            f"{what} is no URL of a ledger that may be shown",
            found="a password in it, or something else than such a URL",
            expected=f"{POSTGRES}user@host/database",
            fix="put the password into the password file of PostgreSQL, or into PGPASSWORD",
        )
    return LedgerUrl(value)


def _path(setting: Setting) -> Path:
    value = setting.value or ""
    return absolute_path(value, f"settings.{setting.name}", f"{setting.name} ({setting.source})")


def absolute_path(value: str, rule: str, what: str) -> Path:
    """A path that means the same everywhere: absolute, without `~` and `..`; else GovrunError (request-invalid)."""
    path = Path(value)
    if not value or "\0" in value or not path.is_absolute() or ".." in path.parts:
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            rule,
            f"{what} is not an explicit path",
            found=repr(value[:200]),
            expected="an absolute path without ~ and ..",
        )
    return path


def read_config(path: Path) -> JsonObject:
    """The operator's config.toml; a missing one is empty. Raises GovrunError (request-invalid) for anything wrong."""
    data = read_private(path, "config")
    if data is None:
        return {}
    document = parse_toml(data, path.name, ExitCode.REQUEST_INVALID, "config")
    if not document:
        return _refuse_empty(path.name)
    schemas.check(document, "config.v1", None, ExitCode.REQUEST_INVALID, path.name)
    return document


def _refuse_empty(name: str) -> JsonObject:
    raise GovrunError(
        ExitCode.REQUEST_INVALID, "config.empty", f"{name} is empty", found="no keys", expected="at least format = 1"
    )


def read_small(path: Path, rule: str) -> bytes | None:
    """The bytes of a small file, None when there is none; never more than the limit plus one byte is read."""
    read = read_owned(path, rule)
    return None if read is None else read[0]


def read_owned(path: Path, rule: str) -> tuple[bytes, os.stat_result] | None:
    """The bytes of a small regular file, and the status of that same file; None when there is none.

    What is no regular file is not waited for: a planted FIFO would never answer.
    """
    try:
        with open(path, "rb", opener=without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(path, rule, "another kind of file")
            return file.read(MAX_BYTES + 1), status
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a name that no file can have"
        raise _unreadable(path, rule, reason or "an error") from error


def read_private(path: Path, rule: str) -> bytes | None:
    """The bytes of a small file that only its owner, who is this user or root, may write; None when there is none."""
    read = read_owned(path, rule)
    if read is None:
        return None
    data, status = read
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            f"{rule}.writable",
            f"{path.name} can be written by others",
            found=f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
            expected="a file of yours that only you can write",
            fix=f"chmod go-w {path.name}, after looking at what is in it",
        )
    return data


def _unreadable(path: Path, rule: str, found: str) -> GovrunError:
    return GovrunError(
        ExitCode.REQUEST_INVALID,
        f"{rule}.readable",
        f"{path.name} cannot be read",
        found=found,
        expected="a readable regular file",
    )


def read_project(cwd: Path) -> JsonObject:
    """What the project in cwd says: parameters, and parameters of tasks. Anything more refuses."""
    data = read_small(cwd / "govrun.toml", "project")
    if data is not None:
        own = parse_toml(data, "govrun.toml", ExitCode.REQUEST_INVALID, "project")
        schemas.check(own, "project.v1", None, ExitCode.REQUEST_INVALID, "govrun.toml")
        return own
    data = read_small(cwd / "pyproject.toml", "project")
    # The file is somebody else's: unless it speaks to govrun, nothing in it is govrun's business.
    if data is None or b"govrun" not in data:
        return {}
    whole = parse_toml(data, "pyproject.toml", ExitCode.REQUEST_INVALID, "project")
    tools = whole.get("tool")
    document: JsonObject = tools.get("govrun", {}) if isinstance(tools, dict) else {}
    schemas.check(document, "project.v1", None, ExitCode.REQUEST_INVALID, "[tool.govrun] of pyproject.toml")
    return document


def backend_settings(
    specs: Sequence[SettingSpec], environ: Mapping[str, str], config: JsonObject
) -> tuple[Setting, ...]:
    """The declared settings of a backend, in order, each from environment, config.toml or its default.

    An empty environment variable is a value, and usually a wrong one; it does not fall through to the next layer.
    """
    given = config.get("settings", {})
    resolved = []
    for spec in specs:
        if spec.name in environ:
            resolved.append(Setting(spec.name, environ[spec.name], "environment"))
        elif spec.name in given:
            resolved.append(Setting(spec.name, str(given[spec.name]), "config"))
        else:
            resolved.append(Setting(spec.name, spec.default, "default"))
        _check_text(resolved[-1])
    return tuple(resolved)


def _check_text(setting: Setting) -> None:
    try:
        (setting.value or "").encode()
    except UnicodeEncodeError as error:
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            f"settings.{setting.name}",
            f"{setting.name} ({setting.source}) is not UTF-8",
            found="undecodable bytes",
            expected="UTF-8",
        ) from error


def settings_digest(specs: Sequence[SettingSpec], settings: Sequence[Setting], digests: str) -> str:
    """sha256 in hex of the settings as a receipt may know them: base names for paths, no secret's value."""
    kinds = {spec.name: spec.kind for spec in specs}
    shown: dict[str, str | None] = {"digests": digests}
    for setting in settings:
        kind = kinds[setting.name]
        hidden = setting.value is not None and kind == "secret"
        path = setting.value is not None and kind == "path"
        shown[setting.name] = "set" if hidden else base_name(str(setting.value)) if path else setting.value
    return sha256_hex(canonical.encode(shown))
