"""Nothing is allowed by default, by accident or by a hole in the evidence; and one policy means one thing."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.backends.interface import Dependency
from govrun.digest import FileDigest, sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.policy import MAX_BYTES, Policy, evaluate, parse_policy, parse_toml
from govrun.predicates import FileUse, Provenance
from govrun.receipt import Position, bounded, format_statement, parse_statement
from govrun.request import Parameter, Request
from govrun.template import Argument, Hole, Template, Word

Refuses = Callable[..., GovrunError]
Build = Callable[..., Any]
DENIED = ExitCode.POLICY_DENIED
MODEL = "cd" * 32

STRICT = f"""
format = 1
agents = ["ci-bot"]
requireTask = true
requireAgent = true
containment = "pidNamespace"

[backends.bitnet]
version = "0.1.0"
models = ["{MODEL}"]
determinism = "deterministic"
maxPromptBytes = 5
pins = {{ "python3" = "{"ef" * 32}" }}
parameters.temp = {{ maximum = "0.5" }}
parameters.n-predict = {{ minimum = 1, maximum = 16 }}

[tasks.scan]
backend = "bitnet"
parameters = {{ temp = "0.00" }}

[limits]
wallMs = 60000
cpuMs = 50000
memoryBytes = 1073741824
stdoutBytes = 1048576
stderrBytes = 65536
"""


def policy(text: str = STRICT) -> Policy:
    return parse_policy(text.encode())


def rules(given_policy: Policy, intent: dict[str, Any]) -> list[str]:
    return sorted({violation.rule for violation in evaluate(given_policy, intent).violations})


# ---- Reading.


def test_a_policy_is_known_by_the_digest_of_its_exact_bytes() -> None:
    data = STRICT.encode()
    assert parse_policy(data).digest == sha256_hex(data)
    assert parse_policy(data + b"\n").digest != sha256_hex(data)


def test_the_smallest_policy_names_one_backend() -> None:
    smallest = policy("format = 1\n[backends.bitnet]\n")
    assert smallest.backend("bitnet") == {}
    assert smallest.backend("process") is None
    assert smallest.task(None) is smallest.task("scan") is smallest.containment is None
    assert smallest.limits == {}


MALFORMED: list[tuple[str, bytes]] = [
    *(("policy.empty", data) for data in (b"", b"\n", b"# nothing\n")),
    ("policy.size", b"#" * (MAX_BYTES + 1)),
    ("policy.utf8", b"format = 1\n# \xff\n"),
    ("policy.utf8", STRICT.encode("utf-16")),
    ("policy.toml", b"format = "),
    ("policy.toml", b"format = 1\nformat = 1\n"),
    ("policy.toml", b"format = 1\n[backends.a]\n[backends.a]\n"),
    ("policy.toml", b'{"format": 1}'),
    ("policy.toml", b"format = 1\r[backends.a]"),
    ("policy.toml", b"\xef\xbb\xbfformat = 1\n[backends.a]\n"),
    ("policy.toml", b"format = " + b"9" * 5000),
    ("policy.depth", b"a = " + b"[" * 5000 + b"]" * 5000),
    ("policy.depth", b"a." * 100_000 + b"b = 1"),
    ("policy.depth", b"[a" + b" . 'b'" * 40_000 + b"]"),
    ("policy.depth", b'[["a"' + b'."b"' * 40_000 + b"]]"),
    ("policy.bounds", b'format = 1\n[backends.a]\nparameters.t = { minimum = "low" }\n'),
    ("policy.bounds", b'format = 1\n[backends.a]\nparameters.t = { maximum = "NaN" }\n'),
    ("policy.bounds", b'format = 1\n[backends.a]\nparameters.t = { minimum = "-Infinity" }\n'),
    ("policy.bounds", b"format = 1\n[backends.a]\nparameters.t = { minimum = 2, maximum = 1 }\n"),
]


@pytest.mark.parametrize(("rule", "data"), MALFORMED, ids=[f"{r}-{n}" for n, (r, _) in enumerate(MALFORMED)])
def test_what_is_not_a_policy_is_refused(refuses: Refuses, rule: str, data: bytes) -> None:
    begun = time.monotonic()
    refuses(DENIED, rule, parse_policy, data)
    assert time.monotonic() - begun < 5


B = "format = 1\n[backends.a]\n"
MISFITS = [
    "format = 1\n",
    "format = 1\n[backends]\n",
    "[backends.a]\n",
    "format = 2\n[backends.a]\n",
    'format = "1"\n[backends.a]\n',
    "format = true\n[backends.a]\n",
    "format = 1\nbackends = []\n",
    "format = 1\nbackends = 1979-05-27\n",
    "format = 1\n[backends.A]\n",
    "format = 1\n[backends.'a b']\n",
    "unknown = 1\n" + B,
    "agents = []\n" + B,
    'agents = "ci"\n' + B,
    'agents = ["a b"]\n' + B,
    "agents = [1979-05-27]\n" + B,
    "requireTask = 1\n" + B,
    'requireAgent = "yes"\n' + B,
    'containment = "none"\n' + B,
    B + "unknown = 1\n",
    B + "distribution = 1\n",
    B + "version = 1.0\n",
    B + 'freeArgv = "true"\n',
    B + "models = []\n",
    B + 'models = ["ab"]\n',
    B + f'models = ["{"AB" * 32}"]\n',
    B + f'models = ["{MODEL}", "{MODEL}"]\n',
    B + f'models = "{MODEL}"\n',
    B + 'pins = { x = "ab" }\n',
    B + "pins = []\n",
    B + 'determinism = "maybe"\n',
    B + "maxPromptBytes = -1\n",
    B + "maxPromptBytes = 1048577\n",
    B + "maxPromptBytes = 1.5\n",
    B + "parameters.t = {}\n",
    B + "parameters.t = 5\n",
    B + "parameters.t = { least = 1 }\n",
    B + "parameters.t = { minimum = 0.5 }\n",
    B + "parameters.t = { choices = [] }\n",
    B + "parameters.t = { choices = [1] }\n",
    B + "[tasks.t]\n",
    B + '[tasks.t]\nbackend = "A"\n',
    B + '[tasks.t]\nbackend = "a"\nunknown = 1\n',
    B + '[tasks.t]\nbackend = "a"\nargv = []\n',
    B + '[tasks.t]\nbackend = "a"\nargv = [1]\n',
    B + '[tasks.t]\nbackend = "a"\nparameters = { t = true }\n',
    B + '[tasks.T]\nbackend = "a"\n',
    B + "[limits]\nwallMs = 0\n",
    B + "[limits]\nwallMs = 1e3\n",
    "format = 1.0\n[backends.a]\n",
    B + "maxPromptBytes = 5.0\n",
    B + "[tasks.t]\nbackend = 'a'\nparameters = { t = 1.0 }\n",
    B + "[limits]\nwallMs = 99999999999999999999999999\n",
    B + "[limits]\nwallS = 1\n",
    B + "[limits]\nmemoryBytes = inf\n",
]


@pytest.mark.parametrize("text", MISFITS, ids=range(len(MISFITS)))
def test_an_unknown_key_or_a_wrong_type_refuses_the_whole_policy(refuses: Refuses, text: str) -> None:
    parse_policy(B.encode())
    refuses(DENIED, "schema.policy-v1", parse_policy, text.encode())


def test_a_policy_cut_anywhere_is_refused_or_is_another_policy(attempt: Build) -> None:
    # A cut at the end of a line is a policy of its own: its digest is another, and it never allows by an absence.
    data = STRICT.strip().encode()
    for at in range(len(data)):
        cut = attempt(DENIED, parse_policy, data[:at])
        if not isinstance(cut, GovrunError):
            assert cut.digest != parse_policy(data).digest
            assert "bitnet" in cut.document["backends"]


@given(st.binary(max_size=60))
def test_only_our_errors_come_out_of_any_bytes(attempt: Build, data: bytes) -> None:
    attempt(DENIED, parse_policy, data)


def test_reading_toml_tells_the_code_and_the_rule_of_its_caller(refuses: Refuses) -> None:
    refuses(ExitCode.USAGE, "x.toml", parse_toml, b"=", "f.toml", ExitCode.USAGE, "x")
    refuses(ExitCode.USAGE, "x.depth", parse_toml, b"a." * 40 + b"b=1", "f.toml", ExitCode.USAGE, "x")
    assert parse_toml(b"a.b.c = 'a.b.c.d.e.f. g'", "f", ExitCode.USAGE, "x") == {"a": {"b": {"c": "a.b.c.d.e.f. g"}}}


# ---- Judging: a valid world, and one thing broken in it.


def test_the_strictest_policy_allows_what_meets_it(an_intent: Build) -> None:
    decision = evaluate(policy(), an_intent())
    assert decision.violations == ()
    assert decision.is_allowed
    assert decision.policy == policy().digest


def without(member: str, **change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda intent: intent[member].update(change)


BREAKS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("policy.backend", without("backend", name="process")),
    ("policy.distribution", without("backend", distribution="evil")),
    ("policy.version", without("backend", version="0.1.1")),
    ("policy.task", lambda i: i.update(task=None)),
    ("policy.task", lambda i: i.update(task="other")),
    ("policy.taskParameter", lambda i: i["parameters"][1].update(value="0.1")),
    ("policy.taskParameter", lambda i: i["parameters"].pop(1)),
    ("policy.agent", lambda i: i.update(agent=None)),
    ("policy.agent", lambda i: i.update(agent="other")),
    ("policy.parameter", lambda i: i["parameters"][0].update(value="17")),
    ("policy.parameter", lambda i: i["parameters"][0].update(value="0")),
    ("policy.parameter", lambda i: i["parameters"][0].update(value=None)),
    *(
        ("policy.parameter", lambda i, v=v: i["parameters"][0].update(value=v))
        for v in ("", "NaN", "Infinity", "1e1", "0x5", "<redacted>", "1_0", "\u0661", "5\n")
    ),
    ("policy.parameter", lambda i: i["parameters"].pop(0)),
    ("policy.parameter", lambda i: i.update(parameters=[])),
    ("policy.model", lambda i: i["resolvedDependencies"][1].update(sha256="00" * 32)),
    ("policy.model", lambda i: i["resolvedDependencies"][1].update(role="data")),
    ("policy.model", lambda i: i["resolvedDependencies"].append({**i["resolvedDependencies"][1], "sha256": "0" * 64})),
    ("policy.pin", lambda i: i["resolvedDependencies"][0].update(sha256="00" * 32)),
    ("policy.pin", lambda i: i["resolvedDependencies"][0].update(name="python3.11")),
    ("policy.pin", lambda i: i["resolvedDependencies"].append({**i["resolvedDependencies"][0], "sha256": "0" * 64})),
    ("policy.model", lambda i: i.update(resolvedDependencies=[])),
    ("policy.pin", lambda i: i.update(resolvedDependencies=[])),
    ("policy.model", lambda i: i.update(resolvedDependencies={"count": 2, "sha256": "0" * 64})),
    ("policy.pin", lambda i: i.update(resolvedDependencies={"count": 2, "sha256": "0" * 64})),
    *(
        ("policy.determinism", without("determinism", level=level))
        for level in ("seeded", "notReproducible", "notApplicable")
    ),
    ("policy.promptSize", without("prompt", size=6)),
    *(("policy.limit", without("limits", **{name: 2**53 - 1})) for name in ("wallMs", "cpuMs", "memoryBytes")),
    *(("policy.limit", without("limits", **{name: 2**53 - 1})) for name in ("stdoutBytes", "stderrBytes")),
    *(("policy.limit", without("limits", **{name: None})) for name in ("cpuMs", "memoryBytes")),
    ("policy.containment", without("isolation", level="group")),
]


@pytest.mark.parametrize(("rule", "broken"), BREAKS, ids=[f"{r}-{n}" for n, (r, _) in enumerate(BREAKS)])
def test_one_thing_broken_is_one_violation(
    an_intent: Build, rule: str, broken: Callable[[dict[str, Any]], object]
) -> None:
    intent = copy.deepcopy(an_intent())
    broken(intent)
    decision = evaluate(policy(), intent)
    assert not decision.is_allowed
    assert rule in [v.rule for v in decision.violations]
    assert all(v.found is not None and v.expected and v.what for v in decision.violations)


def test_every_rule_that_a_policy_leaves_out_allows(an_intent: Build) -> None:
    loose = policy("format = 1\n[backends.bitnet]\n[tasks.scan]\nbackend = 'bitnet'\n")
    for rule, broken in BREAKS:
        intent = copy.deepcopy(an_intent())
        broken(intent)
        if rule not in ("policy.backend", "policy.distribution") and intent["task"] != "other":
            assert evaluate(loose, intent).is_allowed, rule


def test_no_evidence_that_is_taken_away_makes_a_refusal_an_allowance(an_intent: Build) -> None:
    for _, broken in BREAKS:
        for member in an_intent():
            intent = copy.deepcopy(an_intent())
            broken(intent)
            intent.pop(member, None)
            try:
                decision = evaluate(policy(), intent)
            except KeyError:
                continue
            assert not decision.is_allowed or member in ("parameters", "task")


def test_a_decision_is_the_same_for_the_draft_and_for_the_entry(an_intent: Build) -> None:
    from govrun.receipt import Draft

    for _, broken in [("", lambda i: None), *BREAKS]:
        intent = copy.deepcopy(an_intent())
        broken(intent)
        before = copy.deepcopy(intent)
        drafted = evaluate(policy(), intent)
        placed = {**intent, "ledger": {"origin": "o", "index": 1, "previous": "0" * 64}}
        assert drafted == evaluate(policy(), placed) == evaluate(policy(), intent)
        assert intent == before
    payload = format_statement(Draft("intent", an_intent()), Position("o", 1, "0" * 64))
    assert evaluate(policy(), parse_statement(payload).predicate).is_allowed


def test_violations_come_in_the_order_of_the_rules(an_intent: Build) -> None:
    intent = an_intent(request=Request("bitnet", prompt=b"too long"), isolation={"level": "group", "required": False})
    found = [v.rule for v in evaluate(policy(), intent).violations]
    assert found == ["policy.task", "policy.agent", "policy.promptSize", "policy.containment"]


def test_any_agent_will_do_where_only_some_name_is_required(an_intent: Build) -> None:
    some = policy("format = 1\nrequireAgent = true\n[backends.bitnet]\n")
    nobody = {**an_intent(), "task": None, "agent": None}
    assert rules(some, nobody) == ["policy.agent"]
    assert rules(some, {**nobody, "agent": "anybody"}) == []


def test_a_seeded_run_meets_seeded_and_no_prompt_meets_any_size(an_intent: Build) -> None:
    text = "format = 1\n[backends.bitnet]\ndeterminism = 'seeded'\nmaxPromptBytes = 0\n"
    intent = {**an_intent(), "task": None, "prompt": None}
    for level, wanted in (("deterministic", []), ("seeded", []), ("notReproducible", ["policy.determinism"])):
        assert rules(policy(text), {**intent, "determinism": {"level": level}}) == wanted


def test_choices_are_exact(an_intent: Build) -> None:
    text = "format = 1\n[backends.bitnet]\nparameters.mode = { choices = ['fast', 'slow'] }\n"
    intent = {**an_intent(), "task": None}
    for value, wanted in (("fast", []), ("Fast", ["policy.parameter"]), ("", ["policy.parameter"])):
        parameters = [{"name": "mode", "value": value, "origin": "option"}]
        assert rules(policy(text), {**intent, "parameters": parameters}) == wanted


def test_a_task_for_another_backend_is_refused(an_intent: Build) -> None:
    text = "format = 1\n[backends.bitnet]\n[backends.other]\n[tasks.scan]\nbackend = 'other'\n"
    assert rules(policy(text), an_intent()) == ["policy.task"]


@pytest.mark.parametrize(
    ("wanted", "value", "found"),
    [
        ("'0.70'", "0.7", []),
        ("'0.7'", "0.7", []),
        ("1", "1", []),
        ("'1.0'", "1", []),
        ("'fast'", "fast", []),
        ("'0.7'", "0.71", ["policy.taskParameter"]),
        ("'fast'", "Fast", ["policy.taskParameter"]),
        ("1", None, ["policy.taskParameter"]),
    ],
)
def test_a_task_sets_its_parameters_by_value(
    an_intent: Build, wanted: str, value: str | None, found: list[str]
) -> None:
    text = f"format = 1\n[backends.bitnet]\n[tasks.scan]\nbackend = 'bitnet'\nparameters = {{ p = {wanted} }}\n"
    assert rules(policy(text), an_intent(parameters=(Parameter("p", value, "policy"),))) == found


# ---- Commands of the process backend.

TASKS = """
format = 1
[backends.process]
[tasks.lint]
backend = "process"
argv = ["/usr/bin/lint", "--config", "/etc/lint/strict.toml", "{input.1}", "-o", "{output.2}"]
[tasks.bare]
backend = "process"
"""
INPUTS = (FileUse("src/a.py", "/w/src/a.py", FileDigest(1, MODEL)),)
OUTPUTS = ("x.txt", "out/y.txt")


def lint(*replaced: tuple[int, Argument]) -> Template:
    words: list[Argument] = [
        Hole("path", "program", "/usr/bin/lint"),
        Word("--config"),
        Hole("path", "word.2", "/etc/lint/strict.toml"),
        Hole("path", "input.1", "/w/src/a.py"),
        Word("-o"),
        Hole("path", "output.2", "/w/out/y.txt"),
    ]
    for at, word in replaced:
        words[at] = word
    return Template("process.lint", tuple(words))


def process(an_intent: Build, **changes: Any) -> dict[str, Any]:
    outputs = changes.pop("outputs", OUTPUTS)
    given: dict[str, Any] = {
        "request": Request("process", task=changes.pop("task", "lint"), outputs=outputs, cwd="/w"),
        "provenance": Provenance("process", "govrun", "0.1.0", 1),
        "inputs": INPUTS,
        "template": lint(),
        "dependencies": ((Dependency("binary", Path("/usr/bin/lint")), FileDigest(1, MODEL)),),
    }
    intent: dict[str, Any] = an_intent(**{**given, **changes})
    return intent


def test_a_command_of_a_task_is_allowed_word_by_word(an_intent: Build) -> None:
    assert rules(policy(TASKS), process(an_intent)) == []


@pytest.mark.parametrize(
    "template",
    [
        lint((0, Hole("path", "program", "/usr/bin/other"))),
        lint((1, Word("--other"))),
        lint((2, Hole("path", "word.2", "/etc/lint/lax.toml"))),
        lint((3, Hole("path", "input.1", "/w/src/b.py"))),
        lint((3, Hole("free", "input.1", "anything"))),
        lint((3, Word("{input.1}"))),
        lint((5, Hole("path", "output.1", "/w/x.txt"))),
        Template("process.lint", lint().arguments[:-1]),
        Template("process.lint", (*lint().arguments, Word("--fix"))),
        Template("process.lint", lint().arguments[:1]),
    ],
)
def test_a_command_with_one_other_word_is_refused(an_intent: Build, template: Template) -> None:
    assert rules(policy(TASKS), process(an_intent, template=template)) == ["policy.argv"]


def test_a_task_whose_files_are_not_declared_is_refused(an_intent: Build) -> None:
    assert rules(policy(TASKS), process(an_intent, inputs=())) == ["policy.argv"]
    assert rules(policy(TASKS), process(an_intent, outputs=OUTPUTS[:1])) == ["policy.argv"]


def test_files_that_are_only_summarised_satisfy_no_hole(an_intent: Build) -> None:
    hollow = lint((3, Word("{input.1}")), (5, Word("{output.2}")))
    summary = bounded(["x" * 5000])
    for template in (lint(), hollow):
        for member in ("inputs", "outputs"):
            intent = {**process(an_intent, template=template), member: summary}
            assert "policy.argv" in rules(policy(TASKS), intent)


def test_a_command_that_is_only_summarised_is_refused(an_intent: Build) -> None:
    intent = process(an_intent)
    intent["template"]["argv"] = {"count": 6, "sha256": "0" * 64}
    assert rules(policy(TASKS), intent) == ["policy.argv"]
    intent["template"]["argv"] = []
    assert rules(policy(TASKS), intent) == ["policy.argv"]


@pytest.mark.parametrize("task", [None, "bare"])
@pytest.mark.parametrize("name", ["process.free", "process.lint", "process", "other.thing"])
def test_a_callers_own_command_needs_leave_whatever_its_template_is_called(
    an_intent: Build, task: str | None, name: str
) -> None:
    template = Template(name, (Hole("path", "program", "/usr/bin/lint"), Hole("free", "arg.1", "x")))
    intent = process(an_intent, task=task, template=template)
    assert rules(policy(TASKS), intent) == ["policy.freeArgv"]
    leave = TASKS.replace("[backends.process]", "[backends.process]\nfreeArgv = true")
    assert rules(policy(leave), intent) == []


def test_a_free_command_of_another_backend_needs_leave_too(an_intent: Build) -> None:
    text = "format = 1\n[backends.bitnet]\n"
    intent = {**an_intent(template=Template("process.free", (Word("x"),))), "task": None}
    assert rules(policy(text), intent) == ["policy.freeArgv"]


def test_leave_for_free_commands_does_not_loosen_a_task(an_intent: Build) -> None:
    leave = TASKS.replace("[backends.process]", "[backends.process]\nfreeArgv = true")
    assert rules(policy(leave), process(an_intent, template=lint((1, Word("--other"))))) == ["policy.argv"]


def test_files_with_odd_names_still_match_their_holes(an_intent: Build) -> None:
    odd = lint((3, Hole("path", "input.1", "/w/~odd")))
    inputs = (FileUse("<redacted>", "/w/~odd", FileDigest(1, MODEL)),)
    assert rules(policy(TASKS), process(an_intent, template=odd, inputs=inputs)) == []


def test_a_pin_holds_without_a_list_of_models(an_intent: Build) -> None:
    intent = {**an_intent(), "task": None}
    for digest, wanted in (("ef" * 32, []), ("00" * 32, ["policy.pin"])):
        text = f"format = 1\n[backends.bitnet]\npins = {{ python3 = '{digest}' }}\n"
        assert rules(policy(text), intent) == wanted
