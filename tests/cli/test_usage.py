"""Wrong command lines: exit code 2, a word on what is wrong, nothing on stdout, nothing executed or recorded."""

from __future__ import annotations

import pytest

from tests.e2e.place import Place, assert_untouched


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rum",), "No such command 'rum'. Did you mean 'run'?"),
        (("frobnicate",), "No such command 'frobnicate'."),
        (("--force",), "No such option"),
        (("run", "--force"), "No such option"),
        (("run", "--skip-preflight", "--", "true"), "No such option"),
        (("run", "--insecure", "--", "true"), "No such option"),
        (("run", "--backend"), "requires an argument"),
        (("run", "--timeout", "0", "--", "true"), "--timeout"),
        (("run", "--timeout", "-1", "--", "true"), "--timeout"),
        (("run", "--timeout", "nan", "--", "true"), "--timeout"),
        (("run", "--timeout", "inf", "--", "true"), "--timeout"),
        (("run", "--timeout", "1e300", "--", "true"), "--timeout"),
        (("run", "--timeout", "x", "--", "true"), "--timeout"),
        (("run", "--ok-exit", "", "--", "true"), "expected numbers such as 0,1"),
        (("run", "--ok-exit", "0,", "--", "true"), "expected numbers such as 0,1"),
        (("run", "--ok-exit", "-1", "--", "true"), "expected numbers such as 0,1"),
        (("run", "--ok-exit", "1_0", "--", "true"), "expected numbers such as 0,1"),
        (("run", "--ok-exit", "٣", "--", "true"), "expected numbers such as 0,1"),
        (("run", "--param", "x", "--", "true"), "expected NAME=VALUE"),
        (("run", "--param", "=x", "--", "true"), "expected NAME=VALUE"),
        (("run", "--prompt", "x", "--prompt-file", "y"), "exclude each other"),
        (("run", "--request", "r.json", "--", "true"), "ARGV does not go with it"),
        (("run", "--request", "r.json", "--prompt", "x"), "--prompt does not go with it"),
        (("run", "--request", "r.json", "--request-id", "x"), "--request-id does not go with it"),
        (("run", "--request", "r.json", "--ok-exit", "0"), "--ok-exit does not go with it"),
        (("ledger", "show"), "Missing argument"),
        (("ledger", "show", "-1"), "-1"),
        (("ledger", "show", "x"), "x"),
        (("ledger", "list", "--last", "0"), "0"),
        (("ledger", "list", "--kind", "x"), "x"),
        (("verify", "--require", "x"), "x"),
        (("verify", "--at", "yesterday"), "--at"),
        (("verify", "--key", "x", "--trust", "y"), "exclude each other"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(place: Place, words: tuple[str, ...], said: str) -> None:
    backend = ("--backend", "process") if words[:1] == ("run",) and "--request" not in words else ()
    done = place.go(*words[:1], *(backend if "--backend" not in words else ()), *words[1:])
    assert (2, b"") == (done.code, done.out), done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert_untouched(place, 1)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("run", "--", "/bin/true"), "request.backend"),
        (("run", "--backend", "process", "--prompt-file", "missing"), "request.promptFile"),
        (("run", "--backend", "process", "--prompt-file", "."), "request.promptFile"),
        (("run", "--request", "missing"), "request.file"),
        (("run", "--backend", "process", "--ok-exit", "256", "--", "/bin/true"), "request.okExit"),
        (("run", "--backend", "process", "--param", "a=1", "--", "/bin/true"), "parameter.unknown"),
        (("run", "--backend", "process", "--param", "a=1", "--param", "a=2", "--", "x"), "request.parameters"),
        (("run", "--backend", "process", "--input", "a", "--input", "a", "--", "x"), "request.files"),
        (("run", "--backend", "process", "--agent", "a b", "--", "x"), "request.agent"),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_recorded(place: Place, words: tuple[str, ...], rule: str) -> None:
    done = place.go(*words)
    assert 10 == done.code, done.err
    assert f"[{rule}]" in done.err
    assert "nothing was executed; refusal recorded as entry 1" in done.err
    assert (2, rule) == (place.size, place.last("denied")["rule"])


def test_json_is_asked_for_before_the_childs_words_only(place: Place) -> None:
    done = place.run("--input", "missing", "--", "/bin/echo", "--json")
    assert (13, b"") == (done.code, done.out)
    done = place.run("--json", "--input", "missing", "--", "/bin/echo")
    assert (13, "process.inputs") == (done.code, done.json["error"]["rule"])
    assert done.json["error"]["effect"].startswith("nothing was executed; refusal recorded as entry")
