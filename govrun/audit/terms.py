"""Whether an outcome keeps to what its intent announced, and does not contradict itself.

A key's holder can sign anything; what it signed must at least be a story that govrun could have told.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from govrun.canonical import JsonObject
from govrun.errors import ExitCode

_CODES: Final = {
    "failed": ExitCode.COMMAND_FAILED,
    "limitExceeded": ExitCode.LIMIT_EXCEEDED,
    "unparsable": ExitCode.OUTPUT_UNPARSABLE,
    "interrupted": ExitCode.INTERRUPTED,
    "incomplete": ExitCode.CRASH,
}


class Terms(NamedTuple):
    """What an intent lets its outcome be; outputs None where the list was too long to stand in the receipt."""

    ok_exit: tuple[int, ...]
    outputs: tuple[str, ...] | None
    needs_namespace: bool


class End(NamedTuple):
    """What an outcome says became of it; outputs None where the list was too long."""

    status: str
    error_code: int | None
    exit_code: int | None
    signal: int | None
    outputs: tuple[str, ...] | None
    containment: str | None
    after: str
    has_changed: bool


class Contradiction(NamedTuple):
    """One thing in an outcome that cannot be: a stable rule, what it is, found and expected."""

    rule: str
    what: str
    found: str
    expected: str


def terms_of(intent: JsonObject) -> Terms:
    """The terms of an intent's predicate."""
    outputs = intent["outputs"]
    isolation = intent["isolation"]
    return Terms(
        tuple(intent["okExit"]),
        tuple(outputs) if isinstance(outputs, list) else None,
        isolation["required"] and isolation["level"] == "pidNamespace",
    )


def end_of(outcome: JsonObject) -> End:
    """The end that an outcome's predicate tells."""
    outputs = outcome["outputs"]
    error, containment, after = outcome["error"], outcome["containment"], outcome["dependenciesAfter"]
    return End(
        outcome["status"],
        None if error is None else error["exitCode"],
        outcome["exit"]["code"],
        outcome["exit"]["signal"],
        tuple(o["name"] for o in outputs) if isinstance(outputs, list) else None,
        None if containment is None else containment["level"],
        after["status"],
        after["changed"] != [],
    )


def contradictions(terms: Terms, end: End) -> tuple[Contradiction, ...]:
    """Everything about an end that its own words or its intent's terms rule out, in a fixed order."""
    found = []
    if end.exit_code is not None and end.signal is not None:
        found.append(
            Contradiction(
                "outcome.exit",
                "a command both exits and is killed",
                f"{end.exit_code}, signal {end.signal}",
                "one of them",
            )
        )
    if end.status == "succeeded":
        if end.exit_code not in terms.ok_exit:
            found.append(
                Contradiction(
                    "outcome.okExit",
                    "a success with an exit code that is none",
                    f"exit code {end.exit_code}",
                    ", ".join(map(str, terms.ok_exit)),
                )
            )
    elif end.error_code != _CODES[end.status]:
        found.append(
            Contradiction(
                "outcome.error", "status and error disagree", str(end.error_code), str(int(_CODES[end.status]))
            )
        )
    found += _of_outputs(terms, end)
    if terms.needs_namespace and end.containment not in (None, "pidNamespace"):
        found.append(
            Contradiction(
                "outcome.containment", "the containment is weaker than required", str(end.containment), "pidNamespace"
            )
        )
    if end.has_changed != (end.after == "changed"):
        found.append(
            Contradiction("outcome.changed", "the list of changed files does not fit", end.after, "a list that fits")
        )
    return tuple(found)


def _of_outputs(terms: Terms, end: End) -> list[Contradiction]:
    if terms.outputs is None or end.outputs is None:
        # Announced or told by digest alone: what the lists held cannot be compared here.
        return []
    if end.status == "succeeded" and end.outputs != terms.outputs:
        what = "a success with other outputs than announced"
    elif set(end.outputs) - set(terms.outputs):
        what = "outputs that were never announced"
    else:
        return []
    return [
        Contradiction("outcome.outputs", what, _names(end.outputs), _names(terms.outputs)),
    ]


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4])[:120] or "none"
