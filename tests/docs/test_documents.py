"""Documents held to code: what SPEC, the how-tos and the decision records say is what the code does."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from govrun import policy, receipt, schemas
from govrun.digest import commit, field_salt
from govrun.errors import MEANING
from govrun.ledger import sqlite_form
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from govrun.ledger.merkle import leaf_hash
from govrun.receipt import Draft, format_statement, parse_statement
from govrun.signing.dsse import format_envelope, parse_envelope, sign_envelope, verify_envelope
from govrun.signing.keys import format_skey, format_vkey, parse_vkey, signer_from_seed

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "SPEC.md"
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]+) -->\n+)?```(?P<language>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, *, mark: str | None = None, language: str | None = None) -> list[str]:
    """The fenced blocks of a document under a mark (`<!-- mark -->`) or of a language, without their fences."""
    return [
        match["body"]
        for match in _FENCE.finditer(document.read_text())
        if (mark is None or match["mark"] == mark) and (language is None or match["language"] == language)
    ]


def block(mark: str) -> str:
    """The one block of SPEC under a mark."""
    (found,) = blocks(SPEC, mark=mark)
    return found


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the table behind a mark or a head line, cell by cell."""
    lines = text[text.index(head) :].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def without_fences(document: Path) -> str:
    """A document's words, without what its fenced blocks quote."""
    return _FENCE.sub("", document.read_text())


# The schema of a receipt, as SPEC's tables spell it.


def type_text(schema: dict[str, Any]) -> str:
    """One spelling of a field's type, as the tables of SPEC show it."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(type_text(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"{schema.get('minItems', 0)} to {schema['maxItems']} of {type_text(schema['items'])}"
    if schema.get("type") == "integer":
        most = schema["maximum"]
        if most == 2**53 - 1:
            return "integer" if schema["minimum"] == 0 else f"integer from {schema['minimum']}"
        return f"integer {schema['minimum']} to {most}"
    if schema.get("type") == "string" and "pattern" in schema:
        length = f", {schema.get('minLength', 0)} to {schema['maxLength']}" if "maxLength" in schema else ""
        return f"string `{schema['pattern']}`{length}"
    return str(schema["type"])


def fields(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, type) of every member of an object, and of the objects inside it that have no name of their own."""
    for name, member in schema["properties"].items():
        yield prefix + name, type_text(member)
        for inner in (member, *member.get("anyOf", ())):
            if "properties" in inner:
                yield from fields(inner, f"{prefix}{name}.")
            elif "properties" in inner.get("items", {}):
                yield from fields(inner["items"], f"{prefix}{name}[].")
