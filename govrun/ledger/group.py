"""Group commit: many threads of one process append through one thread, which commits together what waits.

    callers      submit -> [ waiting ] -> Future
    one thread              up to 64 drafts -> one transaction, one checkpoint -> each Future, durable or refused

While one group is made durable the next one gathers, so nobody waits for others to come. The store is opened, used and
closed by that thread alone; a caller's question to it is answered there, between two groups. A full queue makes callers
wait, and refuses them at their deadline: nothing that was accepted is dropped.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Appended, DraftAt, Submission, Writer
from govrun.ledger.entry import IndexColumns
from govrun.ledger.salts import Salts
from govrun.ledger.store import Leases, Store
from govrun.receipt import Draft
from govrun.signing.keys import Signer
from govrun.world import World

GROUP_DRAFTS: Final = 64
# A queue that long is seconds of a slow disk; whoever comes later is told instead of kept waiting for longer.
WAITING_DRAFTS: Final = 1024

T = TypeVar("T")
_Done = tuple[Appended, ...]
_Waiting = tuple[Submission, "Future[_Done]"]


class GroupWriter:
    """An `append.Appender` for any number of threads; `open_writer` is called once, in the thread that then appends.

    group: drafts of one commit. waiting: drafts that may wait for it. wait_ms: how long a caller waits for room.
    What open_writer raises, this raises. Use it as a context, or call `close`.
    """

    def __init__(
        self,
        open_writer: Callable[[], Writer],
        world: World,
        *,
        wait_ms: int,
        group: int = GROUP_DRAFTS,
        waiting: int = WAITING_DRAFTS,
    ) -> None:
        self._world = world
        self._wait_ms = wait_ms
        self._group = group
        self._most = waiting
        self._process = os.getpid()
        # Everything below is read and changed under this lock; it is notified at each change.
        self._change = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._drafts = 0
        self._questions: deque[tuple[Callable[[Writer], Any], Future[Any]]] = deque()
        self._closing = False
        self._died: BaseException | None = None
        opened: Future[Writer] = Future()
        # A daemon, so that a program that forgets to close still ends: what was acknowledged is durable by then.
        self._thread = threading.Thread(
            target=self._work, args=(open_writer, opened), name="govrun-append", daemon=True
        )
        self._thread.start()
        self._writer = opened.result()
        self.store = _Asked(self, self._writer.store)
        self.salts: Salts = self._writer.salts

    @property
    def warning(self) -> GovrunError | None:
        """Why the head of the last group could not be remembered in the guard, else None. The group stands."""
        return self._writer.warning

    def append(
        self,
        drafts: Sequence[Draft | DraftAt],
        *,
        salts: Sequence[bytes | None] = (),
        signers: Sequence[Signer] = (),
    ) -> tuple[Appended, ...]:
        """As `Writer.append`, from any thread: durable when this returns, all of the drafts or none of them.

        Interrupted while it waits, it takes back what no group has begun to write; what one has, may become durable.
        """
        future = self.submit(drafts, salts=salts, signers=signers)
        try:
            return future.result()
        except BaseException:
            # An exception of the caller's own, such as KeyboardInterrupt; otherwise it is done and this does nothing.
            future.cancel()
            raise

    def submit(
        self,
        drafts: Sequence[Draft | DraftAt],
        *,
        salts: Sequence[bytes | None] = (),
        signers: Sequence[Signer] = (),
        wait_ms: int | None = None,
    ) -> Future[tuple[Appended, ...]]:
        """Hand drafts over for the next group; the future is done once they are durable, or refused as by `append`.

        Submissions of one thread become durable in their order. wait_ms: how long to wait for room, 0 not at all (for
        an event loop). GovrunError (append-failed): no room in time (`append.queueFull`), closed, or the thread that
        appends has ended (`append.ended`).
        """
        wait_ms = self._wait_ms if wait_ms is None else wait_ms
        one = Submission(tuple(drafts), tuple(salts), tuple(signers))
        if one.salts and len(one.salts) != len(one.drafts):
            raise ValueError(f"{len(one.salts)} salts for {len(one.drafts)} drafts")
        future: Future[_Done] = Future()
        until_ns = self._world.monotonic_ns() + wait_ms * 1_000_000
        self._check_process()
        with self._change:
            while self._check_open() and self._waiting and self._drafts + len(one.drafts) > self._most:
                left_ns = until_ns - self._world.monotonic_ns()
                if left_ns <= 0:
                    raise _queue_full(self._drafts, self._most, wait_ms)
                self._change.wait(left_ns / 1e9)
            self._waiting.append((one, future))
            self._drafts += len(one.drafts)
            self._change.notify_all()
        return future

    def ask(self, question: Callable[[Writer], T]) -> T:
        """What question answers in the thread that appends, which is where the store may be read."""
        if threading.current_thread() is self._thread:
            return question(self._writer)  # a `DraftAt` asks while its group is written
        future: Future[T] = Future()
        self._check_process()
        with self._change:
            self._check_open()
            self._questions.append((question, future))
            self._change.notify_all()
        return future.result()

    def leaf_hash_of(self, index: int) -> str | None:
        """As `Writer.leaf_hash_of`."""
        return self.ask(lambda writer: writer.leaf_hash_of(index))

    def close(self) -> None:
        """Accept nothing more, make durable what waits, and close the store; harmless when done twice."""
        if self._process != os.getpid():
            return  # a copy of the program, without the thread and with a lock that it may have held
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise _closed()

    def _check_open(self) -> bool:
        if self._died is not None:
            raise _ended(self._died, "nothing was appended")
        if self._closing:
            raise _closed()
        return True

    # From here on, everything runs in the thread that appends.

    def _work(self, open_writer: Callable[[], Writer], opened: Future[Writer]) -> None:
        try:
            writer = open_writer()
        except BaseException as error:  # noqa: BLE001 - raised where the writer was asked for
            opened.set_exception(error)
            return
        self._writer = writer
        opened.set_result(writer)
        taken: list[_Waiting] = []
        try:
            while self._take(taken):
                _append(writer, taken)
                taken.clear()
        except BaseException as error:  # noqa: BLE001 - whatever it is, everybody who waits is told
            self._die(error, taken)
        finally:
            writer.store.close()

    def _take(self, taken: list[_Waiting]) -> bool:
        """Wait for work, answer questions, and move the next group to taken; False once closed and drained."""
        while True:
            with self._change:
                while not (self._questions or self._waiting or self._closing):
                    self._change.wait()
                questions, self._questions = self._questions, deque()
                if not questions:
                    self._take_group(taken)
                    return bool(taken) or not self._closing
            for question, future in questions:
                _answer(self._writer, question, future)

    def _take_group(self, taken: list[_Waiting]) -> None:
        count = 0
        while self._waiting and (not count or count + len(self._waiting[0][0].drafts) <= self._group):
            one = self._waiting.popleft()
            self._drafts -= len(one[0].drafts)
            # From here on its caller cannot take it back.
            if one[1].set_running_or_notify_cancel():
                taken.append(one)
                count += len(one[0].drafts)
        self._change.notify_all()

    def _die(self, error: BaseException, taken: list[_Waiting]) -> None:
        with self._change:
            self._died = error
            waiting, self._waiting = self._waiting, deque()
            questions, self._questions = self._questions, deque()
            self._change.notify_all()
        for _, future in taken:
            if not future.done():
                future.set_exception(_ended(error, "unknown: whether the entry was written was not told"))
        for _, asked in (*waiting, *questions):
            if asked.set_running_or_notify_cancel():
                asked.set_exception(_ended(error, "nothing was appended"))


def _append(writer: Writer, taken: Sequence[_Waiting]) -> None:
    """Make a group durable, and tell each of its callers."""
    if not taken:
        return
    try:
        told = writer.append_each([submission for submission, _ in taken])
    except GovrunError as error:
        # The store took none of them; each caller gets an error of its own to raise and to add to.
        for _, future in taken:
            future.set_exception(_copy(error))
        return
    for (_, future), one in zip(taken, told, strict=True):
        if isinstance(one, Exception):
            future.set_exception(one)
        else:
            future.set_result(one)


def _answer(writer: Writer, question: Callable[[Writer], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        answer = question(writer)
    except Exception as error:  # noqa: BLE001 - raised where the question was asked
        future.set_exception(error)
    else:
        future.set_result(answer)


class _Asked:
    """The store of a `GroupWriter` for its callers (a `store.Reads`): the thread that appends answers."""

    def __init__(self, group: GroupWriter, store: Store) -> None:
        self._group = group
        self.origin: str = store.origin
        self.directory: Path = store.directory
        self.world: World = store.world
        # A lease is a lock of its own, and taken where it is asked for.
        self.leases: Leases = store.leases

    def head(self) -> bytes | None:
        return self._group.ask(lambda writer: writer.store.head())

    def size(self) -> int:
        return self._group.ask(lambda writer: writer.store.size())

    def leaf(self, index: int) -> bytes | None:
        return self._group.ask(lambda writer: writer.store.leaf(index))

    def hashes(self, positions: Sequence[int]) -> list[bytes]:
        return self._group.ask(lambda writer: writer.store.hashes(positions))

    def columns(self, index: int) -> IndexColumns | None:
        return self._group.ask(lambda writer: writer.store.columns(index))

    def intent_of_request(self, request_id: str) -> int | None:
        return self._group.ask(lambda writer: writer.store.intent_of_request(request_id))

    def answer_to(self, intent: int, kind: str) -> int | None:
        return self._group.ask(lambda writer: writer.store.answer_to(intent, kind))

    def open_intents(self) -> tuple[tuple[int, str], ...]:
        return self._group.ask(lambda writer: writer.store.open_intents())


def _copy(error: GovrunError) -> GovrunError:
    copy = GovrunError(
        error.code,
        error.rule,
        error.what,
        found=error.found,
        expected=error.expected,
        fix=error.fix,
        effect=error.effect,
    )
    copy.__cause__ = error
    return copy


def _closed() -> GovrunError:
    return GovrunError(
        ExitCode.APPEND_FAILED,
        "ledger.closed",
        "the ledger is not open in this process",
        fix="open it",
        effect="nothing was appended",
    )


def _queue_full(drafts: int, most: int, wait_ms: int) -> GovrunError:
    return GovrunError(
        ExitCode.APPEND_FAILED,
        "append.queueFull",
        "too much waits to be appended",
        found=f"{drafts} receipts wait, for {wait_ms} ms",
        expected=f"at most {most}",
        fix="ask less at once, or give the ledger a faster disk",
        effect="nothing was appended",
    )


def _ended(error: BaseException, effect: str) -> GovrunError:
    ended = GovrunError(
        ExitCode.APPEND_FAILED,
        "append.ended",
        "the thread that appends has ended",
        found=type(error).__name__,
        fix="open the ledger again",
        effect=effect,
    )
    ended.__cause__ = error
    return ended
