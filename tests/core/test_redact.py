"""No receipt holds an absolute path, a path from somebody's home, or a secret; and no receipt is lost over it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from govrun import schemas
from govrun.backends.interface import Dependency, Facts
from govrun.digest import FileDigest
from govrun.errors import ExitCode, GovrunError
from govrun.predicates import FileUse
from govrun.receipt import Draft, Position, format_statement, parse_statement
from govrun.redact import REDACTED, Scanner, base_name, display_name, file_word, find, scanner, scrub, token
from govrun.request import Parameter, Request, agent_or_none, name_or_none
from govrun.template import Argument, Hole, Template, Word, commitments, render

Refuses = Callable[..., GovrunError]
Build = Callable[..., Any]
PLACE = Position("example.com/log", 1, "0" * 64)
HASH = "ab" * 32

# ---- The oracle: written without looking at the module's patterns, and stricter than them where it can be.

LEAD_IN = "=:,;\"'`<>|&!?*^$@([{ \t\n\r"


def is_path_like(word: str) -> bool:
    """Whether a word, taken alone, is an absolute path of any system, a UNC name, a file URL or a `~` path."""
    return (
        PurePosixPath(word).is_absolute()
        or PureWindowsPath(word).is_absolute()
        or word.startswith(("\\\\", "~"))
        or word[:5].lower() == "file:"
    )


def suffixes(text: str) -> Iterator[str]:
    """The text itself, and every rest of it that begins behind a character after which a path may begin."""
    yield text
    for at, character in enumerate(text):
        if character in LEAD_IN and not text[:at].lower().endswith(("http", "https")):
            yield text[at + 1 :]


def holds_path(text: str) -> bool:
    for spelling in {text, unquote(text)}:
        for rest in suffixes(spelling):
            if is_path_like(rest) or re.match(r"-[A-Za-z]/", rest):
                return True
    return False


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


DIGEST_OR_INSTANT = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def demand_clean(payload: bytes, secrets: tuple[str, ...], harmless: Draft) -> None:
    """Assert that a receipt shows no path, and no secret but by the words that one of a harmless run holds as well."""
    statement = json.loads(payload)
    assert statement.pop("_type") == "https://in-toto.io/Statement/v1"
    statement["predicate"].pop("ledger")
    known = {*strings(harmless.predicate), *VOCABULARY}
    for text in strings(statement):
        assert not holds_path(text), text
        if text not in known and DIGEST_OR_INSTANT.fullmatch(text) is None and not text.startswith("urn:govrun:"):
            assert not any(secret in text for secret in secrets), text


# ---- The strategies: what an attacker would try.

ATTACKS = [
    *("-I/usr/include", "-isystem/usr/include", "-/etc", "PATH=/x", "a:/b", '"/x', "'/x'", "(/x)", "[/x", "{/x", "</x"),
    *("//host/share", "\\\\host\\share", "\\\\?\\C:\\", "C:/x", "C:\\x", "c:", "x=C:/y", "/", "=/", "//", "a\n/etc"),
    *("FILE:///", "file:x", "File:/x", "~", "~root", "~/x", "=~/x", ":~", "%2Fetc%2Fpasswd", "%7Eroot", "file%3A/x"),
    *("..", "../..", ".", "", " ", "a b", "a\nb", "\x1b[2J", "\x7f", "\u2215etc", "\uff0fetc", "\u2044x", "C\uff1a/x"),
    *("http://h/x", "https://u:p@h/x", "https:///etc", "<model>", "x" * 170, "é/x", "a/b", "@/etc", "+/x"),
]
SECRETS = [
    "hunter22",
    "s3cr3t-value",
    "deterministic",
    "succeeded",
    "2026-11-22",
    "hmacSha256",
    "process.free",
    "a" * 8,
]
secrets = st.sampled_from(SECRETS) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=12
)
pieces = st.sampled_from([*ATTACKS, *SECRETS, "/home/alice", "/srv/models", "/build"]) | st.text(max_size=8)
hostile = st.lists(pieces, min_size=1, max_size=3).map("".join)
utf8 = hostile.filter(lambda t: "\0" not in t and not any("\ud800" <= c <= "\udfff" for c in t))
file_names = utf8.map(lambda t: t.replace("/", "")).filter(lambda t: t not in ("", ".")) | st.sampled_from(
    ["~", "..", "C:", "a b", "a\nb", "\x1b", "hunter22", "file:x", "%2Fetc", "\\\\host", "m.gguf", "\udcff.bin"]
)
directories = st.sampled_from(["/", "/home/alice", "/build", "/srv/models", "/home/alice/p q", "//x", "/a/../b"])
paths = st.builds(lambda d, n: f"{d.rstrip('/')}/{n}", directories, file_names)
declared = utf8.filter(bool) | paths.filter(lambda p: "\udcff" not in p)
environments = st.fixed_dictionaries(
    {"HOME": directories | st.sampled_from(["", "home", "/root/", "//", "command", "a"])},
    optional={"API_KEY": secrets, "PGPASSWORD": secrets, "GITHUB_TOKEN": secrets, "DB_SECRET": secrets},
)
words: st.SearchStrategy[Argument] = st.one_of(
    st.builds(Word, utf8),
    st.builds(Hole, st.just("path"), st.just("model"), paths, st.sampled_from(["", "--model="])),
    st.builds(Hole, st.sampled_from(["text", "prompt"]), st.just("stop"), utf8, st.just("--stop=")),
    st.builds(Hole, st.just("free"), st.just("arg.1"), utf8),
    st.builds(Hole, st.just("url"), st.just("base"), utf8.map("https://".__add__)),
)
failures = st.builds(
    GovrunError,
    st.sampled_from([ExitCode.COMMAND_FAILED, ExitCode.OUTPUT_UNPARSABLE, ExitCode.LIMIT_EXCEEDED]),
    st.sampled_from(["bitnet.modelUnreadable", "process.free"]) | hostile,
    hostile,
    found=st.none() | hostile,
    expected=st.none() | hostile,
)
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def looks(environ: dict[str, str], cwd: str) -> tuple[Scanner, tuple[str, ...]]:
    look = scanner(environ, (cwd, "/srv/models"))
    return look, tuple(v for n, v in environ.items() if n != "HOME")


# Statuses, stages and stand-ins: a secret that reads like one of them is not given away by it.
VOCABULARY = ("succeeded", "failed", "limitExceeded", "unparsable", REDACTED, "redacted", "rule.malformed", "predicate")


def shown(name: str, path: str) -> FileUse:
    return FileUse(name, path, FileDigest(3, HASH))


@QUICK
@given(environments, directories, st.lists(words, min_size=1, max_size=4), st.lists(declared, max_size=3), paths, utf8)
def test_an_intent_is_refused_or_clean(
    attempt: Build,
    an_intent: Build,
    environ: dict[str, str],
    cwd: str,
    arguments: list[Argument],
    files: list[str],
    model: str,
    value: str,
) -> None:
    template = Template("bitnet.run", tuple(arguments))
    assume(not isinstance(attempt(ExitCode.TEMPLATE_REFUSED, render, template), GovrunError))
    assume(not isinstance(attempt(ExitCode.TEMPLATE_REFUSED, commitments, template, None), GovrunError))
    look, known_secrets = looks(environ, cwd)
    intent = an_intent(
        template=template,
        request=Request("bitnet", argv=tuple(files), inputs=tuple(files), outputs=tuple(files), cwd=cwd),
        dependencies=((Dependency("model", Path(model)), FileDigest(3, HASH)),),
        inputs=[shown(display_name(f, cwd), f) for f in files],
        parameters=(Parameter("temp", value, "option"),),
    )
    if find(intent, look) is not None:
        return
    payload = format_statement(Draft("intent", intent), PLACE)
    demand_clean(payload, known_secrets, Draft("intent", an_intent()))
    assert parse_statement(payload).predicate["resolvedDependencies"][0]["name"] == base_name(model)


@QUICK
@given(environments, directories, st.lists(declared | paths, max_size=3), st.none() | failures, hostile.map(str.encode))
def test_every_outcome_can_be_written_and_is_clean(
    an_outcome: Build,
    environ: dict[str, str],
    cwd: str,
    files: list[str],
    error: GovrunError | None,
    text: bytes,
) -> None:
    look, known_secrets = looks(environ, cwd)
    draft = an_outcome(
        error=error,
        facts=Facts(text),
        outputs=[shown(display_name(f, cwd), f) for f in files],
        changed=() if error is None else [base_name(f) for f in files],
    )
    payload = format_statement(attrs.evolve(draft, predicate=scrub(draft.predicate, look)), PLACE)
    demand_clean(payload, known_secrets, an_outcome())
    assert parse_statement(payload).kind == "outcome"


@QUICK
@given(environments, directories, hostile, hostile, secrets, hostile)
def test_every_denial_can_be_written_and_is_clean(
    a_denial: Build, environ: dict[str, str], cwd: str, rule: str, found: str, name: str, expected: str
) -> None:
    look, known_secrets = looks({**environ, "X_TOKEN": name}, cwd)
    error = GovrunError(ExitCode.PREFLIGHT_REFUSED, rule, "no", found=found, expected=expected)
    draft = a_denial(error=error, backend=name_or_none(name), task=name_or_none(rule), agent=agent_or_none(name))
    payload = format_statement(attrs.evolve(draft, predicate=scrub(draft.predicate, look)), PLACE)
    demand_clean(payload, known_secrets, a_denial())
    assert parse_statement(payload).kind == "denied"


# ---- Single cases, by name.

HOME = {"HOME": "/home/alice", "API_KEY": "hunter22x"}
LOOK = scanner(HOME, ("/build", "/srv/models"), ("another-secret",))


@pytest.mark.parametrize("text", [a for a in ATTACKS if holds_path(a)], ids=repr)
def test_every_attack_that_is_a_path_is_found(text: str) -> None:
    assert LOOK.finds(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x/home/alice/y",
            "-L/build",
            "hunter22x",
            "xxhunter22xyy",
            "another-secret",
            "hunter%32%32x",
            "-isystem/etc",
        ),
        *("--root=/", "see (/etc/x)", "a:b:/c", "-Wl,-rpath,/x", "tar -C/usr", "http://u@h/", "http:///etc"),
    ],
)
def test_glued_embedded_and_encoded_ones_are_found(text: str) -> None:
    assert LOOK.finds(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a",
            "a/b",
            "./a",
            "../a",
            "a-b/c",
            "out/build/x",
            "c++/x.h",
            "app/(group)/page.tsx",
            "[id]/x",
            "donné/x",
        ),
        *("日本/x", "foo~", "HEAD~1", "a.txt.~1~", "-Isrc/include", "--exclude-dir=src/lib", "s/a/b/", "<model.gguf>"),
        *(
            "{prompt}",
            "--model=<m.gguf>",
            "https://example.com/a/b?c=d",
            "http://127.0.0.1:8080/v1",
            "profile:x",
            "1/2",
        ),
        *("node_modules/@a/b", "100%", "a%20b", "%zz", "C:", "hunter2", "and/or", "text/plain", "\u2215etc", "\\d+"),
    ],
)
def test_what_is_neither_path_nor_secret_is_let_through(text: str) -> None:
    assert not LOOK.finds(text)


@pytest.mark.parametrize(
    "variable",
    [
        *(
            "API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "GITHUB_TOKEN",
            "PGPASSWORD",
            "MYSQL_PWD",
            "SSHPASS",
        ),
        *("DB_PASS", "OPENAI_APIKEY", "apikey", "NPM_CONFIG__AUTHTOKEN", "GITHUB_PAT", "X_AUTH", "session_cookie"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "GPG_PASSPHRASE", "PASSWORD", "KEY", "MY_SECRETS", "ACCESSKEY"),
    ],
)
def test_variables_that_are_named_like_secrets_are_secrets(variable: str) -> None:
    assert scanner({variable: "x" * 8}).secrets == ("x" * 8,)


@pytest.mark.parametrize(
    "variable", ["PATH", "PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "MONKEY", "COMPASS", "PATTERN"]
)
def test_other_variables_are_not(variable: str) -> None:
    assert scanner({variable: "x" * 8}).secrets == ()


def test_secrets_of_the_environment_count_from_eight_bytes() -> None:
    assert scanner({"A_KEY": "x" * 7}).secrets == ()
    assert scanner({"A_KEY": "é" * 4}).secrets == ("éééé",)
    assert scanner({"A_KEY": "\udcff" * 8}).secrets == ("\udcff" * 8,)


@pytest.mark.parametrize("secret", ["", "x", "x" * 7])
def test_a_named_secret_that_is_too_short_is_refused(refuses: Refuses, secret: str) -> None:
    error = refuses(ExitCode.TEMPLATE_REFUSED, "redact.secretSize", scanner, {}, (), ("long enough", secret))
    assert "long enough" not in str(error)


@pytest.mark.parametrize(
    ("home", "places"),
    [
        ("/home/alice", ("/home/alice",)),
        ("/home/alice/", ("/home/alice",)),
        ("", ()),
        ("/", ()),
        ("//", ()),
        ("/x", ()),
        ("command", ()),
        ("home/alice", ()),
    ],
)
def test_only_an_absolute_home_of_some_length_is_looked_for(home: str, places: tuple[str, ...]) -> None:
    assert scanner({"HOME": home}).directories == places


@pytest.mark.parametrize(
    ("path", "cwd", "name"),
    [
        ("a.txt", "/w", "a.txt"),
        ("sub/./a.txt", "/w", "sub/a.txt"),
        ("/w/sub/a.txt", "/w", "sub/a.txt"),
        ("/w/sub/a.txt", "/w/", "sub/a.txt"),
        ("/elsewhere/a.txt", "/w", "a.txt"),
        ("/ww/a.txt", "/w", "a.txt"),
        ("../a.txt", "/w", "a.txt"),
        ("sub/../../a.txt", "/w", "a.txt"),
        ("..", "/w", REDACTED),
        (".", "/w", "w"),
        ("home/alice/a.txt", "/", "a.txt"),
        ("/home/alice/a.txt", "/", "a.txt"),
        ("/", "/", REDACTED),
        ("//host/share/a", "/w", "a"),
        ("~", "/w", REDACTED),
        ("~root/a", "/w", "a"),
        ("x/~y/a", "/w", "a"),
        ("C:/a", "/w", "a"),
        ("C:", "/w", "C:"),
        ("C:\\a", "/w", REDACTED),
        ("a b/c d", "/w", "a b/c d"),
        ("a\nb", "/w", REDACTED),
        ("odd\n/a", "/w", "a"),
        ("\x7f", "/w", REDACTED),
        ("a\x9b2J", "/w", REDACTED),
        ("\udcff", "/w", REDACTED),
        ("%2Fetc", "/w", REDACTED),
        ("file:a", "/w", REDACTED),
        ("\u2215etc", "/w", "\u2215etc"),
        ("d" * 200 + "/" + "e" * 1000, "/w", "e" * 1000),
        ("e" * 1025, "/w", REDACTED),
    ],
)
def test_the_name_of_a_declared_file(path: str, cwd: str, name: str) -> None:
    assert name == display_name(path, cwd)


@given(st.text(max_size=20) | file_names | declared, directories)
def test_every_name_that_is_shown_fits_the_schema(path: str, cwd: str) -> None:
    for name in (display_name(path, cwd), base_name(path)):
        assert schemas.fits(name, "receipt.v1", "fileName")


def test_base_names_and_words() -> None:
    assert base_name("/srv/m/model.gguf") == base_name("model.gguf") == "model.gguf"
    assert base_name("") == base_name("/") == base_name("/a/..") == REDACTED
    assert file_word("/a/model.gguf/") == "<model.gguf>"
    assert file_word("/a/~") == REDACTED


def test_the_first_find_is_told_by_its_place() -> None:
    value = {"b": ["x", {"c": "/etc"}], "a": "fine", "origin": "/x", "sha256": "~"}
    assert find(value, LOOK) == "b.1.c"
    assert find(["x", "/etc"], LOOK) == "1"
    assert find({"a": ("x",), "n": 5, "z": None}, LOOK) is None


def test_scrubbing_replaces_strings_and_nothing_else() -> None:
    value = {"a": "/etc", "b": ["x", "~"], "n": 5, "t": True, "z": None, "origin": "hunter22x", "status": "/x"}
    expected = {**value, "a": REDACTED, "b": ["x", REDACTED]}
    assert expected == scrub(value, LOOK)
    assert scrub(("/x", "y"), LOOK) == [REDACTED, "y"]


@pytest.mark.parametrize(
    ("member", "instead"), [("agent", None), ("task", None), ("id", None), ("code", "redacted"), ("rule", "redacted")]
)
def test_a_name_that_must_not_be_shown_is_replaced_by_what_fits_its_place(member: str, instead: str | None) -> None:
    assert scrub({member: "hunter22x"}, LOOK) == {member: instead}
    assert scrub({member: "other"}, LOOK) == {member: "other"}
    assert scrub({member: None}, LOOK) == {member: None}


def test_a_backend_that_is_described_is_not_taken_for_a_name() -> None:
    assert scrub({"backend": {"name": "/x"}}, LOOK) == {"backend": {"name": REDACTED}}


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        (None, None),
        ("", ""),
        ("exit code 1", "exit code 1"),
        ("<redacted>", "<redacted>"),
        ("x" * 160, "x" * 160),
        *((bad, REDACTED) for bad in ("a/b", "a\\b", "~", "'a'", '"', "a\n", "é", "x" * 161, "\x1b", "a;b", "{a}")),
    ],
)
def test_a_short_value_is_shown_or_withheld(text: str | None, shown_as: str | None) -> None:
    assert shown_as == token(text)


def test_no_pattern_takes_long_over_a_long_word() -> None:
    import time

    begun = time.monotonic()
    for text in (
        "/" * 100_000,
        "-" * 100_000,
        "a" * 100_000,
        "~" * 50_000,
        "%2F" * 50_000,
        "http://" * 20_000,
        "-a" * 50_000,
    ):
        LOOK.finds(text + " ")
        display_name(text, "/w")
    assert time.monotonic() - begun < 5
