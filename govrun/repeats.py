"""What happens when a request id comes again: the record of the first run, never a second run.

Same id and same request: the recorded outcome. Another request under the same id: refused. Still running: wait. A run
that was refused did not use its id up.
"""

from __future__ import annotations

import time
from typing import Final

from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger import recovery
from govrun.ledger.append import Appender
from govrun.predicates import request_bytes, salted
from govrun.receipt import parse_statement
from govrun.request import Request
from govrun.signing.dsse import parse_envelope
from govrun.world import World, parse_instant

_GRACE_MS: Final = 5_000
_POLL_S: Final = 0.05


@frozen
class Recorded:
    """An earlier run under the same request id: its two entries and the predicate of its outcome."""

    intent_index: int
    outcome_index: int
    outcome: JsonObject


def find(writer: Appender, world: World, wanted: Request) -> Recorded | None:
    """The record of the run that used this request's id, None when the id is free.

    Waits while that run is under way, at most until its deadline. Raises GovrunError (request-invalid): another
    request used the id, what it was can no longer be told, or its run has no outcome.
    """
    store = writer.store
    if wanted.request_id is None or (index := store.intent_of_request(wanted.request_id)) is None:
        return None
    intent = _predicate(writer, index)
    _demand_same(writer, wanted, index, intent)
    if store.answer_to(index, "outcome") is None:
        left_ms = parse_instant(intent["deadlineOn"]) + _GRACE_MS - world.now_ms()
        _wait(writer, intent["invocationId"], world, left_ms)
        # It may have been able to leave its outcome in `pending/` only.
        recovery.recover(writer)
    answered = store.answer_to(index, "outcome")
    if answered is None:
        raise _refused(
            "request.unanswered",
            "the run under this request id has no outcome",
            f"intent {index} without outcome",
            "an outcome",
            "it may have run, effects unknown: look, then use another request id",
        )
    return Recorded(index, answered, _predicate(writer, answered))


def _wait(writer: Appender, invocation_id: str, world: World, left_ms: int) -> None:
    until_ns = world.monotonic_ns() + left_ms * 1_000_000
    while writer.store.leases.is_held(invocation_id):
        if world.monotonic_ns() >= until_ns:
            raise _refused(
                "request.running",
                "the run under this request id is still running past its deadline",
                f"lease {invocation_id} is held",
                "an outcome",
                "wait, or look at the process that runs it",
            )
        time.sleep(_POLL_S)


def _demand_same(writer: Appender, wanted: Request, index: int, intent: JsonObject) -> None:
    recorded = intent["request"]["commitment"]
    salt = writer.salts.read(index) if recorded["algorithm"] == "hmacSha256" else None
    if recorded["algorithm"] == "hmacSha256" and salt is None:
        raise _refused(
            "request.erased",
            "what was asked under this request id can no longer be compared",
            f"the salt of entry {index} was erased",
            "the salt",
            "use another request id",
        )
    if salted(request_bytes(wanted), salt, "request") != recorded:
        raise _refused(
            "request.reused",
            "another request used this request id",
            f"entry {index} with another request",
            "the same request, or a request id of its own",
            "use another request id",
        )


def _predicate(writer: Appender, index: int) -> JsonObject:
    leaf = writer.store.leaf(index)
    if leaf is None:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE, "ledger.leaf", f"entry {index} is missing", expected="a whole ledger"
        )
    return parse_statement(parse_envelope(leaf).payload).predicate


def _refused(rule: str, what: str, found: str, expected: str, fix: str) -> GovrunError:
    return GovrunError(ExitCode.REQUEST_INVALID, rule, what, found=found, expected=expected, fix=fix)
