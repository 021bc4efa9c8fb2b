"""Every way govrun can say no, and the exit code it says it with."""

from __future__ import annotations

import enum
from typing import Final


class ExitCode(enum.IntEnum):
    """The exit codes of the command line; every other code is reserved.

    The tens digit answers two questions: did anything run, and is there evidence?
    """

    SUCCESS = 0
    CRASH = 1
    USAGE = 2

    REQUEST_INVALID = 10
    POLICY_DENIED = 11
    BACKEND_UNAVAILABLE = 12
    PREFLIGHT_REFUSED = 13
    TEMPLATE_REFUSED = 14
    LEDGER_UNAVAILABLE = 15
    LEDGER_ROLLED_BACK = 16

    COMMAND_FAILED = 20
    LIMIT_EXCEEDED = 21
    OUTPUT_UNPARSABLE = 22
    INTERRUPTED = 23

    RECEIPT_INVALID = 30
    SIGNING_FAILED = 31
    APPEND_FAILED = 32
    CHECKPOINT_FAILED = 33

    LEDGER_INCONSISTENT = 40
    SIGNATURE_UNTRUSTED = 41
    POLICY_VIOLATED = 42
    EVIDENCE_INCOMPLETE = 43
    HISTORY_DIVERGED = 44
    COULD_NOT_CHECK = 45

    REPLAY_DIFFERENT = 50
    REPLAY_NOT_COMPARABLE = 51

    @property
    def label(self) -> str:
        """The name as documents and receipts spell it, such as `policy-denied`."""
        return self.name.lower().replace("_", "-")


# What each code means to whoever reads it at three in the morning: (did anything run, evidence, meaning).
MEANING: Final[dict[ExitCode, tuple[str, str, str]]] = {
    ExitCode.SUCCESS: ("yes", "appended and checkpointed", "done; or: the verdict is yes"),
    ExitCode.CRASH: ("unknown", "traceback", "a defect of govrun, never a verdict"),
    ExitCode.USAGE: ("no", "none", "the command line is wrong"),
    ExitCode.REQUEST_INVALID: ("no", "denied entry if the ledger can be written", "the request is malformed"),
    ExitCode.POLICY_DENIED: ("no", "denied entry if the ledger can be written", "the policy does not allow it"),
    ExitCode.BACKEND_UNAVAILABLE: (
        "no",
        "denied entry if the ledger can be written",
        "no such backend, or it cannot be loaded",
    ),
    ExitCode.PREFLIGHT_REFUSED: ("no", "denied entry if the ledger can be written", "a prerequisite is missing"),
    ExitCode.TEMPLATE_REFUSED: ("no", "denied entry if the ledger can be written", "a value cannot become a command"),
    ExitCode.LEDGER_UNAVAILABLE: ("no", "none", "the ledger cannot be read or written"),
    ExitCode.LEDGER_ROLLED_BACK: ("no", "none", "the ledger is older than one seen before"),
    ExitCode.COMMAND_FAILED: ("yes", "outcome appended", "the command ended with an error"),
    ExitCode.LIMIT_EXCEEDED: ("yes", "outcome appended", "a limit on time, bytes or memory was hit"),
    ExitCode.OUTPUT_UNPARSABLE: ("yes", "outcome appended", "the output is not what the backend promises"),
    ExitCode.INTERRUPTED: ("yes", "outcome appended", "stopped by a signal"),
    ExitCode.RECEIPT_INVALID: ("yes", "kept in pending/", "the outcome does not fit its schema"),
    ExitCode.SIGNING_FAILED: ("yes", "kept in pending/", "the outcome could not be signed"),
    ExitCode.APPEND_FAILED: ("yes", "kept in pending/", "the outcome could not be appended"),
    ExitCode.CHECKPOINT_FAILED: ("yes", "kept in pending/", "the outcome could not be checkpointed"),
    ExitCode.LEDGER_INCONSISTENT: ("nothing run", "verdict no", "bytes, chain, tree or rules disagree"),
    ExitCode.SIGNATURE_UNTRUSTED: ("nothing run", "verdict no", "a signature is wrong or from an unknown key"),
    ExitCode.POLICY_VIOLATED: ("nothing run", "verdict no", "a receipt breaks the policy"),
    ExitCode.EVIDENCE_INCOMPLETE: ("nothing run", "verdict no", "the evidence asked for is not there"),
    ExitCode.HISTORY_DIVERGED: ("nothing run", "verdict no", "the ledger does not extend a head that was kept"),
    ExitCode.COULD_NOT_CHECK: ("nothing run", "no verdict", "something needed for a verdict is missing"),
    ExitCode.REPLAY_DIFFERENT: ("yes", "appended", "the replay gave other bytes"),
    ExitCode.REPLAY_NOT_COMPARABLE: ("yes", "appended", "the replay cannot be compared"),
}


class GovrunError(Exception):
    """The one error govrun raises on purpose: a refusal, a failure or a negative verdict.

    rule is a stable dotted id such as `bitnet.model.magic`. found and expected are short values, not
    sentences. fix tells what the reader can do. effect tells what happened to the world; whoever knows
    it (usually `invoke`) sets it. None of them may carry prompt or output text.
    """

    def __init__(
        self,
        code: ExitCode,
        rule: str,
        what: str,
        *,
        found: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
        effect: str | None = None,
    ) -> None:
        super().__init__(what)
        self.code = code
        self.rule = rule
        self.what = what
        self.found = found
        self.expected = expected
        self.fix = fix
        self.effect = effect

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes of a verification hand errors back to their parent.
        return (_rebuild, (self.code, self.rule, self.what, self.found, self.expected, self.fix, self.effect))

    def lines(self) -> list[str]:
        """The refusal as people read it: what and rule first, then found, expected, fix, effect."""
        head = f"{self.code.label}: {self.what} [{self.rule}]"
        rest = [("found", self.found), ("expected", self.expected), ("fix", self.fix), ("effect", self.effect)]
        lines = [head, *(f"  {name + ':':<10}{value}" for name, value in rest if value is not None)]
        return [_one_line(line) for line in lines]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _one_line(text: str) -> str:
    # A name from a planted file must not move the cursor, or look like a line of its own.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _rebuild(
    code: ExitCode,
    rule: str,
    what: str,
    found: str | None,
    expected: str | None,
    fix: str | None,
    effect: str | None,
) -> GovrunError:
    return GovrunError(code, rule, what, found=found, expected=expected, fix=fix, effect=effect)
