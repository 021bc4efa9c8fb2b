"""Which backends are installed, told from their metadata alone, and how the one that was named is loaded.

A backend is an entry point of the group `govrun.backends`. Listing imports none of them: a broken one must not stop
the others. Loading imports one, and whatever is wrong with it refuses that name only.
"""

from __future__ import annotations

# The metadata is read here and not by importlib.metadata: its import (email, csv, zipfile and more) was measured at
# 29 ms of CPU, a third of the budget of a whole `govrun run`, and its look-up at 2.7 ms more; this one takes 1.3 ms for
# the same 58 distributions. A test holds both to the same answer.
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from govrun.backends.interface import INTERFACE_VERSION, Backend
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

GROUP: Final = "govrun.backends"
METHODS: Final = ("settings", "parameters", "checks", "plan", "parse", "explain")
MAX_FILE_BYTES: Final = 1 << 20

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # as in a request
_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*:\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.ASCII)
_DIRECTORY = re.compile(r"(?P<name>[^-]+)(?:-(?P<version>[^-]+)(?:-.*)?)?\.(?:dist|egg)-info")


@frozen
class Registration:
    """One backend as its distribution announces it; nothing of it has been imported.

    name: as the entry point spells it. distribution, version: as the distribution spells them. target: `module:attr`.
    problem: why it cannot be loaded, with its rule, or None when nothing speaks against trying.
    """

    name: str
    distribution: str
    version: str
    target: str
    problem: GovrunError | None = attrs.field(default=None, eq=False)


@frozen
class _Entry:
    name: str
    value: str
    distribution: str
    version: str


def list_backends(search: Sequence[str] | None = None) -> tuple[Registration, ...]:
    """Every registered backend, sorted by name, then distribution; one with a problem says so and hides no other.

    search: directories as in sys.path, which is the default. Where a distribution stands in two of them, the first
    counts, as for an import. Raises nothing.
    """
    entries = sorted(_entries(sys.path if search is None else search), key=lambda e: (e.name, e.distribution, e.value))
    return tuple(_register(entry, entries) for entry in entries)


def find(name: str, search: Sequence[str] | None = None) -> Registration:
    """The registration of one backend, without a problem. Raises GovrunError (backend-unavailable)."""
    known = list_backends(search)
    named = [registration for registration in known if registration.name == name]
    for registration in named:
        if registration.problem is not None:
            raise registration.problem
    if not named:
        raise _unknown(name, sorted({registration.name for registration in known}))
    return named[0]


def load(registration: Registration) -> Backend:
    """Import one backend and return it when it is what it says. Raises GovrunError (backend-unavailable)."""
    if registration.problem is not None:
        raise registration.problem
    backend = _import(registration)
    _demand(registration, "name", getattr(backend, "name", None), registration.name)
    _demand(registration, "interface", getattr(backend, "interface", None), INTERFACE_VERSION)
    missing = [method for method in METHODS if not callable(getattr(backend, method, None))]
    if missing:
        raise _unavailable(
            "registry.methods",
            f"backend {registration.name!r} ({_provider(registration)}) is not whole",
            f"no {', '.join(missing)}",
            "every method of the interface",
            "install a version of it made for this govrun",
        )
    loaded: Backend = backend
    return loaded


def _import(registration: Registration) -> Any:
    module_name, _, attribute = registration.target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise anything at all, SystemExit included
        raise _unavailable(
            "registry.import",
            f"backend {registration.name!r} ({_provider(registration)}) cannot be imported",
            type(error).__name__,
            "a module that imports",
            f"python -c 'import {module_name}' shows why",
        ) from error
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            raise _unavailable(
                "registry.attribute",
                f"backend {registration.name!r} ({_provider(registration)}) is not where it says",
                f"no {part} in {module_name}",
                registration.target,
                "install a version of it made for this govrun",
            ) from error
    return value


def _demand(registration: Registration, field: str, found: object, expected: object) -> None:
    if type(found) is not type(expected) or found != expected:
        raise _unavailable(
            f"registry.{field}",
            f"backend {registration.name!r} ({_provider(registration)}) has another {field}",
            repr(found)[:64],
            str(expected),
            "install a version of it made for this govrun",
        )


def _register(entry: _Entry, entries: Sequence[_Entry]) -> Registration:
    rivals = [other for other in entries if other.name == entry.name]
    target = _TARGET.fullmatch(entry.value.partition("[")[0].strip())
    problem = None
    if len(rivals) > 1:
        # Neither wins: which one came first on a search path is no decision anybody made.
        problem = _unavailable(
            "registry.duplicate",
            f"backend {entry.name!r} is registered twice",
            ", ".join(f"{other.distribution} {other.version}" for other in rivals),
            "one distribution that provides it",
            "uninstall one of them",
        )
    elif _NAME.fullmatch(entry.name) is None or target is None:
        problem = _unavailable(
            "registry.entry",
            f"the entry of {entry.distribution} for a backend is malformed",
            ascii(f"{entry.name} = {entry.value}")[:120],
            "name = module:attribute",
            f"install another version of {entry.distribution}",
        )
    spelled = entry.value if target is None else f"{target[1]}:{target[2]}"
    return Registration(entry.name, entry.distribution, entry.version, spelled, problem)


def _entries(search: Sequence[str]) -> Iterator[_Entry]:
    """The entries of the group in every distribution; its first place on the path hides later ones."""
    seen: set[str] = set()
    for folder in dict.fromkeys(search):
        try:
            # An empty entry is the working directory, and what lies there has not been installed.
            names = sorted(os.listdir(folder)) if folder else []
        except OSError:
            continue  # a path entry that is not there or is an archive holds no distribution that we could list
        for name in names:
            match = _DIRECTORY.fullmatch(name)
            if match is None or (key := _normalized(match["name"])) in seen:
                continue
            seen.add(key)
            place = os.path.join(folder, name)
            pairs = _group(_read(os.path.join(place, "entry_points.txt")))
            if pairs:
                title, version = _identity(place, match["name"], match["version"] or "0")
                yield from (_Entry(entry, value, title, version) for entry, value in pairs)


def _normalized(name: str) -> str:
    """One spelling per distribution (PyPA specification of name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError:
        return ""


def _group(text: str) -> list[tuple[str, str]]:
    """(name, value) of every line of our section of an entry_points.txt (PyPA specification of entry points).

    A line that is no pair has an empty value, so that it is listed as malformed and not forgotten.
    """
    pairs = []
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section == GROUP and line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            pairs.append((name.strip(), value.strip()))
    return pairs


def _identity(place: str, name: str, version: str) -> tuple[str, str]:
    """Name and version from METADATA (PKG-INFO of an egg-info); from the directory's name where it has none."""
    text = _read(os.path.join(place, "METADATA")) or _read(os.path.join(place, "PKG-INFO"))
    fields = {"Name": name, "Version": version}
    for line in text.splitlines():
        if not line:
            break  # the headers end here; the description may say anything
        key, _, value = line.partition(":")
        if key in fields:
            fields[key] = value.strip()
    return fields["Name"], fields["Version"]


def _provider(registration: Registration) -> str:
    return f"{registration.distribution} {registration.version}"


def _unknown(name: str, known: list[str]) -> GovrunError:
    import difflib  # 4 ms, for a refusal only

    near = difflib.get_close_matches(name, known, n=3)
    install = "install a distribution that provides it" if known else "install govrun itself: pip install govrun"
    return _unavailable(
        "registry.unknown",
        f"there is no backend {name[:64]!r}",
        name[:64],
        ", ".join(known) or "none is installed",
        f"did you mean {' or '.join(near)}?" if near else install,
    )


def _unavailable(rule: str, what: str, found: str, expected: str, fix: str) -> GovrunError:
    return GovrunError(ExitCode.BACKEND_UNAVAILABLE, rule, what, found=found, expected=expected, fix=fix)
