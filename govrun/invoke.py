"""The run pipeline, in order, once.

    Request -> Permit -> Announced -> Captured -> Conclusion -> Result
      permit     announce    execute     conclude     account

An invocation is a value that only moves forward; no stage but `execute` waits for the work itself. `run` drives them
for a synchronous caller; an asynchronous front end drives the same stages.

A refusal before the intent becomes one `denied` entry. From `announce` on, whatever happens is told by an outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from govrun import predicates, redact, repeats, request
from govrun.backends.interface import Captured, Facts
from govrun.canonical import JsonObject
from govrun.conclude import Conclusion, conclude, conclude_torn
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.execute.process import Interrupt, Watch
from govrun.execute.process import run as run_child
from govrun.frozen import evolve, frozen
from govrun.home import keep_policy
from govrun.ledger import lease, pending, recovery
from govrun.ledger.append import Appended, Writer
from govrun.permit import Permit, Site, new_salt, permit
from govrun.receipt import Draft
from govrun.request import Request


@frozen
class Ground:
    """A site whose ledger is open for writing. pass_stderr gets a child's stderr as it comes."""

    site: Site
    writer: Writer
    pass_stderr: Callable[[bytes], None] | None = None


@frozen
class Announced:
    """A permit whose intent is durable; from here on every end of the story is written down."""

    permit: Permit
    index: int
    leaf_hash: str
    lease: lease.Lease


@frozen
class Result:
    """What the caller gets, once the outcome is durable. exit is the exit code that the command line ends with.

    text: the backend's answer, exactly; None unless the run succeeded. error: why it did not. outcome: its predicate.
    repeated: the request id was used before, and this is the record of that run, whose text was not kept.
    """

    invocation_id: str
    exit: ExitCode
    text: bytes | None
    facts: Facts | None
    captured: Captured | None
    error: GovrunError | None
    intent_index: int
    outcome_index: int
    outcome: JsonObject
    repeated: bool = False


def run(ground: Ground, wanted: Request, interrupt: Interrupt | None = None) -> Result:
    """One governed invocation, from request to durable outcome.

    Raises GovrunError: 10-14 refused (a `denied` entry was appended, or the effect says why not), 15-16 when the
    ledger cannot take the intent, 30-33 when the work ran and its outcome could only be kept in `pending/`.
    """
    recovery.recover(ground.writer)
    try:
        request.check_request(wanted)
        if (recorded := repeats.find(ground.writer, ground.site.world, wanted)) is not None:
            return _recorded(recorded)
        allowed = permit(ground.site, wanted)
    except GovrunError as refusal:
        _deny(ground, wanted, refusal)
    try:
        announced = announce(ground, allowed)
    except GovrunError as error:
        # Somebody else claimed the request id between the look and the commit: theirs is the run.
        recorded = repeats.find(ground.writer, ground.site.world, wanted) if error.rule == "request.claimed" else None
        if recorded is None:
            raise
        return _recorded(recorded)
    with announced.lease:
        try:
            captured = execute(ground, announced, interrupt)
        except BaseException as torn:
            # This process is being torn down; the story must have an end all the same.
            account(ground, announced, None, conclude_torn(torn))
            raise
        return account(ground, announced, captured, conclude(allowed, captured, ground.site.digests))


def announce(ground: Ground, allowed: Permit) -> Announced:
    """Commit the intent under a lease that this process holds until the outcome; raises GovrunError (10, 15, 16)."""
    if ground.site.policy_bytes is not None:
        keep_policy(ground.site.settings.home, ground.site.policy_bytes)
    held = lease.acquire(ground.writer.store.directory / lease.LEASES_DIRECTORY, allowed.invocation_id)
    try:
        appended = _append_before_launch(ground, Draft("intent", allowed.intent), allowed.salt)
    except BaseException:
        held.release()
        raise
    return Announced(allowed, appended.index, appended.leaf_hash, held)


def _append_before_launch(ground: Ground, draft: Draft, salt: bytes | None) -> Appended:
    try:
        return ground.writer.append([draft], salts=[salt])[0]
    except GovrunError as error:
        if error.code in (ExitCode.REQUEST_INVALID, ExitCode.LEDGER_ROLLED_BACK):
            error.effect = "nothing was executed"
            raise
        # Whatever the reason, no evidence can be left, and so nothing may run.
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            error.rule,
            error.what,
            found=error.found,
            expected=error.expected,
            fix=error.fix,
            effect="nothing was executed",
        ) from error


def execute(ground: Ground, announced: Announced, interrupt: Interrupt | None) -> Captured | None:
    """Run the announced plan to its end; None when an interrupt came before the launch."""
    if interrupt is not None and interrupt.signum is not None:
        return None
    return run_child(
        announced.permit.plan,
        announced.permit.limits,
        world=ground.site.world,
        salt=announced.permit.salt,
        watch=Watch(on_stderr=ground.pass_stderr, interrupt=interrupt),
    )


def account(ground: Ground, announced: Announced, captured: Captured | None, ended: Conclusion) -> Result:
    """Append the outcome, whatever it is; raises GovrunError (30-33) when it went to `pending/` instead."""
    allowed = announced.permit
    draft = predicates.outcome(
        invocation_id=allowed.invocation_id,
        intent_index=announced.index,
        intent_leaf_hash=announced.leaf_hash,
        error=ended.error,
        captured=captured,
        facts=ended.facts,
        outputs=ended.outputs,
        changed=ended.changed,
        salt=allowed.salt,
        finished_on=ground.site.world.now(),
    )
    draft = evolve(draft, predicate=redact.scrub(draft.predicate, allowed.scanner))
    appended = _append_or_keep(ground, announced, draft)
    return Result(
        invocation_id=allowed.invocation_id,
        exit=ExitCode.SUCCESS if ended.error is None else ended.error.code,
        text=None if ended.facts is None else ended.facts.text,
        facts=ended.facts,
        captured=captured,
        error=ended.error,
        intent_index=announced.index,
        outcome_index=appended.index,
        outcome=draft.predicate,
    )


def _append_or_keep(ground: Ground, announced: Announced, draft: Draft) -> Appended:
    try:
        return ground.writer.append([draft], salts=[announced.permit.salt])[0]
    except GovrunError as error:
        code = error.code if 30 <= error.code <= 33 else ExitCode.APPEND_FAILED
        effect = "the command ran; its outcome is kept in pending/ and will be appended at the next start"
        try:
            pending.keep(
                ground.writer.store.directory / pending.PENDING_DIRECTORY, announced.lease, draft, announced.permit.salt
            )
        except GovrunError as second:
            effect = f"the command ran; its outcome is lost, since pending/ cannot be written either ({second.rule})"
        raise GovrunError(
            code, error.rule, error.what, found=error.found, expected=error.expected, fix=error.fix, effect=effect
        ) from error


def _recorded(recorded: repeats.Recorded) -> Result:
    outcome = recorded.outcome
    shown = outcome["error"]
    error = None
    if shown is not None:
        error = GovrunError(
            ExitCode(shown["exitCode"]),
            shown["code"],
            "the recorded run under this request id did not succeed",
            found=shown["found"],
            expected=shown["expected"],
        )
    return Result(
        invocation_id=outcome["invocationId"],
        exit=ExitCode.SUCCESS if error is None else error.code,
        text=None,
        facts=None,
        captured=None,
        error=error,
        intent_index=recorded.intent_index,
        outcome_index=recorded.outcome_index,
        outcome=outcome,
        repeated=True,
    )


def _deny(ground: Ground, wanted: Request, refusal: GovrunError) -> NoReturn:
    # Fields are repeated only where they are well-formed; the commitment covers the rest where it can be computed.
    world = ground.site.world
    salt = new_salt(ground.site)
    draft = predicates.denied(
        invocation_id=world.new_id(),
        request=_shown(wanted),
        backend=request.name_or_none(wanted.backend),
        task=request.name_or_none(wanted.task),
        agent=request.agent_or_none(wanted.agent),
        policy=_policy_digest(ground),
        error=refusal,
        salt=salt,
        now=world.now(),
    )
    scanner = redact.scanner(world.environ, (wanted.cwd, str(ground.site.settings.home)))
    scrubbed = evolve(draft, predicate=redact.scrub(draft.predicate, scanner))
    try:
        entry = _append_before_launch(ground, scrubbed, salt)
    except GovrunError as error:
        refusal.effect = f"nothing was executed; the refusal could not be recorded ({error.rule})"
    else:
        refusal.effect = f"nothing was executed; refusal recorded as entry {entry.index}"
    raise refusal


def _shown(wanted: Request) -> Request | None:
    return wanted if request.is_recordable(wanted) else None


def _policy_digest(ground: Ground) -> str | None:
    return None if ground.site.policy_bytes is None else sha256_hex(ground.site.policy_bytes)
