"""How each stage of an invocation is written down: the predicates of intent, outcome, denied and gap.

Redaction happens here, once: everything below holds paths and bytes, everything above holds names and commitments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from govrun import canonical
from govrun.backends.interface import Captured, CommandPlan, Dependency, Facts, FinishReason, Stream
from govrun.canonical import JsonObject
from govrun.digest import Commitment, FileDigest, commit, field_salt, sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.receipt import Draft, bounded
from govrun.redact import base_name, display_name, token
from govrun.request import Parameter, Request, is_rule
from govrun.template import commitments, redacted, template_digest

_STATUS = {
    ExitCode.SUCCESS: "succeeded",
    ExitCode.COMMAND_FAILED: "failed",
    ExitCode.LIMIT_EXCEEDED: "limitExceeded",
    ExitCode.OUTPUT_UNPARSABLE: "unparsable",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.CRASH: "incomplete",
}


@frozen
class FileUse:
    """A declared file or a dependency as a receipt may show it, with where it really is."""

    name: str
    path: str
    digest: FileDigest


@frozen
class Provenance:
    """Who would do the work: a registered backend, by name, distribution, version and interface."""

    name: str
    distribution: str
    version: str
    interface: int


def show(commitment: Commitment) -> JsonObject:
    """A commitment as a receipt holds it."""
    return {"algorithm": commitment.algorithm, "digest": commitment.hex(), "size": commitment.size}


def salted(data: bytes, salt: bytes | None, field: str) -> JsonObject:
    """The commitment to one field's bytes, under the field's own salt unless digests are plain."""
    return show(commit(data, None if salt is None else field_salt(salt, field)))


def request_bytes(request: Request) -> bytes:
    """The canonical bytes of a request: equal requests, equal bytes; what a repeated requestId is compared by."""
    return canonical.encode(
        {
            "backend": request.backend,
            "task": request.task,
            "agent": request.agent,
            "prompt": None if request.prompt is None else sha256_hex(request.prompt),
            "parameters": [list(pair) for pair in sorted(request.parameters)],
            "argv": list(request.argv),
            "inputs": list(request.inputs),
            "outputs": list(request.outputs),
            "okExit": sorted(set(request.ok_exit)),
            "wallMs": request.wall_ms,
            "cwd": request.cwd,
        }
    )


def shown_request(request: Request, salt: bytes | None) -> JsonObject:
    return {"id": request.request_id, "commitment": salted(request_bytes(request), salt, "request")}


def shown_files(files: Sequence[FileUse]) -> list[JsonObject]:
    return [{"name": f.name, "size": f.digest.size, "sha256": f.digest.sha256} for f in files]


def shown_dependencies(dependencies: Sequence[tuple[Dependency, FileDigest]]) -> list[JsonObject]:
    """Sorted by role, then name, then digest, so that equal sets give equal bytes."""
    rows = [
        {
            "role": d.role,
            "name": base_name(str(d.path)),
            "size": digest.size,
            "sha256": digest.sha256,
            "coverage": d.coverage,
        }
        for d, digest in dependencies
    ]
    return sorted(rows, key=lambda row: (row["role"], row["name"], row["sha256"]))


def intent(
    *,
    invocation_id: str,
    request: Request,
    provenance: Provenance,
    policy: str,
    settings: str,
    parameters: Sequence[Parameter],
    plan: CommandPlan,
    dependencies: Sequence[tuple[Dependency, FileDigest]],
    inputs: Sequence[FileUse],
    checks: Sequence[tuple[str, str]],
    limits: JsonObject,
    isolation: JsonObject,
    salt: bytes | None,
    started_on: str,
    deadline_on: str,
) -> JsonObject:
    """The predicate of an intent, without `ledger`: what is about to run, in full."""
    template = plan.template
    d = plan.determinism
    return {
        "invocationId": invocation_id,
        "request": shown_request(request, salt),
        "links": [],
        "backend": {
            "name": provenance.name,
            "distribution": provenance.distribution,
            "version": provenance.version,
            "interface": provenance.interface,
        },
        "task": request.task,
        "agent": request.agent,
        "policy": {"sha256": policy},
        "settings": {"sha256": settings},
        "parameters": [{"name": p.name, "value": token(p.value), "origin": p.origin} for p in parameters],
        "prompt": None if request.prompt is None else salted(request.prompt, salt, "prompt"),
        "template": {
            "name": template.name,
            "sha256": template_digest(template),
            "argv": bounded(redacted(template)),
            "arguments": bounded([{"name": n, "commitment": show(c)} for n, c in commitments(template, salt)]),
        },
        "resolvedDependencies": bounded(shown_dependencies(dependencies)),
        "inputs": bounded(shown_files(inputs)),
        "outputs": bounded([display_name(path, request.cwd) for path in request.outputs]),
        "okExit": sorted(set(request.ok_exit)),
        "preflight": bounded([{"id": i, "status": s} for i, s in checks]),
        "limits": limits,
        "isolation": isolation,
        "determinism": {
            "level": d.level,
            "seed": d.seed,
            "temperature": token(d.temperature),
            "batch": d.batch,
            "threads": d.threads,
        },
        "startedOn": started_on,
        "deadlineOn": deadline_on,
    }


def outcome(
    *,
    invocation_id: str,
    intent_index: int,
    intent_leaf_hash: str,
    error: GovrunError | None,
    captured: Captured | None,
    facts: Facts | None,
    outputs: Sequence[FileUse],
    changed: Sequence[str] | None,
    salt: bytes | None,
    finished_on: str,
) -> Draft:
    """The outcome of one intent. error None means it succeeded; changed None means that nobody could look."""
    listed = bounded(shown_files(outputs))
    succeeded = error is None
    predicate: JsonObject = {
        "invocationId": invocation_id,
        "intent": {"index": intent_index, "leafHash": intent_leaf_hash},
        "links": [],
        "status": _STATUS.get(ExitCode.SUCCESS if error is None else error.code, "incomplete"),
        "error": None if error is None else shown_error(error),
        "exit": {
            "code": None if captured is None else captured.exit_code,
            "signal": None if captured is None else captured.signal,
        },
        "byproducts": None
        if captured is None
        else {"stdout": _stream(captured.stdout, salt), "stderr": _stream(captured.stderr, salt)},
        "outputs": listed,
        "facts": None if facts is None else _facts(facts, salt),
        "usage": None if captured is None else {"cpuMs": captured.cpu_ms, "maxRssBytes": captured.max_rss_bytes},
        "cost": None,
        "dependenciesAfter": {
            "status": "notChecked" if changed is None else "changed" if changed else "unchanged",
            "changed": bounded(sorted(changed or ())),
        },
        "containment": None
        if captured is None
        else {
            "level": captured.containment.level,
            "parentDeathSignal": captured.containment.parent_death_signal,
            "subreaper": captured.containment.subreaper,
            "leftovers": captured.containment.leftovers,
        },
        "durationMs": None if captured is None else captured.duration_ms,
        "finishedOn": finished_on,
    }
    names = tuple((f.name, f.digest.sha256) for f in outputs) if succeeded and isinstance(listed, list) else ()
    return Draft("outcome", predicate, names)


def shown_error(error: GovrunError) -> JsonObject:
    return {
        "code": shown_rule(error),
        "exitCode": int(error.code),
        "found": token(error.found),
        "expected": token(error.expected),
    }


def shown_rule(error: GovrunError) -> str:
    """An error's rule; one that a backend misspelt must not make the receipt unwritable."""
    return error.rule if is_rule(error.rule) else "rule.malformed"


def _stream(stream: Stream, salt: bytes | None) -> JsonObject:
    algorithm = "sha256" if salt is None else "hmacSha256"
    return {
        "commitment": {"algorithm": algorithm, "digest": stream.commitment, "size": stream.size},
        "truncated": stream.truncated,
    }


def _facts(facts: Facts, salt: bytes | None) -> JsonObject:
    return {
        "text": salted(facts.text, salt, "text"),
        "promptTokens": _count(facts.prompt_tokens),
        "generatedTokens": _count(facts.generated_tokens),
        "finishReason": facts.finish_reason if facts.finish_reason in get_args(FinishReason) else None,
        "seed": _count(facts.seed),
    }


def _count(number: int | None) -> int | None:
    # Backends read these from a child's output: what cannot be a count is nothing that the engine told.
    return number if type(number) is int and 0 <= number < 2**53 else None


def denied(
    *,
    invocation_id: str,
    request: Request | None,
    backend: str | None,
    task: str | None,
    agent: str | None,
    policy: str | None,
    error: GovrunError,
    salt: bytes | None,
    now: str,
) -> Draft:
    """A refusal. request is None when it was too malformed to be written down even as a commitment."""
    predicate: JsonObject = {
        "invocationId": invocation_id,
        "request": None if request is None else shown_request(request, salt),
        "backend": backend,
        "task": task,
        "agent": agent,
        "policy": None if policy is None else {"sha256": policy},
        "stage": _stage(error),
        "rule": shown_rule(error),
        "exitCode": int(error.code),
        "found": token(error.found),
        "expected": token(error.expected),
        "count": 1,
        "firstOn": now,
        "deniedOn": now,
    }
    return Draft("denied", predicate)


def _stage(error: GovrunError) -> str:
    if error.code == ExitCode.REQUEST_INVALID:
        return "parameters" if error.rule.startswith("parameter.") else "request"
    if error.rule.startswith(("redact.", "receipt.", "canonical.", "schema.receipt")):
        return "receipt"
    return {
        ExitCode.POLICY_DENIED: "policy",
        ExitCode.BACKEND_UNAVAILABLE: "backend",
        ExitCode.PREFLIGHT_REFUSED: "preflight",
        ExitCode.TEMPLATE_REFUSED: "template",
    }.get(error.code, "receipt")
