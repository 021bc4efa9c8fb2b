"""Policies, read and evaluated as SPEC and the policy schema alone say; nothing of govrun is imported."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal

from jsonschema import Draft202012Validator

from tests.vectors.stranger_forms import SCHEMAS, Json, NoError

_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_AS_STRONG = {"deterministic": {"deterministic"}, "seeded": {"deterministic", "seeded"}}


def parse_policy(data: bytes) -> Json:
    try:
        policy = tomllib.loads(data.decode())
    except ValueError as error:
        raise NoError("policy", 11) from error
    schema = Draft202012Validator(json.loads((SCHEMAS / "policy.v1.json").read_bytes()))
    if not policy or len(data) > 262_144 or not schema.is_valid(policy):
        raise NoError("policy", 11)
    for backend in policy["backends"].values():
        for bounds in backend.get("parameters", {}).values():
            ends = [str(bounds[end]) for end in ("minimum", "maximum") if end in bounds]
            if not all(map(_DECIMAL.fullmatch, ends)) or sorted(ends, key=Decimal) != ends:
                raise NoError("policy", 11)
    return policy


def objections(policy: Json, intent: Json) -> list[str]:
    """The rules that object, in SPEC's order. Tasks with a command or parameters are left alone: no case has one."""
    return [rule for rule, objects in _rules(policy, intent) if objects]


def _rules(policy: Json, intent: Json) -> Iterator[tuple[str, bool]]:
    backend, determinism = intent["backend"], intent["determinism"]["level"]
    allowed = policy["backends"].get(backend["name"])
    rules: Json = allowed or {}
    assert "tasks" not in policy
    yield "policy.backend", allowed is None
    yield "policy.distribution", allowed is not None and backend["distribution"] != rules.get("distribution", "govrun")
    yield "policy.version", backend["version"] != rules.get("version", backend["version"])
    yield "policy.task", intent["task"] is not None or policy.get("requireTask", False)
    wanted = policy.get("agents")
    yield (
        "policy.agent",
        intent["agent"] not in wanted if wanted else intent["agent"] is None and policy.get("requireAgent", False),
    )
    is_free = backend["name"] == "process" or intent["template"]["name"].startswith("process.")
    yield "policy.freeArgv", is_free and rules.get("freeArgv") is not True
    values = {one["name"]: one["value"] for one in intent["parameters"]}
    for name, bounds in rules.get("parameters", {}).items():
        yield "policy.parameter", not _is_within(values.get(name), bounds)
    files = intent["resolvedDependencies"] if isinstance(intent["resolvedDependencies"], list) else []
    models = [one["sha256"] for one in files if one["role"] == "model"]
    yield "policy.model", "models" in rules and (not models or not set(models) <= set(rules["models"]))
    for name, digest in rules.get("pins", {}).items():
        yield "policy.pin", {one["sha256"] for one in files if one["name"] == name} != {digest}
    level = rules.get("determinism")
    yield "policy.determinism", level is not None and determinism not in _AS_STRONG[level]
    size = 0 if intent["prompt"] is None else intent["prompt"]["size"]
    yield "policy.promptSize", size > rules.get("maxPromptBytes", 1 << 20)
    for name, limit in policy.get("limits", {}).items():
        yield "policy.limit", intent["limits"][name] is None or intent["limits"][name] > limit
    demanded = policy.get("containment") == "pidNamespace"
    yield "policy.containment", demanded and intent["isolation"]["level"] != "pidNamespace"


def _is_within(value: str | None, bounds: Json) -> bool:
    if value is None or value not in bounds.get("choices", [value]):
        return False
    if not {"minimum", "maximum"} & set(bounds):
        return True
    if not _DECIMAL.fullmatch(value):
        return False
    return Decimal(str(bounds.get("minimum", value))) <= Decimal(value) <= Decimal(str(bounds.get("maximum", value)))
