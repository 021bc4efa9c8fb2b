"""Where bitnet.cpp is, as the settings say, and whether they name one place on this machine."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from govrun.backends.files import explicit_path, refusal
from govrun.backends.interface import Check
from govrun.frozen import frozen
from govrun.request import SettingSpec

LAUNCHERS: Final = ("run-inference", "llama-cli")
SCRIPT: Final = "run_inference.py"
BINARY: Final = "build/bin/llama-cli"

SETTINGS: Final = (
    SettingSpec("BITNET_CPP_DIR", "path", "absolute path of a built bitnet.cpp", required=True),
    SettingSpec("BITNET_MODEL_GGUF", "path", "absolute path of the model, a GGUF file", required=True),
    SettingSpec("BITNET_LAUNCHER", "text", "run-inference or llama-cli", default=LAUNCHERS[0]),
    SettingSpec("BITNET_PYTHON", "path", "absolute path of the interpreter for run_inference.py; else govrun's own"),
    SettingSpec("BITNET_THREADS", "integer", "threads, at most one per processor"),
    SettingSpec("BITNET_CTX", "integer", "context in tokens"),
    SettingSpec("BITNET_TEMP", "decimal", "temperature; 0 is greedy"),
    SettingSpec("BITNET_N_PREDICT", "integer", "most tokens of an answer"),
    SettingSpec("BITNET_SEED", "integer", "seed of the sampler, llama-cli only"),
)


@frozen
class Site:
    """What the settings say; a path that is not set is empty. Whether any of it is so is for the checks to say."""

    launcher: str
    root: str
    model: str
    interpreter: str

    @property
    def wrapped(self) -> bool:
        """Whether run_inference.py starts llama-cli; else govrun does."""
        return self.launcher != "llama-cli"

    @property
    def script(self) -> Path:
        return Path(self.root, SCRIPT)

    @property
    def binary(self) -> Path:
        return Path(self.root, BINARY)


def site_of(settings: Mapping[str, str]) -> Site:
    """Read the settings that say where things are, defaults included."""
    # Without BITNET_PYTHON: the program that runs govrun, and not its virtual environment's link to it, because the
    # script needs the standard library alone and the receipt names the very file that is hashed.
    own = os.path.realpath(sys.executable) if sys.executable else ""
    return Site(
        launcher=settings.get("BITNET_LAUNCHER") or LAUNCHERS[0],
        root=settings.get("BITNET_CPP_DIR", ""),
        model=settings.get("BITNET_MODEL_GGUF", ""),
        interpreter=settings.get("BITNET_PYTHON") or own,
    )


def setting_checks(site: Site) -> Iterable[Check]:
    """The checks that look at the settings' words alone."""
    yield Check("bitnet.launcher.known", "BITNET_LAUNCHER names a launcher", functools.partial(_known, site.launcher))
    for key, name, value in (
        ("dir", "BITNET_CPP_DIR", site.root),
        ("model", "BITNET_MODEL_GGUF", site.model),
        ("interpreter", "BITNET_PYTHON", site.interpreter),
    ):
        is_set, offline, local = f"bitnet.{key}.set", f"bitnet.{key}.offline", f"bitnet.{key}.local"
        yield Check(is_set, f"{name} is set", functools.partial(_set, is_set, name, value))
        what = f"{name} is no URL and no hub id; nothing is ever downloaded"
        yield Check(offline, what, functools.partial(_offline, offline, name, value), (is_set,))
        what = f"{name} is an absolute, explicit path"
        yield Check(local, what, functools.partial(_local, local, name, value), (offline,))


def _known(launcher: str) -> bool:
    if launcher not in LAUNCHERS:
        fix = "unset BITNET_LAUNCHER for the default"
        raise refusal("bitnet.launcher.known", "no such launcher", ascii(launcher[:64]), " or ".join(LAUNCHERS), fix)
    return True


def _set(rule: str, name: str, value: str) -> bool:
    if not value:
        raise refusal(rule, f"{name} is not set", "nothing", "an absolute path", f"export {name}=/path/to/it")
    return True


def _offline(rule: str, name: str, value: str) -> bool:
    fix = f"download it yourself and set {name} to where it is"
    if "://" in value or value.lower().startswith(("hf:", "file:")):
        raise refusal(rule, f"{name} names something to download", "a URL", "a path on this machine", fix)
    if not value.startswith(("/", "~", ".")) and value.count("/") == 1:
        raise refusal(rule, f"{name} may be a hub id", "owner/name", "an absolute path on this machine", fix)
    return True


def _local(rule: str, name: str, value: str) -> bool:
    fix = f"export {name}=/path/to/it"
    explicit_path(rule, name, value, fix)
    # A newline would forge lines of the engine's stderr, which repeats the path; a step `.` hides one spelling in two.
    if not value.isprintable() or "." in value.split("/"):
        what = f"{name} is not an explicit local path"
        raise refusal(
            rule, what, "control characters, undecodable bytes or a step `.`", "an explicit absolute path", fix
        )
    return True
