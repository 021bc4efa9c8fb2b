"""Where the JSON Schemas are, and whether a value fits one.

jsonschema-rs decides; when it says no, jsonschema says why in words a person can use.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError

_PACKAGE: Final = Path(__file__).resolve().parent

# Receipts and policies refer to schemas by name and digest; this is the whole list.
NAMES: Final = (
    "bookmark.v1",
    "config.v1",
    "disclosure.v1",
    "inclusion.v1",
    "policy.v1",
    "project.v1",
    "receipt.v1",
    "report.v1",
    "request.v1",
    "trust.v1",
)


def schema_bytes(name: str) -> bytes:
    """The exact bytes of a schema file, from the wheel or from a checkout."""
    shipped = _PACKAGE / "_schemas" / f"{name}.json"
    path = shipped if shipped.exists() else _PACKAGE.parent / "schemas" / f"{name}.json"
    return path.read_bytes()


def schema_digests() -> tuple[tuple[str, str], ...]:
    """(name, sha256 in hex) of every schema, sorted by name."""
    return tuple((name, sha256_hex(schema_bytes(name))) for name in NAMES)


@functools.cache
def _document(name: str) -> dict[str, Any]:
    import orjson

    document: dict[str, Any] = orjson.loads(schema_bytes(name))
    return document


def _rooted(name: str, definition: str | None) -> dict[str, Any]:
    document = _document(name)
    if definition is None:
        return document
    return {"$schema": document["$schema"], "$ref": f"#/$defs/{definition}", "$defs": document["$defs"]}


@functools.cache
def _validator(name: str, definition: str | None) -> Any:
    import jsonschema_rs

    # RegexOptions: the linear-time engine, so that no pattern can be made slow, and compiled quicker too.
    return jsonschema_rs.Draft202012Validator(_rooted(name, definition), pattern_options=jsonschema_rs.RegexOptions())


def fits(value: Any, name: str, definition: str | None = None) -> bool:
    """Whether a value fits a schema, or one of its `$defs`."""
    validator = _validator(name, definition)
    try:
        return bool(validator.is_valid(value))
    except (ValueError, TypeError, RecursionError):
        return False  # a date from TOML, or nesting without end: nothing that JSON can hold


def check(value: Any, name: str, definition: str | None, code: ExitCode, what: str) -> None:
    """Raise GovrunError with the given code, the place and the reason when a value does not fit."""
    if fits(value, name, definition):
        return
    place, reason = _explain(value, name, definition)
    raise GovrunError(
        code,
        "schema." + name.replace(".", "-"),
        f"{what} does not fit its schema at {place}",
        found=reason,
        expected=f"schemas/{name}.json",
    )


def _explain(value: Any, name: str, definition: str | None) -> tuple[str, str]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        error = best_match(Draft202012Validator(_rooted(name, definition)).iter_errors(value))
    except (ValueError, TypeError, RecursionError):
        error = None
    if error is None:
        return "the top", "refused by the fast validator alone"
    place = ".".join(str(part) for part in error.absolute_path) or "the top"
    return place, error.message[:300]
