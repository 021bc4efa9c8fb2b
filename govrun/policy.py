"""What may run: one language that judges twice, before the run and at audit.

`evaluate` sees only what an intent shows. An empty policy, an unknown key or a missing fact refuses.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import attrs

from govrun import schemas
from govrun.canonical import JsonObject
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.redact import base_name, file_word
from govrun.request import plain_decimal

MAX_BYTES: Final = 256 * 1024
DEFAULT_DISTRIBUTION: Final = "govrun"

# A dotted key of n parts costs tomllib n * n in time and memory: a quarter of a megabyte of `a.a.a.` is all of it.
_DEEP_KEY = re.compile(rb"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")
_NUMBER = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,9})?")
_FILE_HOLE = re.compile(r"\{(input|output)\.([1-9][0-9]{0,2})\}")


@frozen
class Policy:
    """A policy that was read and fits its schema; digest is the sha256 of the file's exact bytes."""

    digest: str
    document: JsonObject = attrs.field(repr=False, eq=False)

    def backend(self, name: str) -> JsonObject | None:
        """The rules for one backend, None when it is not allowed at all."""
        rules: JsonObject | None = self.document["backends"].get(name)
        return rules

    def task(self, name: str | None) -> JsonObject | None:
        """The rules for one task, None when there is no such task."""
        rules: JsonObject | None = self.document.get("tasks", {}).get(name)
        return rules

    @property
    def limits(self) -> JsonObject:
        limits: JsonObject = self.document.get("limits", {})
        return limits

    @property
    def containment(self) -> str | None:
        return self.document.get("containment")


@frozen
class Violation:
    """One thing about an intent that the policy does not allow."""

    rule: str
    what: str
    found: str
    expected: str


@frozen
class Decision:
    """What a policy says of one intent; allowed only when there is no violation."""

    policy: str
    violations: tuple[Violation, ...]

    @property
    def is_allowed(self) -> bool:
        return not self.violations


def parse_policy(data: bytes, name: str = "policy.toml") -> Policy:
    """Read a policy from TOML bytes; raises GovrunError (policy-denied) for anything that is not a whole policy."""
    document = parse_toml(data, name, ExitCode.POLICY_DENIED, "policy")
    if not document:
        raise GovrunError(
            ExitCode.POLICY_DENIED,
            "policy.empty",
            f"{name} is empty",
            found="no rules",
            expected="format = 1 and at least one [backends.NAME]",
            fix="write what may run; nothing is allowed by default",
        )
    schemas.check(document, "policy.v1", None, ExitCode.POLICY_DENIED, name)
    for backend, rules in sorted(document["backends"].items()):
        for parameter, rule in sorted(rules.get("parameters", {}).items()):
            _check_bounds(f"backends.{backend}.parameters.{parameter}", rule)
    return Policy(sha256_hex(data), document)


def _check_bounds(place: str, rule: JsonObject) -> None:
    bounds = [str(rule[end]) for end in ("minimum", "maximum") if end in rule]
    if any(_NUMBER.fullmatch(bound) is None for bound in bounds):
        raise GovrunError(
            ExitCode.POLICY_DENIED,
            "policy.bounds",
            f"a bound of {place} is not a number",
            found=" and ".join(bounds),
            expected="plain decimals such as 0.7",
        )
    if len(bounds) == 2 and Decimal(bounds[0]) > Decimal(bounds[1]):
        raise GovrunError(
            ExitCode.POLICY_DENIED,
            "policy.bounds",
            f"no value fits between the bounds of {place}",
            found=" to ".join(bounds),
            expected="a minimum that is not above the maximum",
        )


def parse_toml(data: bytes, name: str, code: ExitCode, rule: str) -> JsonObject:
    """Read bounded TOML bytes, or raise GovrunError with the given code and a rule under the given name."""
    if len(data) > MAX_BYTES:
        raise GovrunError(
            code, f"{rule}.size", f"{name} is too large", found=f"{len(data)} bytes", expected=f"at most {MAX_BYTES}"
        )
    if _DEEP_KEY.search(data):
        raise _too_deep(code, rule, name)
    try:
        return tomllib.loads(data.decode("utf-8"), parse_float=_Float)
    except UnicodeDecodeError as error:
        raise GovrunError(
            code, f"{rule}.utf8", f"{name} is not UTF-8", found=f"byte {error.start}", expected="UTF-8"
        ) from error
    except ValueError as error:  # TOMLDecodeError is one; another is a number of more digits than Python converts
        raise GovrunError(code, f"{rule}.toml", f"{name} is not TOML", found=str(error), expected="TOML 1.0") from error
    except RecursionError as error:
        raise _too_deep(code, rule, name) from error


class _Float:
    """A float of TOML, kept as its text; it fits no schema, whereas JSON Schema would take `1e3` for an integer."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _too_deep(code: ExitCode, rule: str, name: str) -> GovrunError:
    return GovrunError(
        code, f"{rule}.depth", f"{name} is nested too deeply", found="deep nesting", expected="a few levels"
    )


def evaluate(policy: Policy, intent: JsonObject) -> Decision:
    """Judge the predicate of an intent, with or without `ledger`; every rule is asked, in a fixed order."""
    return Decision(policy.digest, tuple(v for rule in _RULES for v in rule(policy, intent)))


Rule = Callable[[Policy, JsonObject], Iterator[Violation]]


def _backend(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    backend = intent["backend"]
    rules = policy.backend(backend["name"])
    if rules is None:
        allowed = ", ".join(sorted(policy.document["backends"]))
        yield Violation("policy.backend", "the backend is not allowed", backend["name"], allowed)
        return
    distribution = rules.get("distribution", DEFAULT_DISTRIBUTION)
    if backend["distribution"] != distribution:
        yield Violation(
            "policy.distribution", "the backend comes from another distribution", backend["distribution"], distribution
        )
    if "version" in rules and backend["version"] != rules["version"]:
        yield Violation("policy.version", "the backend has another version", backend["version"], rules["version"])


def _task(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    name = intent["task"]
    if name is None:
        if policy.document.get("requireTask", False):
            yield Violation("policy.task", "a task must be named", "none", _names(policy.document.get("tasks", {})))
        return
    rules = policy.task(name)
    if rules is None:
        yield Violation("policy.task", "the task is not known", name, _names(policy.document.get("tasks", {})))
        return
    if rules["backend"] != intent["backend"]["name"]:
        yield Violation("policy.task", "the task is for another backend", intent["backend"]["name"], rules["backend"])
    values = {p["name"]: p["value"] for p in intent["parameters"]}
    for parameter, wanted in sorted(rules.get("parameters", {}).items()):
        if values.get(parameter) not in (str(wanted), _spelling(str(wanted))):
            yield Violation(
                "policy.taskParameter", f"the task sets {parameter}", str(values.get(parameter)), str(wanted)
            )


def _spelling(text: str) -> str:
    # Receipts spell a decimal one way only: `0.70` in a policy is `0.7` there.
    return plain_decimal(text) if _NUMBER.fullmatch(text) else text


def _command(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    backend = intent["backend"]["name"]
    rules = policy.task(intent["task"])
    argv = intent["template"]["argv"]
    if rules is not None and "argv" in rules:
        wanted = _expected_argv(rules["argv"], intent)
        if wanted is None:
            yield Violation("policy.argv", "the task's files are not in the receipt", "too few", "each by its name")
        elif argv != wanted:
            yield Violation("policy.argv", "the command is not the task's", _shape(argv), _shape(wanted))
    # Whatever the template is called, a command of this backend is the policy's or the caller's: there is no third.
    elif "process" in (backend, intent["template"]["name"].partition(".")[0]) and not (
        (policy.backend(backend) or {}).get("freeArgv", False)
    ):
        yield Violation(
            "policy.freeArgv", "callers may not bring their own command", "words after --", "a task of the policy"
        )


def _expected_argv(words: list[str], intent: JsonObject) -> list[str] | None:
    """The task's command as a receipt shows it; None when a file that it needs is not listed there."""
    files = {"input": [f["name"] for f in _listed(intent["inputs"])], "output": _listed(intent["outputs"])}
    shown = []
    for number, word in enumerate(words):
        if hole := _FILE_HOLE.fullmatch(word):
            names, place = files[hole[1]], int(hole[2])
            if place > len(names):
                return None
            shown.append(file_word(names[place - 1]))
        else:
            # The program and absolute words are paths, so a receipt shows their base names.
            shown.append(file_word(word) if number == 0 or word.startswith("/") else word)
    return shown


def _agent(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    agent = intent["agent"]
    allowed = policy.document.get("agents")
    if agent is None and (allowed is not None or policy.document.get("requireAgent", False)):
        yield Violation("policy.agent", "an agent must be named", "none", ", ".join(allowed or ["any"]))
    elif agent is not None and allowed is not None and agent not in allowed:
        yield Violation("policy.agent", "the agent is not allowed", agent, ", ".join(allowed))


def _parameters(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    rules = (policy.backend(intent["backend"]["name"]) or {}).get("parameters", {})
    values = {p["name"]: p["value"] for p in intent["parameters"]}
    for name, rule in sorted(rules.items()):
        value = values.get(name)
        if value is None:
            yield Violation("policy.parameter", f"{name} must be set", "engineDefault", _range(rule))
        elif not _within(value, rule):
            yield Violation("policy.parameter", f"{name} is out of the policy's range", value, _range(rule))


def _within(value: str, rule: JsonObject) -> bool:
    if "choices" in rule and value not in rule["choices"]:
        return False
    if "minimum" not in rule and "maximum" not in rule:
        return True
    if _NUMBER.fullmatch(value) is None:
        return False
    number = Decimal(value)
    return Decimal(rule.get("minimum", number)) <= number <= Decimal(rule.get("maximum", number))


def _range(rule: JsonObject) -> str:
    if "choices" in rule:
        return ", ".join(rule["choices"])
    return f"{rule.get('minimum', 'any')} to {rule.get('maximum', 'any')}"


def _pins(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    rules = policy.backend(intent["backend"]["name"]) or {}
    models, pins = rules.get("models"), rules.get("pins", {})
    if models is None and not pins:
        return
    dependencies = _listed(intent["resolvedDependencies"])
    if models is not None:
        used = [d for d in dependencies if d["role"] == "model"]
        if not used:
            yield Violation("policy.model", "no model is recorded", "none", "a model with a known sha256")
        for model in used:
            if model["sha256"] not in models:
                yield Violation("policy.model", "the model is not allowed", model["sha256"], _short(models))
    recorded: dict[str, set[str]] = {}
    for dependency in dependencies:
        recorded.setdefault(dependency["name"], set()).add(dependency["sha256"])
    for name, digest in sorted(pins.items()):
        found = recorded.get(name, set())
        if found != {digest}:
            yield Violation(
                "policy.pin", f"{base_name(name)} is not the pinned one", _short(sorted(found)) or "none", digest
            )


def _determinism(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    wanted = (policy.backend(intent["backend"]["name"]) or {}).get("determinism")
    enough = {"deterministic": ("deterministic",), "seeded": ("deterministic", "seeded")}
    level = intent["determinism"]["level"]
    if wanted is not None and level not in enough[wanted]:
        yield Violation("policy.determinism", "the run is not reproducible enough", level, wanted)


def _prompt(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    most = (policy.backend(intent["backend"]["name"]) or {}).get("maxPromptBytes")
    size = 0 if intent["prompt"] is None else intent["prompt"]["size"]
    if most is not None and size > most:
        yield Violation("policy.promptSize", "the prompt is too large", f"{size} bytes", f"at most {most} bytes")


def _limits(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    for name, most in sorted(policy.limits.items()):
        value = intent["limits"][name]
        if value is None or value > most:
            yield Violation("policy.limit", f"{name} exceeds the policy's", str(value), f"at most {most}")


def _containment(policy: Policy, intent: JsonObject) -> Iterator[Violation]:
    level = intent["isolation"]["level"]
    if policy.containment == "pidNamespace" and level != "pidNamespace":
        yield Violation("policy.containment", "the containment is too weak", level, "pidNamespace")


_RULES: Final[tuple[Rule, ...]] = (
    _backend,
    _task,
    _agent,
    _command,
    _parameters,
    _pins,
    _determinism,
    _prompt,
    _limits,
    _containment,
)


def _listed(value: Any) -> list[Any]:
    # A list too long for a receipt is shown as a digest: what it held can then not be judged, so it is empty here
    # and whatever needs one of its items refuses.
    return value if isinstance(value, list) else []


def _names(table: JsonObject) -> str:
    return ", ".join(sorted(table)) or "no tasks are defined"


def _shape(argv: Any) -> str:
    return " ".join(argv)[:160] if isinstance(argv, list) else f"{argv['count']} words"


def _short(digests: list[str]) -> str:
    return ", ".join(d[:16] for d in digests[:4])
