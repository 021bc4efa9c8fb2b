"""What a run amounted to: facts or an error, the outputs, and whether what it read is still what it was."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from govrun import redact, request
from govrun.backends.interface import Backend, Captured, Facts
from govrun.digest import FileDigest
from govrun.errors import ExitCode, GovrunError
from govrun.filecache import DigestCache
from govrun.frozen import frozen
from govrun.permit import Permit, digest_declared, is_whole
from govrun.predicates import FileUse


@frozen
class Conclusion:
    """The end of one run. error None means that it succeeded, and then facts are there.

    changed: names of files that were read and are no longer what they were; None when nobody could look.
    """

    facts: Facts | None
    error: GovrunError | None
    outputs: tuple[FileUse, ...]
    changed: tuple[str, ...] | None


def conclude(allowed: Permit, captured: Captured | None, digests: DigestCache) -> Conclusion:
    """Judge what was captured; None means that an interrupt came before the launch. Raises nothing."""
    facts, error = _read(allowed, captured)
    changed = _changed(digests, allowed)
    if error is None and changed:
        error = _failure("dependency.changed", "a file that was read changed during the run", ", ".join(changed))
    outputs: tuple[FileUse, ...] = ()
    if error is None:
        try:
            outputs = tuple(_digest_output(digests, path, allowed.request.cwd) for path in allowed.request.outputs)
        except GovrunError as missing:
            error = missing
    return Conclusion(facts if error is None else None, error, outputs, changed)


def conclude_torn(torn: BaseException) -> Conclusion:
    """The end of a run that an exception tore down in this process."""
    if isinstance(torn, KeyboardInterrupt):
        error = GovrunError(ExitCode.INTERRUPTED, "run.interrupted", "stopped by the keyboard")
    else:
        error = GovrunError(
            ExitCode.CRASH, "run.crashed", "govrun failed while the command ran", found=type(torn).__name__
        )
    return Conclusion(None, error, (), None)


def _read(allowed: Permit, captured: Captured | None) -> tuple[Facts | None, GovrunError | None]:
    if captured is None:
        return None, GovrunError(ExitCode.INTERRUPTED, "run.interruptedBeforeLaunch", "stopped before the launch")
    if (error := _ended_badly(allowed, captured)) is not None:
        return None, error
    try:
        facts = allowed.backend.parse(allowed.plan, captured)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin that breaks on output has not understood it
        if not isinstance(error, GovrunError) or not is_whole(error):
            return None, _unparsable("backend.parseRaised", type(error).__name__)
        if error.code in (ExitCode.OUTPUT_UNPARSABLE, ExitCode.COMMAND_FAILED):
            return None, error
        return None, _unparsable(error.rule, error.code.label)
    if not isinstance(facts, Facts) or type(facts.text) is not bytes:
        return None, _unparsable("backend.parseReturned", type(facts).__name__)
    return facts, None


def _unparsable(rule: str, found: str) -> GovrunError:
    return GovrunError(ExitCode.OUTPUT_UNPARSABLE, rule, "the backend could not read the output", found=found)


def _ended_badly(allowed: Permit, captured: Captured) -> GovrunError | None:
    match captured.ended:
        case "exited":
            if captured.exit_code in allowed.request.ok_exit:
                return None
            return _failure(
                _explain(allowed.backend, captured),
                "the command failed",
                f"exit code {captured.exit_code}",
                f"exit code {', '.join(map(str, sorted(allowed.request.ok_exit)))}",
            )
        case "signalled":
            return _failure("command.signalled", "the command was killed", f"signal {captured.signal}", "an exit")
        case "couldNotStart":
            return _failure(
                "command.couldNotStart",
                "the command could not be started",
                captured.start_error or "no program",
                "a program that starts",
            )
        case "interrupted":
            return GovrunError(ExitCode.INTERRUPTED, "run.interrupted", "the command was stopped")
        case "wallLimit":
            return _limit("limit.wall", "the command took too long", f"at most {allowed.limits.wall_ms} ms")
        case "cpuLimit":
            return _limit("limit.cpu", "the command used too much CPU", f"at most {allowed.limits.cpu_ms} ms")
        case "memoryLimit":
            return _limit(
                "limit.memory", "the command used too much memory", f"at most {allowed.limits.memory_bytes} bytes"
            )
        case "outputLimit":
            return _limit(
                "limit.output",
                "the command wrote too much",
                f"at most {allowed.limits.stdout_bytes} and {allowed.limits.stderr_bytes} bytes",
            )
        case _:
            assert_never(captured.ended)


def _explain(backend: Backend, captured: Captured) -> str:
    try:
        code = backend.explain(captured)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the failure is the command's; a plugin that cannot name it must not hide it
        return "backend.explainRaised"
    return code if request.is_rule(code) else "backend.explainMalformed"


def _failure(rule: str, what: str, found: str, expected: str | None = None) -> GovrunError:
    return GovrunError(ExitCode.COMMAND_FAILED, rule, what, found=found, expected=expected)


def _limit(rule: str, what: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LIMIT_EXCEEDED, rule, what, found="more", expected=expected)


def _changed(digests: DigestCache, allowed: Permit) -> tuple[str, ...]:
    """Names of files whose bytes are not those that were announced; a file that is gone has changed."""
    known = [(redact.base_name(str(d.path)), d.path, digest) for d, digest in allowed.dependencies]
    known += [(f.name, Path(f.path), f.digest) for f in allowed.inputs]
    return tuple(sorted({name for name, path, digest in known if not _is_still(digests, path, digest)}))


def _is_still(digests: DigestCache, path: Path, before: FileDigest) -> bool:
    try:
        return digests.digest(path) == before
    except GovrunError:
        return False


def _digest_output(digests: DigestCache, path: str, cwd: str) -> FileUse:
    try:
        return digest_declared(digests, path, cwd)
    except GovrunError as error:
        raise _failure(
            "output.missing",
            f"a declared output is missing: {redact.display_name(path, cwd)}",
            error.rule,
            "a regular file",
        ) from error
