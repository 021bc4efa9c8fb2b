"""A value stays in its element of argv, and what is hidden stays hidden."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import govrun
from govrun.errors import ExitCode, GovrunError
from govrun.template import (
    MAX_WORD_BYTES,
    RECEIPT_FIELDS,
    Argument,
    Hole,
    HoleKind,
    Template,
    Word,
    commitments,
    redacted,
    render,
    template_digest,
)

Refuses = Callable[..., GovrunError]
REFUSED = ExitCode.TEMPLATE_REFUSED
SALT = bytes(range(32))

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,10}", fullmatch=True).filter(str.isascii)
values = st.text(max_size=30) | st.sampled_from(["", "-x", "--help", "; rm", "$(x)", "a b", "`x`", "'", '"', "\n", "*"])
prefixes = st.sampled_from(["", "--prompt=", "-p"])
words = st.builds(Word, st.text(max_size=10))
kinds: st.SearchStrategy[HoleKind] = st.sampled_from(
    ["path", "secret", "prompt", "text", "number", "flag", "url", "free"]
)
holes = st.builds(Hole, kinds, names, values, prefixes) | st.one_of(
    st.builds(Hole, st.just("path"), names, values.map("/".__add__), prefixes),
    st.builds(Hole, st.sampled_from(["prompt", "text"]), names, values, st.just("--prompt=")),
    st.builds(Hole, st.just("free"), names, values),
    st.builds(Hole, st.just("number"), names, st.integers(-9, 9**9).map(str), prefixes),
    st.builds(Hole, st.just("flag"), names, st.sampled_from(["-x", "--long-flag"])),
    st.builds(Hole, st.just("url"), names, values.map("https://h/".__add__), prefixes),
)
arguments = st.lists(words | holes, min_size=1, max_size=8).map(tuple)


def one(argument: Argument) -> str | None:
    """What one argument alone becomes; None when it refuses."""
    try:
        (word,) = render(Template("t", (argument,)))
    except GovrunError as error:
        code = error.code
    else:
        return word
    assert code == REFUSED
    return None


@given(arguments)
def test_every_element_is_a_function_of_its_own_argument_alone(given_arguments: tuple[Argument, ...]) -> None:
    alone = [one(argument) for argument in given_arguments]
    if None in alone:
        with pytest.raises(GovrunError):
            render(Template("t", given_arguments))
    else:
        assert list(render(Template("t", given_arguments))) == alone


@given(holes)
def test_a_value_is_never_changed_split_or_read_as_a_flag(hole: Hole) -> None:
    word = one(hole)
    assume(word is not None)
    assert word == hole.prefix + hole.value
    assert "\0" not in word
    assert len(word.encode()) <= MAX_WORD_BYTES
    if not hole.prefix and hole.kind not in ("flag", "free"):
        assert not word.startswith("-")


@given(arguments)
def test_a_child_gets_one_argument_per_element(given_arguments: tuple[Argument, ...]) -> None:
    kept = tuple(a for a in given_arguments if one(a) is not None)
    assume(kept)
    assert len(render(Template("t", kept))) == len(kept)


def test_a_child_reads_exactly_the_rendered_words() -> None:
    hostile = ["; rm -rf x", "$(id)", "a\nb", "--help me", "*", "\\", '"', "é\u2028", ""]
    template = Template("t", tuple(Hole("text", "t", value, "--p=") for value in hostile))
    program = "import sys, json; print(json.dumps(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, *render(template)], capture_output=True, check=True)
    assert json.loads(done.stdout) == ["--p=" + value for value in hostile]


PROGRAM = """
import json, sys
from govrun.template import *
rows = []
for name, arguments in json.loads(sys.argv[1]):
    t = Template(name, tuple(Word(*a) if len(a) == 1 else Hole(*a) for a in arguments))
    rows.append([list(render(t)), list(redacted(t)), template_digest(t),
                 [[n, c.hex()] for n, c in commitments(t, bytes(range(32)))]])
print(json.dumps(rows))
"""


def test_equal_inputs_give_equal_bytes_in_every_process() -> None:
    templates = [
        ("a.b", [["-x"], ["path", "model", "/m/x.gguf", ""], ["prompt", "prompt", "hé\n", "-p"]]),
        ("a.c", [["free", f"arg.{n}", "-w" * n, ""] for n in range(1, 20)]),
        ("a.d", [["url", "u", "http://h/x", ""], ["number", "n", "0.5", ""], ["flag", "f", "--x", ""]]),
    ]
    given_templates = json.dumps(templates)
    root = str(Path(govrun.__file__).parent.parent)
    seen = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, given_templates],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    rows = []
    for name, given_arguments in templates:
        t = Template(name, tuple(Word(*a) if len(a) == 1 else Hole(*a) for a in given_arguments))  # type: ignore[arg-type]
        committed = [[n, c.hex()] for n, c in commitments(t, SALT)]
        rows.append([list(render(t)), list(redacted(t)), template_digest(t), committed])
    assert [rows] == [json.loads(out) for out in seen]


BROKEN: list[tuple[str, Argument]] = [
    *(("template.dash", Hole(kind, "x", value)) for kind in ("prompt", "text") for value in ("-", "-x", "--x")),
    ("template.dash", Hole("number", "x", "-1")),
    ("template.nul", Word("a\0b")),
    ("template.nul", Hole("text", "x", "a\0")),
    ("template.nul", Hole("free", "x", "\0")),
    ("template.utf8", Word("\ud800")),
    ("template.utf8", Hole("path", "x", "/\udcff")),
    ("template.size", Word("x" * (MAX_WORD_BYTES + 1))),
    ("template.size", Hole("prompt", "x", "é" * (MAX_WORD_BYTES // 2 + 1))),
    ("template.size", Hole("prompt", "x", "x" * MAX_WORD_BYTES, "-p")),
    *(("template.secret", Hole("secret", "x", "hunter22", prefix)) for prefix in ("", "--key=")),
    *(
        ("template.number", Hole("number", "x", v))
        for v in ("", "1 2", "1;", "0x1", "01", "1e9", "NaN", "1\n", "\uff11")
    ),
    *(("template.flag", Hole("flag", "x", v)) for v in ("", "x", "-", "--", "--a b", "--a=b", "-1", "---a", "--a\n")),
    ("template.flag", Hole("flag", "x", "--a", "--b=")),
    *(("template.path", Hole("path", "x", v)) for v in ("", "a", "./a", "~/a", "-/a")),
    *(("template.url", Hole("url", "x", v)) for v in ("", "file:///a", "HTTP://h", "ftp://h", "-http://h")),
    ("template.free", Hole("free", "x", "a", "--p=")),
    *(("template.holeName", Hole("text", name, "a")) for name in ("", "1", "a b", "a" * 64, "a\n", "é")),
]


@pytest.mark.parametrize(("rule", "argument"), BROKEN, ids=[f"{r}-{n}" for n, (r, _) in enumerate(BROKEN)])
def test_what_cannot_be_a_word_of_a_command_refuses(refuses: Refuses, rule: str, argument: Argument) -> None:
    template = Template("t", (Word("program"), argument))
    error = refuses(REFUSED, rule, render, template)
    assert "hunter22" not in str(error)


def test_an_empty_command_refuses(refuses: Refuses) -> None:
    refuses(REFUSED, "template.empty", render, Template("t", ()))


def test_a_receipt_shows_words_numbers_flags_and_base_names() -> None:
    template = Template(
        "t",
        (
            Hole("path", "program", "/usr/bin/python3"),
            Word("-u"),
            Word("/dev/fd/64"),
            Hole("path", "model", "/srv/m/model.gguf", "--model="),
            Hole("path", "odd", "/srv/~"),
            Hole("path", "up", "/srv/.."),
            Hole("path", "root", "/"),
            Hole("number", "n", "16", "-n"),
            Hole("flag", "f", "--fast"),
            Hole("prompt", "prompt", "hello", "--prompt="),
            Hole("text", "stop", "END"),
            Hole("url", "base", "https://u:p@host/x"),
            Hole("free", "arg.1", "rm -rf /"),
            Hole("secret", "KEY", "hunter22"),
        ),
    )
    assert redacted(template) == (
        "<python3>",
        "-u",
        "<64>",
        "--model=<model.gguf>",
        "<redacted>",
        "<redacted>",
        "<redacted>",
        "-n16",
        "--fast",
        "--prompt={prompt}",
        "{stop}",
        "{base}",
        "{arg.1}",
        "{secret:KEY}",
    )


hidden = st.builds(Hole, st.sampled_from(["secret", "prompt", "text", "url", "free"]), names, st.text(), prefixes)


@given(hidden, st.text())
def test_the_redacted_form_does_not_depend_on_a_hidden_value(hole: Hole, other: str) -> None:
    changed = Hole(hole.kind, hole.name, other, hole.prefix)
    assert redacted(Template("t", (hole,))) == redacted(Template("t", (changed,)))
    assert template_digest(Template("t", (hole,))) == template_digest(Template("t", (changed,)))


def test_equal_commands_on_different_machines_have_one_digest() -> None:
    here, there = (Template("t", (Hole("path", "p", f"{root}/bin/python3"), Word("-u"))) for root in ("/usr", "/opt"))
    assert template_digest(here) == template_digest(there)
    assert template_digest(here) != template_digest(Template("u", here.arguments))
    assert template_digest(here) != template_digest(Template("t", (*here.arguments, Word("-x"))))


@given(st.lists(st.builds(Hole, kinds, names, values), max_size=6, unique_by=lambda hole: hole.name).map(tuple))
def test_commitments_are_hmacs_of_what_the_receipt_does_not_show(given_holes: tuple[Hole, ...]) -> None:
    assume(not any("\ud800" <= c <= "\udfff" for h in given_holes for c in h.value))
    assume(not any(hole.name in RECEIPT_FIELDS for hole in given_holes))
    expected = []
    for hole in given_holes:
        if hole.kind in ("text", "free", "url"):
            key = hmac.new(SALT, b"govrun-field-salt:" + hole.name.encode(), hashlib.sha256).digest()
            digest = hmac.new(key, hole.value.encode(), hashlib.sha256).hexdigest()
            expected.append((hole.name, "hmacSha256", len(hole.value.encode()), digest))
    found = [(n, c.algorithm, c.size, c.hex()) for n, c in commitments(Template("t", given_holes), SALT)]
    assert expected == found


@pytest.mark.parametrize("names", [("stop", "stop"), ("prompt",), ("request",), ("text",)])
def test_a_name_that_two_committed_values_would_share_is_refused(names: tuple[str, ...]) -> None:
    template = Template("t", tuple(Hole("text", name, "x") for name in names))
    with pytest.raises(GovrunError) as refused:
        commitments(template, SALT)
    assert (REFUSED, "template.holeName") == (refused.value.code, refused.value.rule)


def test_plain_commitments_are_sha256() -> None:
    ((name, commitment),) = commitments(Template("t", (Hole("text", "stop", "END"),)), None)
    assert (name, commitment.algorithm) == ("stop", "sha256")
    assert commitment.hex() == hashlib.sha256(b"END").hexdigest()
