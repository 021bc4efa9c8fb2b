"""Everything that can refuse before anything is written: request, preflight, template, policy.

Nothing here changes the world; a Permit is made here and nowhere else, after a passed preflight and an allowing
decision on the plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from govrun import policy as policies
from govrun import predicates, preflight, redact, request, settings
from govrun.backends import registry
from govrun.backends.interface import Backend, CommandPlan, Dependency, Inquiry, TaskTemplate
from govrun.canonical import JsonObject
from govrun.digest import SALT_BYTES, FileDigest
from govrun.errors import ExitCode, GovrunError
from govrun.execute import sandbox
from govrun.execute.process import FIRST_DESCRIPTOR, Limits
from govrun.filecache import DigestCache
from govrun.frozen import frozen
from govrun.policy import Policy
from govrun.predicates import FileUse, Provenance
from govrun.receipt import ZERO_HASH, Draft, Position, format_statement
from govrun.request import Request
from govrun.template import render
from govrun.world import World, format_instant

Level = Literal["pidNamespace", "group"]

DEFAULT_WALL_MS: Final = 600_000
DEFAULT_STDOUT_BYTES: Final = 16 << 20
DEFAULT_STDERR_BYTES: Final = 1 << 20
GRACE_MS: Final = 2_000

_CHANGE: Final = "change the request, or have the policy's owner change policy.toml"
# The codes under which a backend may refuse; a plugin that names another one is mistaken.
_REFUSALS: Final = (
    ExitCode.REQUEST_INVALID,
    ExitCode.POLICY_DENIED,
    ExitCode.BACKEND_UNAVAILABLE,
    ExitCode.PREFLIGHT_REFUSED,
    ExitCode.TEMPLATE_REFUSED,
)


@frozen
class Site:
    """What a request is judged by: the world, the operator's settings and policy, and where plugins are found.

    policy_bytes is None when there is no policy file, or none that can be read, which policy_problem tells.
    search_path: directories as in sys.path.
    """

    world: World
    settings: settings.Settings
    policy_bytes: bytes | None
    search_path: tuple[str, ...]
    digests: DigestCache
    policy_problem: GovrunError | None = None


@frozen
class Asked:
    """A backend that was loaded, and all that it may know about one request."""

    backend: Backend
    provenance: Provenance
    inquiry: Inquiry
    settings_digest: str


@frozen
class Permit:
    """Leave to run one plan. Only `permit` makes one, after a passed preflight and an allowing decision."""

    request: Request
    backend: Backend
    plan: CommandPlan
    intent: JsonObject
    invocation_id: str
    salt: bytes | None
    limits: Limits
    inputs: tuple[FileUse, ...]
    dependencies: tuple[tuple[Dependency, FileDigest], ...]
    scanner: redact.Scanner


def permit(site: Site, wanted: Request) -> Permit:
    """Check, resolve, preflight, template and judge a request; raises GovrunError (10-14), and changes nothing."""
    request.check_request(wanted)
    policy = read_policy(site)
    registration = registry.find(wanted.backend, site.search_path)
    _judge_provenance(policy, registration)
    asked = ask(site, wanted, policy, registration)
    inquiry, backend = asked.inquiry, asked.backend
    with speaking(wanted.backend):
        passed = preflight.demand(tuple(backend.checks(inquiry)))
        plan = _whole(backend.plan(inquiry))
    level, limits, shown_limits = _limits(wanted, policy)
    salt = new_salt(site)
    _demand_distinct_names(wanted)
    inputs = tuple(digest_declared(site.digests, path, wanted.cwd) for path in wanted.inputs)
    started = site.world.now_ms()
    invocation_id = site.world.new_id()
    with speaking(wanted.backend):
        dependencies = tuple((d, site.digests.digest(d.path)) for d in plan.dependencies)
        intent = predicates.intent(
            invocation_id=invocation_id,
            request=wanted,
            provenance=asked.provenance,
            policy=policy.digest,
            settings=asked.settings_digest,
            parameters=inquiry.parameters,
            plan=plan,
            dependencies=dependencies,
            inputs=inputs,
            checks=passed.checks,
            limits=shown_limits,
            isolation={"level": level, "required": policy.containment == level},
            salt=salt,
            started_on=format_instant(started),
            deadline_on=format_instant(started + limits.wall_ms + 2 * GRACE_MS),
        )
    _judge(policy, intent)
    scanner = _scanner(site, wanted, plan, inquiry.settings)
    _demand_writable(intent, scanner)
    return Permit(
        request=wanted,
        backend=backend,
        plan=plan,
        intent=intent,
        invocation_id=invocation_id,
        salt=salt,
        limits=limits,
        inputs=inputs,
        dependencies=dependencies,
        scanner=scanner,
    )


def ask(site: Site, wanted: Request, policy: Policy, registration: registry.Registration) -> Asked:
    """Load the backend and resolve its settings and parameters; raises GovrunError (10, 12)."""
    backend = registry.load(registration)
    with speaking(wanted.backend):
        specs = tuple(backend.settings())
        given = settings.backend_settings(specs, site.world.environ, site.settings.config)
        values = {s.name: s.value for s in given if s.value is not None}
        inquiry = Inquiry(
            request=wanted,
            settings=values,
            parameters=_parameters(site, wanted, backend, given, policy),
            task=_task(policy, wanted),
            free_argv=(policy.backend(wanted.backend) or {}).get("freeArgv", False),
            pins=_pins(policy, wanted.backend),
            digest=site.digests.digest,
        )
        digest = settings.settings_digest(specs, given, site.settings.digests)
    return Asked(
        backend=backend,
        provenance=Provenance(wanted.backend, registration.distribution, registration.version, backend.interface),
        inquiry=inquiry,
        settings_digest=digest,
    )


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """While a plugin speaks: whatever it raises that is not a whole refusal becomes one (backend-unavailable)."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise anything at all, SystemExit(0) included
        if isinstance(error, GovrunError) and is_whole(error) and error.code in _REFUSALS:
            raise
        raise GovrunError(
            ExitCode.BACKEND_UNAVAILABLE,
            "backend.raised",
            f"backend {name!r} failed when it was asked",
            found=type(error).__name__,
            expected="an answer or a refusal",
            fix="report it to whoever maintains the backend",
        ) from error


def is_whole(error: GovrunError) -> bool:
    """Whether a plugin's error has the parts that every error has: a code, a rule, and texts."""
    texts = (error.found, error.expected, error.fix)
    return (
        isinstance(error.code, ExitCode)
        and request.is_rule(error.rule)
        and isinstance(error.what, str)
        and all(text is None or isinstance(text, str) for text in texts)
    )


def _whole(plan: CommandPlan) -> CommandPlan:
    """The plan, when it can be carried out; else GovrunError (template-refused), before anything is announced."""
    argv = render(plan.template)
    names = [name for name, _ in plan.environment]
    numbers = [number for number, _ in plan.descriptors]
    for holds, part, expected in (
        (argv[0].startswith("/"), "program", "an absolute path"),
        (_is_place(plan.cwd), "cwd", "an absolute path"),
        (all(isinstance(d, Dependency) and _is_place(d.path) for d in plan.dependencies), "dependency", "paths"),
        (all(map(_is_variable, plan.environment)) and len(set(names)) == len(names), "environment", "names and texts"),
        (min(numbers, default=FIRST_DESCRIPTOR) >= FIRST_DESCRIPTOR, "descriptor", f"from {FIRST_DESCRIPTOR} on"),
        (len(set(numbers)) == len(numbers), "descriptor", "each number once"),
        (all(type(content) is bytes for _, content in plan.descriptors), "descriptor", "bytes"),
    ):
        if not holds:
            raise GovrunError(
                ExitCode.TEMPLATE_REFUSED,
                f"template.{part}",
                f"the {part} of the backend's plan cannot be used",
                found="something else",
                expected=expected,
                fix="report it to whoever maintains the backend",
            )
    return plan


def _is_place(path: object) -> bool:
    return isinstance(path, Path) and path.is_absolute() and "\0" not in str(path)


def _is_variable(pair: tuple[object, object]) -> bool:
    name, value = pair
    whole = isinstance(name, str) and isinstance(value, str) and "\0" not in name + value
    return whole and name != "" and "=" not in str(name)


def new_salt(site: Site) -> bytes | None:
    """A receipt's salt, 32 bytes; None when the operator chose plain digests."""
    return site.world.random_bytes(SALT_BYTES) if site.settings.digests == "salted" else None


def read_policy(site: Site) -> Policy:
    """The policy in force; raises GovrunError (policy-denied) when there is none or it is not whole."""
    if site.policy_problem is not None:
        told = site.policy_problem
        raise GovrunError(ExitCode.POLICY_DENIED, told.rule, told.what, found=told.found, expected=told.expected)
    if site.policy_bytes is None:
        raise GovrunError(
            ExitCode.POLICY_DENIED,
            "policy.missing",
            "there is no policy",
            found=f"no {site.settings.policy.name}",
            expected="a policy that names what may run",
            fix="write one, or name one with --policy or GOVRUN_POLICY",
        )
    try:
        return policies.parse_policy(site.policy_bytes, site.settings.policy.name)
    except GovrunError as error:
        error.fix = (
            error.fix or "name in it what may run, such as [backends.process]; docs/policy.md explains every key"
        )
        raise


def _judge_provenance(policy: Policy, found: registry.Registration) -> None:
    """Refuse a backend that the policy does not name, or from elsewhere, before any of its code is loaded."""
    rules = policy.backend(found.name)
    if rules is None:
        rule, what, shown = "policy.backend", "the backend is not allowed", found.name
        expected = ", ".join(sorted(policy.document["backends"]))
    elif found.distribution != (expected := rules.get("distribution", policies.DEFAULT_DISTRIBUTION)):
        rule, what, shown = "policy.distribution", "the backend comes from another distribution", found.distribution
    else:
        return
    raise GovrunError(ExitCode.POLICY_DENIED, rule, what, found=shown, expected=expected, fix=_CHANGE)


def _task(policy: Policy, wanted: Request) -> TaskTemplate | None:
    rules = policy.task(wanted.task)
    if wanted.task is None or rules is None or "argv" not in rules:
        return None
    return TaskTemplate(wanted.task, tuple(rules["argv"]))


def _pins(policy: Policy, backend: str) -> Mapping[str, str]:
    rules = policy.backend(backend) or {}
    models = rules.get("models", [])
    return {**rules.get("pins", {}), **({"model": models[0]} if len(models) == 1 else {})}


def _parameters(
    site: Site, wanted: Request, backend: Backend, given: Sequence[settings.Setting], policy: Policy
) -> tuple[request.Parameter, ...]:
    project = settings.read_project(Path(wanted.cwd))
    config = site.settings.config
    specs = tuple(backend.parameters({s.name: s.value for s in given if s.value is not None}))
    named = {spec.setting: spec.name for spec in specs if spec.setting is not None}
    from_settings: dict[str, dict[str, str]] = {"environment": {}, "config": {}}
    for setting in given:
        if setting.name in named and setting.value is not None and setting.source in from_settings:
            from_settings[setting.source][named[setting.name]] = setting.value
    return request.resolve_parameters(
        specs,
        (
            ("option", dict(wanted.parameters)),
            ("policy", _texts((policy.task(wanted.task) or {}).get("parameters", {}))),
            ("project", _layer(project, wanted)),
            ("environment", from_settings["environment"]),
            ("config", {**_layer(config, wanted), **from_settings["config"]}),
        ),
    )


def _layer(document: JsonObject, wanted: Request) -> dict[str, str]:
    own = document.get("tasks", {}).get(wanted.task, {}).get("parameters", {})
    return _texts({**document.get("parameters", {}).get(wanted.backend, {}), **own})


def _texts(table: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in table.items()}


def _limits(wanted: Request, policy: Policy) -> tuple[Level, Limits, JsonObject]:
    level: Level = "pidNamespace" if sandbox.bubblewrap_works() else "group"
    most = policy.limits
    wall = most.get("wallMs", DEFAULT_WALL_MS)
    limits = Limits(
        wall_ms=wall if wanted.wall_ms is None else wanted.wall_ms,
        cpu_ms=most.get("cpuMs"),
        memory_bytes=most.get("memoryBytes"),
        stdout_bytes=most.get("stdoutBytes", DEFAULT_STDOUT_BYTES),
        stderr_bytes=most.get("stderrBytes", DEFAULT_STDERR_BYTES),
        grace_ms=GRACE_MS,
        # Where the policy does not demand the namespace, a bubblewrap that the kernel refuses falls back to the group,
        # and the outcome says so.
        isolation="best" if level == "pidNamespace" and policy.containment != level else level,
    )
    shown = {
        "wallMs": limits.wall_ms,
        "cpuMs": limits.cpu_ms,
        "memoryBytes": limits.memory_bytes,
        "stdoutBytes": limits.stdout_bytes,
        "stderrBytes": limits.stderr_bytes,
    }
    return level, limits, shown


def digest_declared(digests: DigestCache, path: str, cwd: str) -> FileUse:
    """A declared file, hashed, under the name a receipt gives it; raises GovrunError (preflight-refused)."""
    whole = os.path.join(cwd, path)
    return FileUse(redact.display_name(path, cwd), whole, digests.digest(Path(whole)))


def _demand_distinct_names(wanted: Request) -> None:
    for kind, paths in (("inputs", wanted.inputs), ("outputs", wanted.outputs)):
        names = [redact.display_name(path, wanted.cwd) for path in paths]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise GovrunError(
                ExitCode.REQUEST_INVALID,
                "request.fileNames",
                f"two {kind} would have the same name in the receipt",
                found=twice,
                expected="distinct names",
                fix="run from a directory that holds both",
            )


def _judge(policy: Policy, intent: JsonObject) -> None:
    decision = policies.evaluate(policy, intent)
    if decision.is_allowed:
        return
    first = decision.violations[0]
    more = f" (and {len(decision.violations) - 1} more)" if len(decision.violations) > 1 else ""
    raise GovrunError(
        ExitCode.POLICY_DENIED,
        first.rule,
        first.what + more,
        found=first.found,
        expected=first.expected,
        fix=_CHANGE,
    )


def _scanner(site: Site, wanted: Request, plan: CommandPlan, values: Mapping[str, str]) -> redact.Scanner:
    places = (
        wanted.cwd,
        str(plan.cwd),
        str(site.settings.home),
        *(str(d.path.parent) for d in plan.dependencies),
        *(v for v in values.values() if v.startswith("/")),
    )
    secrets = tuple(value for name, value in plan.environment if name in plan.secrets)
    return redact.scanner(site.world.environ, places, secrets)


def _demand_writable(intent: JsonObject, scanner: redact.Scanner) -> None:
    if (place := redact.find(intent, scanner)) is not None:
        raise GovrunError(
            ExitCode.TEMPLATE_REFUSED,
            "redact.intent",
            "the receipt would show a path or a secret",
            found=f"in {place}",
            expected="names, numbers and commitments only",
            fix="bring the value as a file, a prompt or a declared input instead",
        )
    try:
        # Any place will do: only the size and the schema are at stake, and the widest index is used.
        format_statement(Draft("intent", intent), Position("o" * 255, 2**53 - 1, ZERO_HASH))
    except GovrunError as error:
        raise GovrunError(
            ExitCode.TEMPLATE_REFUSED, error.rule, error.what, found=error.found, expected=error.expected
        ) from error
