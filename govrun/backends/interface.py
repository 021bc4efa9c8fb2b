"""What a backend is: it says what must hold, which command to make, and how to read the output. It does nothing itself.

A backend starts no process, opens no socket, reads no clock, and writes no file. It may read the files that its
settings name. It is one object that an entry point in the group `govrun.backends` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from govrun.digest import FileDigest
from govrun.frozen import frozen
from govrun.request import Parameter, ParameterSpec, Request, SettingSpec
from govrun.template import Template

INTERFACE_VERSION: Final = 1

Role = Literal["model", "script", "interpreter", "binary", "library", "data"]
Coverage = Literal["byDescriptor", "byPath", "notCovered"]
FinishReason = Literal["stop", "length"]
Ended = Literal[
    "exited", "signalled", "wallLimit", "cpuLimit", "memoryLimit", "outputLimit", "interrupted", "couldNotStart"
]


@frozen
class TaskTemplate:
    """A task of the policy for the `process` backend: literal words, with `{input.N}` and `{output.N}` for files."""

    name: str
    argv: tuple[str, ...]


@frozen
class Inquiry:
    """All that a backend may know about one request.

    settings: the values of its declared settings that are set. parameters: resolved, sorted by name. task: the
    template that the policy has for the request's task. free_argv: the policy lets callers bring their own command.
    pins: sha256 hex by role (`model`) or basename that the policy demands. digest: hashes a file, from cache where its
    identity has not changed.
    """

    request: Request
    settings: Mapping[str, str]
    parameters: tuple[Parameter, ...]
    task: TaskTemplate | None
    free_argv: bool
    pins: Mapping[str, str]
    digest: Callable[[Path], FileDigest]

    def parameter(self, name: str) -> str | None:
        """The resolved value of a parameter, None for the engine's default; KeyError if it is not declared."""
        return next(p.value for p in self.parameters if p.name == name)


@frozen
class Check:
    """One thing that must hold before launch.

    id: stable, dotted, such as `bitnet.model.magic`. what: a short phrase that is true when it passes. run: returns
    True when it holds, False when it does not apply here; raises GovrunError with found, expected and fix to refuse.
    Any other exception refuses too. needs: ids that must have passed before this one can be asked.
    """

    id: str
    what: str
    run: Callable[[], bool]
    needs: tuple[str, ...] = ()


@frozen
class Dependency:
    """A file that the command will read: hashed before launch, compared again after exit."""

    role: Role
    path: Path
    coverage: Coverage = "byPath"


@frozen
class Determinism:
    """How far equal inputs give equal outputs: `deterministic`, `seeded` or `notReproducible`, and what decides it.

    seed, batch, threads: integers or None when the engine's own default rules. temperature: a decimal string or None.
    """

    level: Literal["deterministic", "seeded", "notReproducible", "notApplicable"]
    seed: int | None = None
    temperature: str | None = None
    batch: int | None = None
    threads: int | None = None


@frozen
class CommandPlan:
    """A command, ready to be announced and run.

    cwd: absolute. environment: the whole environment of the child, sorted by name; nothing else is inherited.
    secrets: names in environment whose values are secret. descriptors: (number, content) pairs that the child finds
    open for reading at `/dev/fd/NUMBER`, so that content needs neither argv nor a file; numbers from 64 on.
    """

    template: Template
    cwd: Path
    environment: tuple[tuple[str, str], ...]
    dependencies: tuple[Dependency, ...]
    determinism: Determinism
    secrets: tuple[str, ...] = ()
    descriptors: tuple[tuple[int, bytes], ...] = ()


@frozen
class Stream:
    """One output of a child: data is its beginning, at most the limit; size counts every byte that was read."""

    data: bytes
    size: int
    truncated: bool
    commitment: str


@frozen
class Containment:
    """What kept the child in: `pidNamespace` (all dies with govrun) or `group` (what leaves its session may live).

    leftovers: processes that were still there after the leader's exit and had to be killed; always 0 in a pid
    namespace, which the kernel ends whole without telling how many were in it.
    """

    level: Literal["pidNamespace", "group"]
    parent_death_signal: bool
    subreaper: bool
    leftovers: int = 0


@frozen
class Captured:
    """What a child did. exit_code and signal: at most one is set. durations in ms of wall and CPU time.

    start_error: the name of the errno that kept it from starting, such as `ENOENT`, where that is known.
    """

    ended: Ended
    exit_code: int | None
    signal: int | None
    stdout: Stream
    stderr: Stream
    containment: Containment
    duration_ms: int
    cpu_ms: int | None
    max_rss_bytes: int | None
    start_error: str | None = None


@frozen
class Facts:
    """What a backend can promise about a run that succeeded; None where the engine does not tell.

    text: the answer, exactly; for `process` stdout itself. Token counts are counts of tokens.
    """

    text: bytes
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    finish_reason: FinishReason | None = None
    seed: int | None = None


class Backend(Protocol):
    """The interface, version 1. `govrun.testing.BackendConformance` checks an implementation."""

    name: str
    interface: int

    def settings(self) -> Sequence[SettingSpec]:
        """Every setting it reads."""

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:
        """Every parameter it accepts, given its settings (a launcher may offer fewer)."""

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        """What must hold, in the order in which a person would fix it; never empty."""

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        """The command; only called after every check has passed. Raises GovrunError (template-refused)."""

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:
        """Read the output of a child that exited by itself.

        Raises GovrunError: output-unparsable when the output is not what the engine promises, command-failed when the
        output shows a failure that the exit code hides. rule is the stable error code of the outcome.
        """

    def explain(self, captured: Captured) -> str:
        """The stable error code of a child that ended with a failing exit code, such as `bitnet.modelUnreadable`."""
