"""What works, from the command line to the ledger and back."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

import govrun
from govrun.errors import ExitCode
from tests.e2e.place import Place


def test_a_free_command_runs_and_leaves_intent_and_outcome(place: Place) -> None:
    done = place.run("--", "/bin/echo", "hello")
    assert (0, b"hello\n", "") == (done.code, done.out, done.err)
    assert ["genesis", "intent", "outcome"] == place.kinds()
    intent, outcome = place.last("intent"), place.last("outcome")
    assert ["<echo>", "{arg.1}"] == intent["template"]["argv"]
    assert ("succeeded", {"code": 0, "signal": None}) == (outcome["status"], outcome["exit"])
    assert intent["invocationId"] == outcome["invocationId"]
    assert [] == place.leftovers()


def test_a_bare_program_name_is_found_without_the_callers_path(place: Place) -> None:
    planted = place.work / "echo"
    planted.write_text("#!/bin/sh\necho planted\n")
    planted.chmod(0o755)
    done = place.run("--", "echo", "hello", env={"PATH": f"{place.work}:{os.environ['PATH']}"})
    assert (0, b"hello\n") == (done.code, done.out)


def test_a_task_of_the_policy_runs_with_its_files(place: Place) -> None:
    place.policy('[backends.process]\n[tasks.copy]\nbackend = "process"\nargv = ["cp", "{input.1}", "{output.1}"]\n')
    (place.work / "in.txt").write_bytes(b"content\n")
    done = place.run("--task", "copy", "--input", "in.txt", "--output", "out.txt")
    assert (0, "") == (done.code, done.err)
    assert b"content\n" == (place.work / "out.txt").read_bytes()
    sha256 = hashlib.sha256(b"content\n").hexdigest()
    intent, outcome = place.last("intent"), place.last("outcome")
    assert ["<cp>", "<in.txt>", "<out.txt>"] == intent["template"]["argv"]
    assert [{"name": "in.txt", "size": 8, "sha256": sha256}] == intent["inputs"]
    assert [{"name": "out.txt", "size": 8, "sha256": sha256}] == outcome["outputs"]


def test_a_successful_outcome_names_its_outputs_as_subject(place: Place) -> None:
    done = place.run("--output", "out.txt", "--", "/bin/sh", "-c", "echo x >out.txt")
    assert 0 == done.code, done.err
    shown = place.go("ledger", "show", "2").json
    assert [{"name": "out.txt", "digest": {"sha256": hashlib.sha256(b"x\n").hexdigest()}}] == shown["subject"]


def test_a_changed_policy_is_adopted_with_the_first_intent_under_it(place: Place) -> None:
    place.run("--", "/bin/true")
    place.policy('[backends.process]\nfreeArgv = true\nversion = "0.1.0"\n')
    for _ in range(2):
        assert 0 == place.run("--", "/bin/true").code
    assert ["genesis", *("intent", "outcome"), "policyAdopted", *("intent", "outcome") * 2] == place.kinds()
    digest = hashlib.sha256((place.home / "policy.toml").read_bytes()).hexdigest()
    assert {"sha256": digest} == place.last("policyAdopted")["policy"] == place.last("intent")["policy"]
    assert (place.home / "policies" / f"{digest}.toml").read_bytes() == (place.home / "policy.toml").read_bytes()
    assert [] == list(place.verify().findings)


def test_an_exit_code_that_is_declared_as_success_is_one(place: Place) -> None:
    done = place.run("--ok-exit", "0,3", "--json", "--", "/bin/sh", "-c", "echo x; exit 3")
    assert (0, {"exitCode": 3, "signal": None}) == (done.code, done.json["child"])
    assert ("succeeded", [0, 3]) == (place.last("outcome")["status"], place.last("intent")["okExit"])


def test_json_holds_the_text_the_entries_and_the_childs_exit_code(place: Place) -> None:
    done = place.run("--json", "--", "/bin/echo", "hello")
    assert {
        "exit": {"code": 0, "name": "success"},
        "child": {"exitCode": 0, "signal": None},
        "text": "hello\n",
        "error": None,
        "entries": {"intent": 1, "outcome": 2},
        "repeated": False,
    }.items() <= done.json.items()


def test_json_holds_text_that_is_not_utf8_in_base64(place: Place) -> None:
    done = place.run("--json", "--", "/usr/bin/printf", r"\377")
    assert (None, "/w==") == (done.json["text"], done.json["textBase64"])


def test_json_of_a_failure_holds_error_and_exit_code(place: Place) -> None:
    done = place.run("--json", "--", "/bin/sh", "-c", "exit 7")
    assert (20, 7, "process.exit") == (done.code, done.json["child"]["exitCode"], done.json["error"]["rule"])
    assert "it ran; outcome recorded as entry 2" == done.json["error"]["effect"]


def test_a_childs_stderr_is_passed_through(place: Place) -> None:
    done = place.run("--", "/bin/sh", "-c", "echo out; echo err >&2")
    assert (0, b"out\n", "err\n") == (done.code, done.out, done.err)


@pytest.mark.parametrize("way", ["option", "file", "stdin"])
def test_a_prompt_comes_from_option_file_or_stdin(place: Place, way: str) -> None:
    place.with_plugins()
    place.policy('[backends.echoing]\ndistribution = "govrun-echoing"\n')
    (place.work / "prompt.txt").write_bytes("grüße\n".encode())
    words = {
        "option": ("--prompt", "grüße\n"),
        "file": ("--prompt-file", "prompt.txt"),
        "stdin": ("--prompt-file", "-"),
    }[way]
    done = place.go("run", "--backend", "echoing", *words, stdin="grüße\n".encode())
    assert (0, "grüße\n".encode()) == (done.code, done.out), done.err
    assert len("grüße\n".encode()) == place.last("intent")["prompt"]["size"]


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_request_document_is_the_whole_request(place: Place, way: str) -> None:
    document = {
        "backend": "process",
        "argv": ["/bin/sh", "-c", "exit 4"],
        "okExit": [4],
        "agent": "bot",
        "wallMs": 5000,
    }
    (place.work / "request.json").write_text(json.dumps(document))
    name = "request.json" if way == "file" else "-"
    done = place.go("run", "--request", name, stdin=json.dumps(document).encode())
    assert 0 == done.code, done.err
    intent = place.last("intent")
    assert ("bot", [4], 5000) == (intent["agent"], intent["okExit"], intent["limits"]["wallMs"])


def test_the_python_interface_does_what_the_command_line_does(place: Place) -> None:
    result = place.call(argv=("/bin/echo", "hello"), agent="bot")
    assert (ExitCode.SUCCESS, b"hello\n", 1, 2) == (
        result.exit,
        result.text,
        result.intent_index,
        result.outcome_index,
    )
    failed = place.call(argv=("/bin/sh", "-c", "exit 5"))
    assert failed.error is not None
    assert (ExitCode.COMMAND_FAILED, None, "it ran; outcome recorded as entry 4") == (
        failed.exit,
        failed.text,
        failed.error.effect,
    )
    with pytest.raises(govrun.GovrunError) as refused:
        place.call(backend="nosuch")
    assert (12, "registry.unknown") == (refused.value.code, refused.value.rule)
    assert "nothing was executed; refusal recorded as entry 5" == refused.value.effect


def test_a_file_in_a_relative_directory_is_what_the_python_interface_means(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.root)
    assert str(place.work).encode() + b"\n" == place.call(argv=("/bin/pwd",), cwd="work").text


def test_plain_digests_are_sha256_of_the_bytes(place: Place) -> None:
    place.config('digests = "plain"\n')
    place.run("--", "/bin/echo", "hello")
    commitment = {"algorithm": "sha256", "digest": hashlib.sha256(b"hello\n").hexdigest(), "size": 6}
    assert commitment == place.last("outcome")["byproducts"]["stdout"]["commitment"]


def test_the_home_is_found_from_a_directory_below(place: Place) -> None:
    below = place.work / "a" / "b"
    below.mkdir(parents=True)
    assert 0 == place.run("--", "/bin/true", cwd=below).code


@pytest.mark.parametrize("way", ["option", "relative", "environment"])
def test_a_home_can_be_named(place: Place, tmp_path: Path, way: str) -> None:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    os.rename(place.home, elsewhere / "moved")
    words = {"option": ("--home", str(elsewhere / "moved")), "relative": ("--home", "elsewhere/moved")}.get(way, ())
    env = {"GOVRUN_HOME": str(elsewhere / "moved")} if way == "environment" else {}
    cwd = place.root if way == "relative" else place.work
    done = place.run(*words, "--json", "--", "/bin/true", env=env, cwd=cwd)
    assert (0, {"intent": 1, "outcome": 2}) == (done.code, done.json["entries"])


def test_nothing_of_the_operators_environment_reaches_the_child(place: Place) -> None:
    done = place.run("--", "/usr/bin/env", env={"MY_API_TOKEN": "hunter2hunter2", "LLAMA_ARG_X": "1"})
    names = {line.partition("=")[0] for line in done.out.decode().splitlines()}
    assert {"LANG", "PATH"} <= names <= {"LANG", "PATH", "PWD"}
