"""Run one command to its end: start it, watch it, stop it at its limits, and leave nothing of it behind."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from functools import partial
from typing import Final, Literal, Self

from govrun.backends.interface import Captured, CommandPlan, Containment, Ended, Stream
from govrun.digest import Commitment, field_salt
from govrun.errors import ExitCode, GovrunError
from govrun.execute import family, keeper, sandbox
from govrun.frozen import frozen
from govrun.template import render
from govrun.world import World

Level = Literal["pidNamespace", "group"]

FIRST_DESCRIPTOR: Final = 64
_CHUNK: Final = 65_536
_MEASURE_MS: Final = 250  # how often memory is looked at
_MEASURE_AT_LEAST_MS: Final = 20  # how close to its end a CPU budget is looked at
_LAST_WAIT_MS: Final = 2_000  # after SIGKILL; only a process stuck in the kernel takes longer
# Descriptors are the whole process's: a fork for one run while another's ends lie open would copy them, and that one's
# output would not end with its own processes.
_starting: Final = threading.Lock()
_SEALS: Final = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


@frozen
class Limits:
    """What one run may use; whatever goes beyond is ended.

    wall_ms: from start to the leader's exit. cpu_ms: CPU time of all its processes together. memory_bytes: the address
    space of each process, and what all of them hold together; None is no limit. stdout_bytes, stderr_bytes: the whole
    stream. grace_ms: between SIGTERM and SIGKILL. isolation: `best` is a pid namespace where bubblewrap works.
    """

    wall_ms: int
    stdout_bytes: int
    stderr_bytes: int
    cpu_ms: int | None = None
    memory_bytes: int | None = None
    grace_ms: int = 2_000
    isolation: Literal["pidNamespace", "group", "best"] = "best"


class Interrupt:
    """A request to stop that wakes whoever waits for it; may be made in a signal handler or in another thread.

    It stays made: every run that watches it stops, and one that begins later does not start. Closing it is up to the
    caller, after the last run.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def request(self, signum: int) -> None:
        """Ask everything that watches to stop; the first signum is kept."""
        if self.signum is None:
            self.signum = signum
            # One byte, never read: the pipe stays readable for every watcher and cannot fill.
            os.write(self._writer, b"\0")

    def fileno(self) -> int:
        return self._reader

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@frozen
class Watch:
    """Who looks on. on_stderr gets stderr while it comes, up to its limit, and must not block: limits wait for it."""

    on_stderr: Callable[[bytes], None] | None = None
    interrupt: Interrupt | None = None


def run(plan: CommandPlan, limits: Limits, *, world: World, salt: bytes | None, watch: Watch | None = None) -> Captured:
    """Run the plan's command and return what it did, after the last of its processes is gone.

    salt: the receipt's 32 bytes for the commitments to the streams, None for plain SHA-256. Several threads may call it
    at once. A command that could not be executed has ended `couldNotStart`; where a pid namespace is demanded, that is
    also the end when bubblewrap does not work. In a pid namespace a death by signal n shows as exit code 128 + n, since
    bubblewrap does not tell the two apart, unless govrun or the CPU limit sent the signal.

    Raises GovrunError (template-refused) for a plan that is no command; then nothing was started.
    """
    argv = _argv_of(plan)
    watch = watch or Watch()
    if limits.isolation == "group":
        return _attempt(plan, argv, "group", limits, world, salt, watch)
    captured = _attempt(plan, argv, "pidNamespace", limits, world, salt, watch)
    if captured.ended == "couldNotStart" and limits.isolation == "best":
        # bubblewrap says for certain that nothing was executed, so this is no second run.
        return _attempt(plan, argv, "group", limits, world, salt, watch)
    return captured


def _argv_of(plan: CommandPlan) -> tuple[str, ...]:
    argv = render(plan.template)
    if not argv[0].startswith("/"):
        raise _refused("template.program", "the program is not an absolute path", argv[0][:32], "an absolute path")
    if not plan.cwd.is_absolute():
        raise _refused("template.cwd", "the working directory is not absolute", "a relative path", "an absolute path")
    numbers = [number for number, _ in plan.descriptors]
    if len(set(numbers)) != len(numbers) or min(numbers, default=FIRST_DESCRIPTOR) < FIRST_DESCRIPTOR:
        raise _refused(
            "template.descriptor",
            "the descriptors overlap",
            str(sorted(numbers)),
            f"each once, from {FIRST_DESCRIPTOR}",
        )
    return argv


def _refused(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.TEMPLATE_REFUSED, rule, what, found=found, expected=expected)


def _attempt(
    plan: CommandPlan,
    argv: tuple[str, ...],
    level: Level,
    limits: Limits,
    world: World,
    salt: bytes | None,
    watch: Watch,
) -> Captured:
    command: tuple[str, ...] | None = argv
    if level == "pidNamespace":
        bubblewrap = sandbox.locate()
        trusted = bubblewrap is not None and sandbox.is_executed_as_it_is(argv[0])
        command = sandbox.command(bubblewrap, argv, str(plan.cwd)) if bubblewrap is not None and trusted else None
    run_ = _Run(level, limits, world, salt, watch)
    if watch.interrupt is not None and watch.interrupt.signum is not None:
        run_.ended = "interrupted"
    elif command is None:
        run_.ended = "couldNotStart"
    else:
        run_.go(plan, command)
    return run_.captured()


class _Output:
    """One stream of the child while it is read."""

    def __init__(self, limit: int, salt: bytes | None, pass_on: Callable[[bytes], None] | None, held: bool) -> None:
        self._limit = limit
        self._commitment = Commitment(salt)
        self._kept = bytearray()
        self._pass_on = pass_on
        self._passed = 0
        self._held = held
        self.cut = False

    def take(self, data: bytes) -> None:
        self._commitment.update(data)
        self._kept += data[: self._limit - len(self._kept)]
        if not self._held or not b"bwrap: ".startswith(bytes(self._kept[:7])):
            self.pass_on()

    def pass_on(self) -> None:
        """Hand over what was kept since the last time."""
        if self._pass_on is not None and self._passed < len(self._kept):
            part = bytes(self._kept[self._passed :])
            self._passed = len(self._kept)
            self._pass_on(part)

    @property
    def is_over(self) -> bool:
        return self._commitment.size > self._limit

    def stream(self) -> Stream:
        return Stream(
            data=bytes(self._kept),
            size=self._commitment.size,
            truncated=self.cut or self.is_over,
            commitment=self._commitment.hex(),
        )


class _Run:
    """One start of one command at one level: what is known of it, and the verdict on how it ended."""

    def __init__(self, level: Level, limits: Limits, world: World, salt: bytes | None, watch: Watch) -> None:
        self.ended: Ended | None = None
        self._level = level
        self._limits = limits
        self._world = world
        self._watch = watch
        self._salt = salt
        self._began_ms = self._now_ms()
        self._measure_at_ms = self._began_ms
        self._kill_at_ms: int | None = None
        self._order: Callable[[int], None]
        self._exit_code: int | None = None
        self._signal: int | None = None
        self._report = b""
        self._told = keeper.Told()
        self._started = False
        self._stdout, self._stderr = self._outputs()

    def _outputs(self) -> tuple[_Output, _Output]:
        # bubblewrap complains on the child's stderr; until it is known who spoke, its words are not passed on.
        held = self._level == "pidNamespace"
        limits, pass_on = self._limits, self._watch.on_stderr
        return (
            _Output(limits.stdout_bytes, self._field_salt("stdout"), None, held=False),
            _Output(limits.stderr_bytes, self._field_salt("stderr"), pass_on, held),
        )

    def _field_salt(self, field: str) -> bytes | None:
        return None if self._salt is None else field_salt(self._salt, field)

    def _now_ms(self) -> int:
        return self._world.monotonic_ns() // 1_000_000

    def go(self, plan: CommandPlan, command: tuple[str, ...]) -> None:
        """Start the command and stay until nothing of it is left."""
        with ExitStack() as ours:
            try:
                with _starting, ExitStack() as theirs:
                    ends = _Ends(ours, theirs)
                    pid = keeper.start(self._orders(plan, command, ends))
            except OSError:
                self.ended = "couldNotStart"
                return
            self._started = True
            self._order = _orders_to(pid, ours)
            try:
                self._follow(pid, ends)
            finally:
                self._dismiss(pid, ends.report)
            self._drain(self._stdout, ends.stdout)
            self._drain(self._stderr, ends.stderr)
            self._conclude(_read_all(ends.status))

    def _orders(self, plan: CommandPlan, command: tuple[str, ...], ends: _Ends) -> keeper.Orders:
        placed = [(ends.their_stdin, 0), (ends.their_stdout, 1), (ends.their_stderr, 2)]
        if self._level == "pidNamespace":
            placed.append((ends.their_status, sandbox.STATUS_FD))
        placed.extend((ends.memory(content), number) for number, content in plan.descriptors)
        return keeper.Orders(
            argv=tuple(word.encode() for word in command),
            environment={os.fsencode(name): os.fsencode(value) for name, value in plan.environment},
            cwd=os.fsencode(plan.cwd),
            placed=tuple(placed),
            limits=tuple(_resource_limits(self._limits)),
            report=ends.their_report,
            inner=self._level == "pidNamespace",
        )

    def _follow(self, pid: int, ends: _Ends) -> None:
        """Read and watch until the leader has ended or it is time to kill it."""
        poll = select.poll()
        outputs = {ends.stdout: self._stdout, ends.stderr: self._stderr}
        for descriptor in (ends.report, *outputs):
            poll.register(descriptor, select.POLLIN)
        interrupt = self._watch.interrupt
        if interrupt is not None:
            poll.register(interrupt.fileno(), select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(self._patience_ms()):
                if descriptor == ends.report:
                    if not self._hear(ends.report):
                        return
                elif (output := outputs.get(descriptor)) is not None:
                    if not _take(output, descriptor):
                        poll.unregister(descriptor)
                else:
                    poll.unregister(descriptor)
            if self._told.status is not None:
                return
            if self._kill_at_ms is None:
                self._judge(pid)
            elif self._now_ms() >= self._kill_at_ms:
                return

    def _hear(self, report: int) -> bool:
        """Take in what the keeper reports; False when it will say no more."""
        part = os.read(report, _CHUNK)
        self._report += part
        self._told = keeper.parse_report(self._report)
        return bool(part) and not self._told.finished

    def _patience_ms(self) -> int:
        times = [self._began_ms + self._limits.wall_ms if self._kill_at_ms is None else self._kill_at_ms]
        if self._kill_at_ms is None and (self._limits.cpu_ms is not None or self._limits.memory_bytes is not None):
            times.append(self._measure_at_ms)
        return max(0, min(times) - self._now_ms())

    def _judge(self, pid: int) -> None:
        interrupt = self._watch.interrupt
        if interrupt is not None and interrupt.signum is not None:
            self.ended = "interrupted"
        elif self._stdout.is_over or self._stderr.is_over:
            self.ended = "outputLimit"
        elif self._now_ms() >= self._began_ms + self._limits.wall_ms:
            self.ended = "wallLimit"
        elif self._now_ms() >= self._measure_at_ms:
            self.ended = self._measure(pid)
        if self.ended is not None:
            self._order(keeper.TERMINATE)
            self._kill_at_ms = self._now_ms() + self._limits.grace_ms

    def _measure(self, pid: int) -> Ended | None:
        limits, wait_ms = self._limits, _MEASURE_MS
        if limits.cpu_ms is None and limits.memory_bytes is None:
            return None
        everybody = (pid, *family.descendants(pid))
        if limits.cpu_ms is not None:
            left_ms = limits.cpu_ms - family.cpu_ms(everybody)
            if left_ms <= 0:
                return "cpuLimit"
            # All processors together cannot use it up sooner.
            wait_ms = min(wait_ms, left_ms // (os.cpu_count() or 1))
        if limits.memory_bytes is not None and family.holds_more_than(limits.memory_bytes, everybody[1:]):
            return "memoryLimit"
        self._measure_at_ms = self._now_ms() + max(_MEASURE_AT_LEAST_MS, wait_ms)
        return None

    def _dismiss(self, pid: int, report: int) -> None:
        """End whatever is left and the keeper; runs on every way out, an exception included."""
        try:
            self._order(keeper.KILL)
            poll = select.poll()
            poll.register(report, select.POLLIN)
            give_up_at_ms = self._now_ms() + _LAST_WAIT_MS
            while not self._told.finished and poll.poll(max(0, give_up_at_ms - self._now_ms())):
                if not self._hear(report):
                    break
        finally:
            if not self._told.finished:
                # A keeper that was stopped ends nobody. While it lives, all that it kept is still below it.
                for one in family.descendants(pid):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(one, signal.SIGKILL)
                self._order(signal.SIGKILL)
            # A program that reaps every child it sees may have been quicker.
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _drain(self, output: _Output, descriptor: int) -> None:
        # Nothing of ours lives, so all that it wrote is in the pipe. One that is open still is held by a stranger.
        try:
            while not output.is_over and _take(output, descriptor):
                pass
        except BlockingIOError:
            output.cut = True

    def _conclude(self, status: bytes) -> None:
        """Say how it ended, where no limit or interrupt has said so already."""
        self._exit_code, self._signal = self._ending()
        executed = self._told.errno is None
        if self._level == "pidNamespace" and self.ended is None and self._exit_code is not None:
            executed = executed and sandbox.parse_status(status) is not None
        if not executed:
            # The words on stderr are bubblewrap's; there never was a child to speak.
            self.ended, self._exit_code, self._signal = "couldNotStart", None, None
            self._stdout, self._stderr = self._outputs()
            return
        self._stderr.pass_on()
        if self.ended is not None:
            return
        if self._stdout.is_over or self._stderr.is_over:
            self.ended = "outputLimit"
        elif self._signal in self._sent_by_the_cpu_limit():
            self.ended = "cpuLimit"
        else:
            self.ended = "exited" if self._signal is None else "signalled"

    def _ending(self) -> tuple[int | None, int | None]:
        """The leader's exit code or signal."""
        if self._told.status is None:
            # The keeper was killed before it could tell; its death kills the leader.
            return None, int(signal.SIGKILL)
        code = os.waitstatus_to_exitcode(self._told.status)
        if code < 0:
            return None, -code
        # bubblewrap says 128 + n for a death by signal n, and so may any program. Only a signal known to have been
        # sent is read back out of it.
        sent: tuple[int, ...] = () if self.ended is None else (signal.SIGTERM, signal.SIGKILL)
        if self._level == "pidNamespace" and code - 128 in (*sent, *self._sent_by_the_cpu_limit()):
            return None, code - 128
        return code, None

    def _sent_by_the_cpu_limit(self) -> tuple[int, ...]:
        """The signals that the kernel's limit on CPU time can have sent, by the time that was used."""
        limit_ms, used_us = self._limits.cpu_ms, self._told.cpu_us
        if limit_ms is None or used_us is None:
            return ()
        # SIGXCPU comes by a clock of ticks, which on a busy machine runs ahead of the exact time that is reported.
        # SIGKILL comes a second later at the soonest, and from others too, so it takes the full time to believe it.
        sent = []
        if used_us >= limit_ms * 750:
            sent.append(int(signal.SIGXCPU))
        if used_us >= limit_ms * 1000:
            sent.append(int(signal.SIGKILL))
        return tuple(sent)

    def captured(self) -> Captured:
        """What is known at the end."""
        assert self.ended is not None  # noqa: S101 - every way through `go` sets it
        told = self._told
        return Captured(
            ended=self.ended,
            exit_code=self._exit_code,
            signal=self._signal,
            stdout=self._stdout.stream(),
            stderr=self._stderr.stream(),
            containment=Containment(
                level=self._level,
                parent_death_signal=self._started,
                subreaper=self._started,
                leftovers=told.leftovers,
            ),
            duration_ms=self._now_ms() - self._began_ms,
            cpu_ms=None if told.cpu_us is None else told.cpu_us // 1000,
            max_rss_bytes=told.max_rss_bytes,
            start_error=errno.errorcode.get(told.errno or 0) if self.ended == "couldNotStart" else None,
        )


class _Ends:
    """The descriptors of one start. `theirs` are closed once the child has them, so that the end of a pipe can show."""

    def __init__(self, ours: ExitStack, theirs: ExitStack) -> None:
        self._theirs = theirs
        self.report, self.their_report = _pipe(ours, theirs)
        self.stdout, self.their_stdout = _pipe(ours, theirs)
        self.stderr, self.their_stderr = _pipe(ours, theirs)
        self.status, self.their_status = _pipe(ours, theirs)
        self.their_stdin = _owned(theirs, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def memory(self, content: bytes) -> int:
        """A descriptor of unnamed memory that holds content and that nobody can change; it reads from the start."""
        descriptor = _owned(self._theirs, os.memfd_create("govrun", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl(descriptor, F_ADD_SEALS, _SEALS)
        return descriptor


def _orders_to(pid: int, ours: ExitStack) -> Callable[[int], None]:
    """How to send signals to the keeper, and to nobody who got its number after it was gone."""
    try:
        descriptor = _owned(ours, os.pidfd_open(pid))
    except OSError:  # some containers forbid it; then its number is right as long as only we reap it
        send = partial(os.kill, pid)
    else:
        send = partial(signal.pidfd_send_signal, descriptor)

    def order(number: int) -> None:
        with suppress(ProcessLookupError):
            send(number)

    return order


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # Only our end: a child does not expect a stdout that refuses to wait.
    os.set_blocking(_owned(ours, reader), False)
    return reader, _owned(theirs, writer)


def _owned(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _take(output: _Output, descriptor: int) -> bool:
    """Move what a pipe holds into output; False at its end or beyond the limit."""
    data = os.read(descriptor, _CHUNK)
    output.take(data)
    return bool(data) and not output.is_over


def _read_all(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return b""


def _resource_limits(limits: Limits) -> Iterator[tuple[int, int, int]]:
    """(resource, soft, hard) for each process of the child; never above what govrun itself may use."""
    yield resource.RLIMIT_CORE, 0, 0
    if limits.cpu_ms is not None:
        # The kernel counts whole seconds, per process: the last net below the watching.
        seconds = -(-limits.cpu_ms // 1000)
        yield _at_most_ours(resource.RLIMIT_CPU, seconds, seconds + 1 + limits.grace_ms // 1000)
    if limits.memory_bytes is not None:
        yield _at_most_ours(resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes)


def _at_most_ours(kind: int, soft: int, hard: int) -> tuple[int, int, int]:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    return kind, soft, hard
