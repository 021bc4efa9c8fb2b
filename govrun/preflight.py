"""Run every check that must hold before launch; one that raises, is unknown or is missing refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from govrun.backends.interface import Check
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

Status = Literal["passed", "notApplicable", "refused", "notReached"]


@frozen
class CheckResult:
    """What became of one check; error is set when it refused, and names the fix."""

    id: str
    what: str
    status: Status
    error: GovrunError | None = None


@frozen
class Passed:
    """Every check held, and at least one applied: (id, status) in order. Only `demand` makes one."""

    checks: tuple[tuple[str, str], ...]


def examine(checks: Sequence[Check]) -> tuple[CheckResult, ...]:
    """Ask every check, in order; one whose needs were not met is `notReached`. Never raises for a check's sake."""
    results: dict[str, CheckResult] = {}
    for check in checks:
        if check.id in results:
            error = _refusal(check, "preflight.duplicate", "two checks have the same id", "each id once")
            results[check.id] = CheckResult(check.id, check.what, "refused", error)
        elif all(need in results and results[need].status in ("passed", "notApplicable") for need in check.needs):
            results[check.id] = _ask(check)
        else:
            results[check.id] = CheckResult(check.id, check.what, "notReached")
    return tuple(results.values())


def _ask(check: Check) -> CheckResult:
    try:
        holds = check.run()
    except GovrunError as error:
        return CheckResult(check.id, check.what, "refused", error)
    except Exception as error:  # noqa: BLE001 - a check that breaks must refuse, whatever it raised
        refusal = _refusal(check, check.id, f"the check itself failed: {type(error).__name__}", "a check that answers")
        return CheckResult(check.id, check.what, "refused", refusal)
    if holds is True:
        return CheckResult(check.id, check.what, "passed")
    if holds is False:
        return CheckResult(check.id, check.what, "notApplicable")
    refusal = _refusal(check, check.id, f"the check answered {type(holds).__name__}", "True or False")
    return CheckResult(check.id, check.what, "refused", refusal)


def demand(checks: Sequence[Check]) -> Passed:
    """Return Passed when every check holds; else raise the first refusal as GovrunError (preflight-refused)."""
    if not checks:
        raise GovrunError(
            ExitCode.PREFLIGHT_REFUSED,
            "preflight.empty",
            "the backend names no checks",
            found="an empty list",
            expected="at least one check",
        )
    results = examine(checks)
    refused = [r for r in results if r.status == "refused"]
    if refused:
        raise _combine(refused)
    unreached = [r.id for r in results if r.status == "notReached"]
    if unreached:
        raise GovrunError(
            ExitCode.PREFLIGHT_REFUSED,
            "preflight.unreached",
            "a check needs another that is not there",
            found=", ".join(unreached),
            expected="checks whose needs exist and stand before them",
        )
    if all(r.status == "notApplicable" for r in results):
        raise GovrunError(
            ExitCode.PREFLIGHT_REFUSED,
            "preflight.vacuous",
            "none of the backend's checks applies",
            found=f"{len(results)} checks, none passed",
            expected="at least one check that passes",
        )
    return Passed(tuple((r.id, r.status) for r in results))


def _combine(refused: list[CheckResult]) -> GovrunError:
    first = refused[0].error
    assert first is not None  # noqa: S101 - a refused result always carries its error
    more = f" (and {len(refused) - 1} more: see `govrun preflight`)" if len(refused) > 1 else ""
    return GovrunError(
        ExitCode.PREFLIGHT_REFUSED,
        first.rule,
        first.what + more,
        found=first.found,
        expected=first.expected,
        fix=first.fix,
    )


def _refusal(check: Check, rule: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.PREFLIGHT_REFUSED, rule, f"{check.what}: not shown", found=found, expected=expected)
