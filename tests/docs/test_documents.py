"""Documents held to code: what SPEC, the how-tos and the decision records say is what the code does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from govrun import policy, receipt, schemas
from govrun.digest import commit, field_salt
from govrun.disclosure import format_disclosure, parse_disclosure
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

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n+)?```(?P<language>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


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


def object_definitions() -> dict[str, dict[str, Any]]:
    """The closed objects of the receipt schema, by name, the eight statements themselves left out."""
    found = schemas._document("receipt.v1")["$defs"]
    return {
        name: definition
        for name, definition in found.items()
        if definition.get("type") == "object" and name not in receipt.KINDS
    }


@pytest.mark.parametrize("name", object_definitions())
def test_spec_has_every_field_of_the_receipt_schema_with_its_type(name: str) -> None:
    expected = [[f"`{field}`", kind] for field, kind in fields(object_definitions()[name])]
    assert [row[:2] for row in table(SPEC.read_text(), f"<!-- fields: {name} -->")] == expected


def test_spec_names_no_field_that_the_receipt_schema_lacks() -> None:
    marked = set(re.findall(r"<!-- fields: (\w+) -->", SPEC.read_text()))
    assert marked - {"statement"} == set(object_definitions())


def test_spec_says_something_about_every_field() -> None:
    text = SPEC.read_text()
    for name in re.findall(r"<!-- fields: (\w+) -->", text):
        assert all(row[2] for row in table(text, f"<!-- fields: {name} -->")), name


def test_a_statement_has_the_members_that_spec_lists() -> None:
    expected = {f"`{field}`" for field, _ in fields(schemas._document("receipt.v1")["$defs"]["genesis"])}
    assert {row[0] for row in table(SPEC.read_text(), "<!-- fields: statement -->")} == expected


def test_spec_has_the_scalars_of_the_receipt_schema() -> None:
    found = schemas._document("receipt.v1")["$defs"]
    expected = {name: one.get("pattern", "any text") for name, one in found.items() if one.get("type") == "string"}
    rows = table(SPEC.read_text(), "<!-- scalars -->")
    assert {row[0]: row[1].strip("`").replace("\\|", "|") for row in rows} == expected


def test_spec_lists_every_kind() -> None:
    rows = table(SPEC.read_text(), "| kind | says | signed by |")
    assert [row[0].strip("`") for row in rows] == list(receipt.KINDS)


# The examples of SPEC are the code's own bytes.


ORIGIN = "example.com/govrun-spec"
EXAMPLE_KEYS = tuple(
    signer_from_seed(name, bytes([number]) * 32)
    for number, name in ((1, f"{ORIGIN}/root"), (2, ORIGIN), (3, f"{ORIGIN}/receipt"))
)


def test_the_example_payload_is_what_the_code_writes_for_its_value() -> None:
    payload = block("example: payload").rstrip("\n").encode()
    statement = parse_statement(payload)
    bare = {name: value for name, value in statement.predicate.items() if name != "ledger"}
    assert format_statement(Draft(statement.kind, bare), statement.position) == payload
    assert f"{len(payload)} bytes" in SPEC.read_text()


def test_the_example_envelope_is_the_example_payload_under_the_published_key() -> None:
    payload = block("example: payload").rstrip("\n").encode()
    envelope = block("example: envelope").rstrip("\n").encode()
    receipt_key = EXAMPLE_KEYS[2]
    assert format_envelope(sign_envelope(payload, [receipt_key])) == envelope
    assert verify_envelope(envelope, [receipt_key.verifier]).payload == payload
    assert format_envelope(parse_envelope(envelope)) == envelope
    assert f"{len(envelope)} bytes" in SPEC.read_text()
    assert block("example: leafHash").strip() == leaf_hash(envelope).hex()


def test_the_grammar_of_envelopes_reads_the_example() -> None:
    # The same form once more, written down from SPEC's grammar and not from the code.
    base64_text = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    signature = r'\{"keyid":"[0-9a-f]{64}","sig":"[A-Za-z0-9+/=]{88}"\}'
    whole = re.compile(
        r'\{"payload":"(' + base64_text + r')","payloadType":"application/vnd\.in-toto\+json","signatures":\['
        f"{signature}(?:,{signature})?" + r"\]\}"
    )
    match = whole.fullmatch(block("example: envelope").rstrip("\n"))
    assert match is not None
    assert json.loads(base64.b64decode(match[1], validate=True)) == json.loads(block("example: payload"))


def test_the_example_checkpoint_is_over_the_example_envelope() -> None:
    envelope = block("example: envelope").rstrip("\n").encode()
    note = block("example: checkpoint").encode()
    assert sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(envelope)), EXAMPLE_KEYS[1]) == note
    assert verify_checkpoint(note, ORIGIN, [EXAMPLE_KEYS[1].verifier]).checkpoint.size == 1


def test_the_example_keys_are_those_of_the_published_seeds() -> None:
    *public, private = block("example: keys").splitlines()
    assert public == [format_vkey(signer.verifier) for signer in EXAMPLE_KEYS]
    assert [parse_vkey(text) for text in public] == [signer.verifier for signer in EXAMPLE_KEYS]
    assert private + "\n" == format_skey(EXAMPLE_KEYS[2])


def test_the_example_commitment_is_what_the_code_computes() -> None:
    example = json.loads(block("example: commitment"))
    salt = field_salt(bytes.fromhex(example["salt"]), example["field"])
    assert salt.hex() == example["fieldSalt"]
    assert commit(example["content"].encode(), salt).hex() == example["digest"]


def test_the_example_disclosure_opens_the_example_commitment() -> None:
    example = json.loads(block("example: commitment"))
    disclosure = parse_disclosure(block("example: disclosure").encode())
    assert format_disclosure(disclosure) == block("example: disclosure").encode()
    assert disclosure.field == example["field"]
    assert commit(example["content"].encode(), disclosure.salt).hex() == example["digest"]


def test_the_tables_of_the_store_are_those_of_the_code() -> None:
    (found,) = blocks(SPEC, mark="ddl")
    assert sorted(found.splitlines()) == sorted(f"{sql};" for _, sql in sqlite_form.TABLES)


# Tables that stand in two places.


def exit_rows() -> list[list[str]]:
    return [[str(int(code)), code.label, *words] for code, words in MEANING.items()]


def test_the_exit_codes_of_spec_are_those_of_the_code() -> None:
    assert table(SPEC.read_text(), "## Exit codes") == exit_rows()


def test_every_exit_code_that_the_readme_tells_is_that_of_the_code() -> None:
    text = README.read_text()
    rows = table(text, next(line for line in text.splitlines() if re.match(r"\| *code *\|", line)))
    known = {row[0]: row for row in exit_rows()}
    assert [row[0] for row in rows] == list(known)
    for row in rows:
        assert all(cell in known[row[0]] for cell in row), row


def test_the_steps_of_a_verification_are_the_checks_of_the_code() -> None:
    from govrun.audit.report import CHECKS

    text = SPEC.read_text()
    steps = text[text.index("\n## Verification\n") : text.index("\n## Verdicts\n")]
    assert re.findall(r"^\d+\. \*\*`(\w+)`\*\*", steps, re.MULTILINE) == [check for check, _ in CHECKS]


def test_the_members_of_a_bookmark_are_those_of_its_schema() -> None:
    text = SPEC.read_text()
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \|", text[text.index("\n## Bookmark\n") : text.index("\n## Verdicts\n")], re.M
    )
    members = [name for cell in rows for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(schemas._document("bookmark.v1")["properties"]) == sorted(members)


def test_the_order_of_exit_codes_of_a_verdict_is_that_of_the_code() -> None:
    from govrun.audit.report import SEVERITY

    assert ", ".join(str(int(code)) for code in SEVERITY) in SPEC.read_text()


def test_the_rules_of_a_policy_are_those_of_the_code() -> None:
    rows = table(SPEC.read_text(), "| rule | looks at | objects when |")
    source = Path(policy.__file__).read_text()
    evaluated = source[source.index("def evaluate") :]
    # In the order in which `evaluate` asks.
    functions = re.findall(r"^    (_\w+),$", evaluated[evaluated.index("_RULES") :], re.MULTILINE)
    expected: list[str] = []
    for function in functions:
        body = evaluated[evaluated.index(f"def {function}(") :].split("\ndef ", 1)[0]
        expected.extend(re.findall(r'Violation\(\s*"(policy\.\w+)"', body))
    assert [row[0].strip("`") for row in rows] == list(dict.fromkeys(expected))


def test_the_error_codes_of_the_core_are_those_of_the_code() -> None:
    from govrun import conclude, predicates

    text = SPEC.read_text()
    told = text[text.index("**Error codes** of the core") :].split("\n\n", 1)[0]
    listed = set(re.findall(r"`([a-z]+\.[A-Za-z]+)`", told)) - {"error.code"}
    source = Path(conclude.__file__).read_text() + Path(predicates.__file__).read_text()
    used = set(re.findall(r'"((?:command|limit|run|dependency|output|backend|rule)\.[A-Za-z]+)"', source))
    assert listed == used


# Policies.


POLICIES = [
    (document.name, body)
    for document in DOCUMENTS
    for body in blocks(document, language="toml")
    if re.search(r"^format = 1$", body, re.MULTILINE) and "[backends" in body
]


@pytest.mark.parametrize(("name", "body"), POLICIES)
def test_every_policy_in_the_documents_is_one(name: str, body: str) -> None:
    assert policy.parse_policy(body.encode(), name).document["backends"]


def policy_keys(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, member in schema["properties"].items():
        yield prefix + name
        rest = member.get("additionalProperties")
        if "properties" in member:
            yield from policy_keys(member, f"{prefix}{name}.")
        elif isinstance(rest, dict) and "properties" in rest:
            yield from policy_keys(rest, f"{prefix}{name}.NAME.")


def test_every_key_of_a_policy_is_explained() -> None:
    document = ROOT / "docs" / "policy.md"
    expected = list(policy_keys(schemas._document("policy.v1")))
    assert [row[0].strip("`") for row in table(document.read_text(), "<!-- policy keys -->")] == expected


def used_keys(value: Any, schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, member in value.items():
        known = schema.get("properties", {})
        inner = known.get(name, schema.get("additionalProperties"))
        path = prefix + (name if name in known else "NAME")
        yield path
        if isinstance(member, dict) and isinstance(inner, dict):
            yield from used_keys(member, inner, f"{path}.")


def test_the_complete_policy_uses_every_key() -> None:
    (body,) = blocks(ROOT / "docs" / "policy.md", mark="policy: complete")
    schema = schemas._document("policy.v1")
    document = policy.parse_policy(body.encode()).document
    assert set(policy_keys(schema)) <= set(used_keys(document, schema))


@pytest.mark.parametrize(("name", "body"), POLICIES)
def test_the_policies_name_parameters_that_the_backends_have(name: str, body: str) -> None:
    from govrun.backends import bitnet, llamacpp, process

    known = {
        backend.name: {spec.name for spec in backend.parameters({}) if spec.settable}
        for backend in (bitnet.BACKEND, llamacpp.BACKEND, process.BACKEND)
    }
    document = policy.parse_policy(body.encode(), name).document
    for backend, rules in document["backends"].items():
        assert set(rules.get("parameters", {})) <= known.get(backend, set()), backend
    for task in document.get("tasks", {}).values():
        assert set(task.get("parameters", {})) <= known[task["backend"]], task


# Adding a backend, by the book.


HOW_TO = ROOT / "docs" / "add-a-backend.md"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A directory with the how-to's two files, as somebody who follows it would write them."""
    (source,) = blocks(HOW_TO, mark="backend: complete")
    (suite,) = blocks(HOW_TO, mark="backend: test")
    (tmp_path / "govrun_words.py").write_text(source)
    (tmp_path / "test_words.py").write_text(suite)
    return tmp_path


def child(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(directory), str(ROOT)))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_complete_backend_needs_less_than_60_lines() -> None:
    (source,) = blocks(HOW_TO, mark="backend: complete")
    assert len(source.splitlines()) < 60


def test_the_backend_of_the_how_to_passes_the_conformance_suite(words: Path) -> None:
    result = child(words, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_words.py")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 15  # type: ignore[index]


def test_the_backend_of_the_how_to_really_counts_words(words: Path) -> None:
    program = """
import shutil
from govrun.execute.process import Limits, run
from govrun.request import Request
from govrun.testing import make_inquiry
from govrun.world import real_world
from govrun_words import BACKEND
settings = {"WORDS_PROGRAM": shutil.which("wc", path="/usr/bin:/bin")}
plan = BACKEND.plan(make_inquiry(BACKEND, Request("words", prompt=b"three short words"), settings=settings))
captured = run(plan, Limits(60_000, 1 << 16, 1 << 16), world=real_world({}), salt=None)
print(BACKEND.parse(plan, captured).text.decode())
"""
    result = child(words, "-c", program)
    assert (result.stdout, result.returncode) == ("3\n", 0), result.stderr


# Shell, links, paths, records.


def test_the_gate_is_shell_that_parses() -> None:
    (gate,) = blocks(ROOT / "docs" / "audit-in-ci.md", mark="sh: gate")
    result = subprocess.run(["sh", "-n"], input=gate, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_gate_knows_every_exit_code_of_a_verification() -> None:
    rows = table((ROOT / "docs" / "audit-in-ci.md").read_text(), "| exit code | the ledger | what to do |")
    assert [row[0] for row in rows[:-1]] == [str(int(c)) for c in MEANING if c == 0 or 40 <= c <= 45]


def test_the_gate_says_yes_no_and_why(ledger: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    home, _ = ledger
    (trust,) = (home.parents[1] / "user" / ".config" / "govrun" / "trust").glob("*.toml")
    (gate,) = blocks(ROOT / "docs" / "audit-in-ci.md", mark="sh: gate")
    (least,) = blocks(ROOT / "docs" / "policy.md", mark="policy: least")
    (tmp_path / "least.toml").write_text(least)
    (tmp_path / "strict.toml").write_text(least.replace("true", "false"))
    (tmp_path / "govrun").write_text(f'#!/bin/sh\nexec {sys.executable} -m govrun "$@"\n')
    (tmp_path / "govrun").chmod(0o755)
    older = tmp_path / "older"
    older.mkdir()
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}

    def ask(place: Path, policy_file: str) -> tuple[int, str]:
        words = ["sh", "-s", str(place), str(trust), str(tmp_path / policy_file), str(tmp_path / "kept")]
        result = subprocess.run(words, input=gate, env=environment, capture_output=True, text=True, timeout=120)
        return result.returncode, result.stdout.splitlines()[-1]

    assert ask(home, "strict.toml") == (42, "gate: no. Something ran that the policy does not allow.")
    assert not (tmp_path / "kept").exists()
    assert ask(home, "least.toml") == (0, "gate: yes")
    assert (tmp_path / "kept").read_text().startswith("example.com/stranger\n6\n")
    assert ask(home, "least.toml") == (0, "gate: yes")
    # The same ledger, cut at an older checkpoint: intact in itself, but not a continuation of the one kept.
    cut = older / "ledger.sqlite"
    cut.write_bytes((home / "ledger.sqlite").read_bytes())
    database = sqlite3.connect(cut)
    database.executescript(
        "DELETE FROM entry WHERE idx >= 3; DELETE FROM entry_index WHERE idx >= 3;"
        "DELETE FROM node WHERE position >= 4; DELETE FROM checkpoint WHERE size > 3;"
    )
    database.commit()
    database.close()
    code, words = ask(cut, "least.toml")
    assert (code, words[:9]) == (44, "gate: no.")


def options_of(*command: str) -> set[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "govrun", *command, "--help"]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", result.stdout))


@pytest.mark.parametrize("command", [("verify",), ("audit",), ("run",), ("init",), ("ledger", "checkpoint")])
def test_the_documents_use_only_options_that_the_command_has(command: tuple[str, ...]) -> None:
    known = options_of(*command)
    spoken = re.compile(rf"govrun {' '.join(command)}\b([^`\n|>)]*)")
    for document in DOCUMENTS:
        for rest in spoken.findall(document.read_text()):
            used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.split(" -- ")[0]))
            assert used <= known, f"{document.name}: govrun {' '.join(command)}{rest}"


def help_blocks() -> list[tuple[str, str, str]]:
    found = []
    for document in DOCUMENTS:
        for match in _FENCE.finditer(document.read_text()):
            if (match["mark"] or "").startswith("help: "):
                found.append((document.name, match["mark"].removeprefix("help: "), match["body"]))
    return found


@pytest.mark.parametrize(("document", "command", "body"), help_blocks())
def test_help_in_the_documents_is_the_help_of_the_command(document: str, command: str, body: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    words = [sys.executable, "-m", "govrun", *command.split()[1:], "--help"]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert body == result.stdout, document


_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_REPOSITORY_PATH = re.compile(
    r"(?:govrun|schemas|tests|docs|examples|benchmarks|ledger)/[A-Za-z0-9_./-]+|[A-Z]+\.md|pyproject\.toml|Makefile|LICENSE"
)


def anchor(heading: str) -> str:
    """The anchor of a heading, as renderers of Markdown make it."""
    bare = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return bare.replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(without_fences(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        place = document if not path else (document.parent / path)
        assert place.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", without_fences(place), re.MULTILINE)
            assert fragment in map(anchor, headings), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_of_the_repository_exist(document: Path) -> None:
    for words_ in re.findall(r"`([^`\n]+)`", without_fences(document)):
        path = words_.partition("::")[0]
        if _REPOSITORY_PATH.fullmatch(path) and not path.startswith("ledger/"):
            assert (ROOT / path).exists(), f"{document.name}: {words_}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_the_documents_name_exist(document: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", document.read_text()):
        assert re.search(rf"^\s*(?:async )?def {name}\(|^class {name}\b", (ROOT / file).read_text(), re.MULTILINE), name


def decision_records() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("[0-9][0-9][0-9][0-9]-*.md"))


def test_decision_records_are_numbered_without_a_hole_and_listed() -> None:
    records = decision_records()
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert _LINK.findall(index) == [record.name for record in records]


@pytest.mark.parametrize("record", decision_records(), ids=lambda path: path.name)
def test_decision_records_have_one_form(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {int(record.name[:4])}. ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Purpose", "Decision", "Why", "Rejected", "Consequences"]
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert text.splitlines()[0].removeprefix("# ").partition(". ")[2] in index


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_no_place_of_one_machine(document: Path) -> None:
    for place in ("/work/", "/tmp/", "/home/", "/root/"):
        assert place not in document.read_text(), place


def test_the_changelog_tells_the_version_of_the_code() -> None:
    from govrun import __version__

    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


# A verifier written from SPEC alone: it imports nothing of govrun, and reads a ledger that the command line made.


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def tree_root(hashes: list[bytes]) -> bytes:
    """RFC 6962 as SPEC words it."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else sha256(b"")
    cut = 1
    while cut * 2 < len(hashes):
        cut *= 2
    return sha256(b"\x01" + tree_root(hashes[:cut]) + tree_root(hashes[cut:]))


def dense_list(hashes: list[bytes]) -> list[bytes]:
    """The stored hashes as SPEC words them: each complete subtree right behind the last of its leaves."""
    stored = []
    for last in range(len(hashes)):
        width = 1
        while (last + 1) % width == 0:
            stored.append(tree_root(hashes[last + 1 - width : last + 1]))
            width *= 2
    return stored


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def key_of(vkey: str) -> tuple[str, bytes, Ed25519PublicKey]:
    name, hash_, text = vkey.split("+", 2)
    material = base64.b64decode(text, validate=True)
    assert material[:1] == b"\x01"
    assert sha256(name.encode() + b"\n" + material)[:4].hex() == hash_
    return name, bytes.fromhex(hash_), Ed25519PublicKey.from_public_bytes(material[1:])


def check_stranger(file: Path, trust: dict[str, Any]) -> list[dict[str, Any]]:
    """Verify a ledger by SPEC's steps; the statements. AssertionError or InvalidSignature says no."""
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    leaves = [bytes(leaf) for (leaf,) in database.execute("SELECT leaf FROM entry ORDER BY idx")]
    stored = [bytes(one) for (one,) in database.execute("SELECT hash FROM node ORDER BY position")]
    notes = list(database.execute("SELECT size, note FROM checkpoint ORDER BY size"))
    database.close()
    hashes = [sha256(b"\x00" + leaf) for leaf in leaves]
    assert stored == dense_list(hashes)
    _, _, receipt_key = key_of(trust["receipt"][0])
    statements = []
    for index, leaf in enumerate(leaves):
        envelope = json.loads(leaf)
        assert json.dumps(envelope, separators=(",", ":")).encode() == leaf
        assert list(envelope) == ["payload", "payloadType", "signatures"]
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        encoded = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
        receipt_key.verify(base64.b64decode(signature["sig"], validate=True), encoded)
        statement = json.loads(payload)
        assert canonical_json(statement) == payload
        predicate = statement["predicate"]
        previous = hashes[index - 1].hex() if index else "0" * 64
        assert predicate["ledger"] == {"origin": trust["origin"], "index": index, "previous": previous}
        assert statement["subject"] == expected_subject(statement["predicateType"], predicate)
        statements.append(statement)
    name, hash_, log_key = key_of(trust["log"])
    assert notes[-1][0] == len(leaves)
    for size, note in notes:
        text, _, lines = bytes(note).decode().rpartition("\n\n")
        root = base64.b64encode(tree_root(hashes[:size])).decode()
        assert text.split("\n") == [trust["origin"], str(size), root]
        dash, signer, blob = lines.rstrip("\n").split(" ")
        raw = base64.b64decode(blob, validate=True)
        assert (dash, signer, raw[:4]) == ("\u2014", name, hash_)
        log_key.verify(raw[4:], f"{text}\n".encode())
    return statements


def expected_subject(kind: str, predicate: dict[str, Any]) -> list[dict[str, Any]]:
    if kind == "urn:govrun:outcome:v1" and predicate["status"] == "succeeded":
        outputs = predicate["outputs"]
        if isinstance(outputs, list) and outputs:
            return [{"name": one["name"], "digest": {"sha256": one["sha256"]}} for one in outputs]
    bare = {name: value for name, value in predicate.items() if name != "ledger"}
    return [{"name": "predicate", "digest": {"sha256": sha256(canonical_json(bare)).hex()}}]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home that the command line made and used: a run with input and output, a failure, a refusal."""
    place = tmp_path_factory.mktemp("stranger")
    environment = {"HOME": str(place / "user"), "PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}
    work = place / "work"
    work.mkdir()
    (work / "in.txt").write_text("three short words\n")

    def govrun(code: int, *words: str) -> None:
        command = [sys.executable, "-m", "govrun", *words]
        result = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == code, result.stderr

    govrun(0, "init", "--origin", "example.com/stranger", "--allow", "process")
    files = ("--input", "in.txt", "--output", "out.txt")
    govrun(0, "run", "--backend", "process", *files, "--", "/bin/cp", "in.txt", "out.txt")
    govrun(20, "run", "--backend", "process", "--agent", "ci", "--", "/bin/ls", "--no-such-flag")
    govrun(12, "run", "--backend", "nobody", "--", "x")
    (trust,) = (place / "user" / ".config" / "govrun" / "trust").glob("*.toml")
    return work / ".govrun", tomllib.loads(trust.read_text())


def test_a_verifier_written_from_spec_alone_accepts_a_real_ledger(ledger: tuple[Path, dict[str, Any]]) -> None:
    home, trust = ledger
    statements = check_stranger(home / "ledger.sqlite", trust)
    kinds = [statement["predicateType"].split(":")[2] for statement in statements]
    assert kinds == ["genesis", "intent", "outcome", "intent", "outcome", "denied"]
    assert [s["name"] for s in statements[2]["subject"]] == ["out.txt"]
    assert [s["name"] for s in statements[4]["subject"]] == ["predicate"]
    assert statements[4]["predicate"]["intent"]["index"] == 3


def test_commitments_of_a_real_run_are_made_as_spec_says(ledger: tuple[Path, dict[str, Any]]) -> None:
    home, trust = ledger
    intent, outcome = (s["predicate"] for s in check_stranger(home / "ledger.sqlite", trust)[1:3])
    salts = (home / "salts").read_bytes()
    assert salts[32:64] == salts[64:96] != bytes(32)

    def committed(field: str, content: bytes) -> dict[str, Any]:
        key = hmac.digest(salts[32:64], b"govrun-field-salt:" + field.encode(), "sha256")
        digest = hmac.digest(key, content, "sha256").hex()
        return {"algorithm": "hmacSha256", "digest": digest, "size": len(content)}

    request = {
        "agent": None,
        "argv": ["/bin/cp", "in.txt", "out.txt"],
        "backend": "process",
        "cwd": str(home.parent),
        "inputs": ["in.txt"],
        "okExit": [0],
        "outputs": ["out.txt"],
        "parameters": [],
        "prompt": None,
        "task": None,
        "wallMs": None,
    }
    assert intent["request"]["commitment"] == committed("request", canonical_json(request))
    assert outcome["byproducts"]["stdout"]["commitment"] == committed("stdout", b"")
    assert outcome["facts"]["text"] == committed("text", b"")
    hidden = [
        {"name": f"arg.{n}", "commitment": committed(f"arg.{n}", w)} for n, w in ((1, b"in.txt"), (2, b"out.txt"))
    ]
    assert intent["template"]["arguments"] == hidden
    assert intent["template"]["argv"] == ["<cp>", "{arg.1}", "{arg.2}"]
    named = {"name": intent["template"]["name"], "argv": intent["template"]["argv"]}
    assert intent["template"]["sha256"] == sha256(canonical_json(named)).hex()


def test_a_verifier_written_from_spec_alone_refuses_a_changed_ledger(
    ledger: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    home, trust = ledger
    for sql in (
        "UPDATE entry SET leaf = CAST(leaf || ' ' AS BLOB) WHERE idx = 2",
        "DELETE FROM entry WHERE idx = 5",
        "UPDATE node SET hash = zeroblob(32) WHERE position = 2",
        "DELETE FROM checkpoint WHERE size = 6",
    ):
        copy = tmp_path / "ledger.sqlite"
        copy.write_bytes((home / "ledger.sqlite").read_bytes())
        database = sqlite3.connect(copy)
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute(sql)
        database.commit()
        database.close()
        with pytest.raises((AssertionError, InvalidSignature)):
            check_stranger(copy, trust)
        copy.unlink()
