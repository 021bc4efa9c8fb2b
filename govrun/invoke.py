"""The run pipeline, in order, once.

    Request -> Permit -> Announced -> Captured -> Conclusion -> Result
      permit     announce    execute     conclude     account

An invocation is a value that only moves forward; no stage but `execute` waits for the work itself. `run` drives them
for a synchronous caller; an asynchronous front end drives the same stages.

A refusal before the intent becomes one `denied` entry. From `announce` on, whatever happens is told by an outcome.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NoReturn

from govrun import predicates, redact, repeats, request
from govrun.adoption import adopt
from govrun.backends.interface import Captured, Facts
from govrun.canonical import JsonObject
from govrun.conclude import Conclusion, conclude, conclude_torn
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.execute.process import Interrupt, Watch
from govrun.execute.process import run as run_child
from govrun.frozen import evolve, frozen
from govrun.home import keep_policy
from govrun.ledger import pending, recovery
from govrun.ledger.append import Appended, Appender
from govrun.ledger.lease import Lease
from govrun.ledger.place import REFUSALS_FILE
from govrun.permit import Permit, Site, new_salt, permit
from govrun.receipt import Draft
from govrun.request import Request

_UNAVAILABLE: Final = ExitCode.LEDGER_UNAVAILABLE


@frozen
class Ground:
    """A site whose ledger is open for writing.

    pass_stderr gets a child's stderr as it comes, and must not block. signals is entered for as long as a signal may
    not simply end this process, which is from the announcement to the outcome; it gives what then asks a run to stop.
    """

    site: Site
    writer: Appender
    pass_stderr: Callable[[bytes], None] | None = None
    signals: Callable[[], AbstractContextManager[Interrupt | None]] = nullcontext


@frozen
class Announced:
    """A permit whose intent is durable; from here on every end of the story is written down."""

    permit: Permit
    index: int
    leaf_hash: str
    lease: Lease


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


def run(ground: Ground, wanted: Request) -> Result:
    """One governed invocation, from request to durable outcome.

    Raises GovrunError: 10-14 refused (a `denied` entry was appended, or the effect says why not), 15-16 when the
    ledger cannot take the intent, 30-33 when the work ran and its outcome could only be kept in `pending/`.
    """
    recover(ground)
    while True:
        allowed = judge(ground, wanted)
        if isinstance(allowed, repeats.Recorded):
            return _recorded(allowed)
        try:
            # From here on a signal is noted, ends the child, and is told by the outcome.
            with ground.signals() as interrupt:
                return carry_out(ground, allowed, interrupt)
        except GovrunError as error:
            # Somebody else claimed the request id between the look and the commit: look again, theirs is the run.
            if error.rule != "request.claimed":
                raise


def recover(ground: Ground) -> None:
    """Bring into the ledger what an earlier crash left behind, and refusals that were counted long enough.

    Raises GovrunError (15, 16).
    """
    try:
        recovery.recover(ground.writer)
        if os.path.lexists(ground.writer.store.directory / REFUSALS_FILE):
            # Only here, so that a start without refusals does not pay for it.
            from govrun import refusals

            refusals.settle(ground.writer)
    except GovrunError as error:
        raise unlaunched(error) from error


def judge(ground: Ground, wanted: Request) -> Permit | repeats.Recorded:
    """Leave to run a request, or the record of the run that it repeats; raises GovrunError (10-16), recorded."""
    try:
        request.check_request(wanted)
        recorded = repeats.find(ground.writer, ground.site.world, wanted)
        return permit(ground.site, wanted) if recorded is None else recorded
    except GovrunError as refusal:
        deny(ground, wanted, refusal)


def carry_out(ground: Ground, allowed: Permit, interrupt: Interrupt | None) -> Result:
    """Announce, execute and account for what is permitted; raises GovrunError (10, 15, 16, 30-33)."""
    announced = announce(ground, allowed)
    with announced.lease:
        captured = None
        try:
            captured = execute(ground, announced, interrupt)
            ended = conclude(allowed, captured, ground.site.digests)
        except BaseException as torn:
            # This process is being torn down; the story must have an end all the same.
            account(ground, announced, captured, conclude_torn(torn))
            raise
        return account(ground, announced, captured, ended)


def announce(ground: Ground, allowed: Permit) -> Announced:
    """Commit the intent under a lease that this process holds until the outcome; raises GovrunError (10, 15, 16).

    A policy that is not in force in the ledger is adopted in the same commit.
    """
    try:
        if ground.site.policy_bytes is not None:
            keep_policy(ground.site.settings.home, ground.site.policy_bytes)
        held = ground.writer.store.leases.acquire(allowed.invocation_id)
        try:
            intent = allowed.intent
            policy = adopt(ground.writer, intent["policy"]["sha256"], intent["startedOn"])
            appended = ground.writer.append([policy, Draft("intent", intent)], salts=[None, allowed.salt])[-1]
        except BaseException:
            held.release()
            raise
    except GovrunError as error:
        raise unlaunched(error) from error
    return Announced(allowed, appended.index, appended.leaf_hash, held)


def unlaunched(error: GovrunError) -> GovrunError:
    """The error as it is told while nothing can have run: its code is one of 10-16, and its effect says so."""
    effect = "nothing was executed and nothing was recorded"
    if error.effect is not None and error.effect.startswith(("unknown", "appended")):
        effect = f"nothing was executed; {error.effect}"
    # Whatever the reason, no evidence can be left, and so nothing may run.
    code = error.code if ExitCode.REQUEST_INVALID <= error.code < ExitCode.COMMAND_FAILED else _UNAVAILABLE
    return GovrunError(
        code, error.rule, error.what, found=error.found, expected=error.expected, fix=error.fix, effect=effect
    )


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
    did = _what_happened(captured, ended)
    appended = _append_or_keep(ground, announced, draft, did)
    if ended.error is not None:
        ended.error.effect = f"{did.replace('the command', 'it')}; outcome recorded as entry {appended.index}"
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


def _what_happened(captured: Captured | None, ended: Conclusion) -> str:
    """Whether anything ran, in words that are true also when an exception kept that from being known."""
    if captured is not None:
        return "nothing was started" if captured.ended == "couldNotStart" else "the command ran"
    before_launch = ended.error is not None and ended.error.rule == "run.interruptedBeforeLaunch"
    return "nothing was started" if before_launch else "the command may have run"


def _append_or_keep(ground: Ground, announced: Announced, draft: Draft, did: str) -> Appended:
    try:
        return ground.writer.append([draft], salts=[announced.permit.salt])[0]
    except GovrunError as error:
        code = error.code if 30 <= error.code <= 33 else ExitCode.APPEND_FAILED
        effect = f"{did}; its outcome is kept in pending/ and will be appended at the next start"
        if (error.effect or "").startswith("appended"):
            effect = f"{did}; its outcome is {error.effect}, and kept in pending/ too"
        try:
            pending.keep(
                ground.writer.store.directory / pending.PENDING_DIRECTORY, announced.lease, draft, announced.permit.salt
            )
        except GovrunError as second:
            effect = f"{did}; its outcome is lost, since pending/ cannot be written either ({second.rule})"
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
            effect=f"nothing was executed again; outcome recorded as entry {recorded.outcome_index}",
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


def deny(ground: Ground, wanted: Request | None, refusal: GovrunError) -> NoReturn:
    """Append a `denied` entry, or count the refusal, and raise it with what became of that as its effect.

    wanted is None when the request could not even be read. A refusal of the ledger itself (15, 16) is not recorded.
    """
    told = unlaunched(refusal)
    if told.code in (ExitCode.LEDGER_UNAVAILABLE, ExitCode.LEDGER_ROLLED_BACK):
        raise told from refusal
    # Fields are repeated only where they are well-formed; the commitment covers the rest where it can be computed.
    world = ground.site.world
    salt = new_salt(ground.site)
    draft = predicates.denied(
        invocation_id=world.new_id(),
        request=_shown(wanted),
        backend=None if wanted is None else request.name_or_none(wanted.backend),
        task=None if wanted is None else request.name_or_none(wanted.task),
        agent=None if wanted is None else request.agent_or_none(wanted.agent),
        policy=_policy_digest(ground),
        error=told,
        salt=salt,
        now=world.now(),
    )
    places = (str(ground.site.settings.home), *(() if wanted is None else (wanted.cwd,)))
    scrubbed = evolve(draft, predicate=redact.scrub(draft.predicate, redact.scanner(world.environ, places)))
    told.effect = f"nothing was executed; {_count_or_record(ground, scrubbed, salt)}"
    raise told from refusal


def _count_or_record(ground: Ground, denied: Draft, salt: bytes | None) -> str:
    """Keep a refusal, as an entry or counted with others of its kind; what became of it, in words."""
    from govrun import refusals

    uncounted: GovrunError | None = None
    try:
        counted = refusals.take(ground.writer, denied, ground.site.settings.ledger_timeout_ms)
        if counted is not None:
            others = f"{counted.others} other" if counted.others == 1 else f"{counted.others} others"
            return f"refusal counted with {others}, to be recorded as one entry after {counted.after}"
    except GovrunError as error:
        # Rather an entry too many than none.
        uncounted = error
    try:
        index = ground.writer.append([denied], salts=[salt])[0].index
    except GovrunError as error:
        if (error.effect or "").startswith("appended"):
            return f"the refusal is {error.effect} ({error.rule})"
        if uncounted is not None:
            return f"the refusal could be neither counted ({uncounted.rule}) nor recorded ({error.rule})"
        return f"the refusal could not be recorded ({error.rule})"
    recorded = f"refusal recorded as entry {index}"
    return recorded if uncounted is None else f"{recorded}; it could not be counted ({uncounted.rule})"


def _shown(wanted: Request | None) -> Request | None:
    """The request, when it can be written down as a commitment."""
    if wanted is None or not request.is_recordable(wanted):
        return None
    try:
        predicates.request_bytes(wanted)
    except GovrunError:
        return None
    return wanted


def _policy_digest(ground: Ground) -> str | None:
    return None if ground.site.policy_bytes is None else sha256_hex(ground.site.policy_bytes)
