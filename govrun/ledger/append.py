"""Append receipts: place, sign, write, read back, sign one checkpoint, commit, and only then acknowledge.

The store is held from reading the head to the commit, so positions are unique and nothing forks. Nothing signed leaves
before its commit has returned. Whoever holds both keys and the file can rewrite everything; a checkpoint kept
elsewhere shows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger.checkpoint import Checkpoint, VerifiedCheckpoint, sign_verified, verify_checkpoint
from govrun.ledger.entry import Entry, IndexColumns, columns_of, entry_of
from govrun.ledger.guard import Guard
from govrun.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash, stored_hash_count, stored_hash_index
from govrun.ledger.salts import SALTS_FILE, Salts, check_salt
from govrun.receipt import ZERO_HASH, Draft, Position, Statement, format_statement
from govrun.signing.dsse import signed_leaf
from govrun.signing.keys import Signer
from govrun.world import World

if TYPE_CHECKING:
    from govrun.ledger.store import Ends, Reads, Store

# A draft that needs to know its place, or that looks at the store while it is held; None appends nothing.
DraftAt = Callable[[Position], Draft | None]

_AS_THEY_ARE: Final = frozenset(
    {
        ExitCode.REQUEST_INVALID,
        ExitCode.LEDGER_ROLLED_BACK,
        ExitCode.RECEIPT_INVALID,
        ExitCode.SIGNING_FAILED,
        ExitCode.APPEND_FAILED,
        ExitCode.CHECKPOINT_FAILED,
    }
)


@frozen
class Appended:
    """A durable entry: its index, its leaf hash (hex), and the signed note of a tree that contains it."""

    index: int
    leaf_hash: str
    checkpoint: bytes


@frozen
class Submission:
    """What one caller appends at once, all of it or nothing; salts and signers as `Writer.append` takes them."""

    drafts: tuple[Draft | DraftAt, ...]
    salts: tuple[bytes | None, ...] = ()
    signers: tuple[Signer, ...] = ()


class Appender(Protocol):
    """What appends for a caller, and what it knows of the ledger: a `Writer`, or a `group.GroupWriter` for threads."""

    @property
    def store(self) -> Reads: ...

    @property
    def salts(self) -> Salts: ...

    @property
    def warning(self) -> GovrunError | None: ...

    def append(
        self,
        drafts: Sequence[Draft | DraftAt],
        *,
        salts: Sequence[bytes | None] = (),
        signers: Sequence[Signer] = (),
    ) -> tuple[Appended, ...]:
        """As `Writer.append`."""

    def leaf_hash_of(self, index: int) -> str | None:
        """The leaf hash (hex) of an entry by the stored tree, None if there is none."""


class _Prepared:
    """What a submission is about to write: the tree that it grows, and what its own drafts may refer to."""

    def __init__(self, frontier: Frontier, previous: str) -> None:
        self.frontier = frontier
        self.first = frontier.size
        self.previous = previous
        self.entries: list[Entry] = []
        self.columns: list[IndexColumns] = []
        self.grown: list[list[bytes]] = []
        self.salts: list[bytes | None] = []
        self.claims: dict[str, int] = {}
        self.answers: dict[tuple[int, str], int] = {}

    @property
    def hashes(self) -> list[bytes]:
        return [one for grown in self.grown for one in grown]

    def add(self, entry: Entry, columns: IndexColumns, salt: bytes | None) -> None:
        self.entries.append(entry)
        self.columns.append(columns)
        self.grown.append(self.frontier.append(entry.leaf_hash))
        self.salts.append(salt)
        self.previous = entry.leaf_hash.hex()
        if columns.kind == "intent" and columns.request_id is not None:
            self.claims[columns.request_id] = columns.index
        if columns.intent is not None:
            self.answers[columns.intent, columns.kind] = columns.index


class Writer:
    """Appends to one store under one receipt key and one log key; the log key's name must be the store's origin.

    warning: why the head of the last append could not be remembered in the guard, else None. The append stands.
    """

    def __init__(self, store: Store, receipt_signer: Signer, log_signer: Signer, guard: Guard) -> None:
        if log_signer.verifier.name != store.origin:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.origin",
                "the log key belongs to another ledger",
                found=log_signer.verifier.name,
                expected=store.origin,
                fix="use the log key that was made with this ledger",
            )
        self.store = store
        self.salts = Salts(store.directory / SALTS_FILE)
        self.warning: GovrunError | None = None
        self._receipt_signer = receipt_signer
        self._log_signer = log_signer
        self._guard = guard
        # What the last append left: its head, the tree under it, and its last leaf hash (hex).
        self._left: tuple[VerifiedCheckpoint, Frontier, str] | None = None

    def append(
        self,
        drafts: Sequence[Draft | DraftAt],
        *,
        salts: Sequence[bytes | None] = (),
        signers: Sequence[Signer] = (),
    ) -> tuple[Appended, ...]:
        """Append drafts in order under one checkpoint and one commit; durable when this returns, else none of them.

        salts: the salt of each draft, 32 bytes or None; empty for none at all. signers: who signs instead of the
        receipt key (a key entry: the new key, then root). An intent's request id is claimed with it.

        GovrunError: receipt-invalid, signing-failed, checkpoint-failed; append-failed for whatever keeps the store
        from taking the entries (its rule tells which); request-invalid (`request.claimed`) for a request id that
        another intent bears; ledger-rolled-back. Before a launch the caller says ledger-unavailable instead.
        """
        [told] = self.append_each([Submission(tuple(drafts), tuple(salts), tuple(signers))])
        if isinstance(told, Exception):
            raise told
        return told

    def append_each(self, submissions: Sequence[Submission]) -> list[tuple[Appended, ...] | Exception]:
        """Append submissions in order under one checkpoint and one commit; what became of each.

        In the place of one that cannot be appended for a reason of its own stands the reason, and the others are
        durable. What keeps the store from taking any of them is raised, and then none of them is. A `DraftAt` sees
        what was submitted before it, not what stands before it in its own submission. Errors as `append`.
        """
        appended = self._append(submissions)
        if any(isinstance(one, tuple) and one for one in appended):
            self.remember()
        return appended

    def remember(self) -> None:
        """Merge the head that the last append left into the guard; what keeps it from it becomes `warning`."""
        if self._left is None:
            return
        try:
            self._guard.merge(self._left[0])
            self.warning = None
        except GovrunError as error:
            # The entry is durable: refusing now would say that it is not.
            self.warning = error

    def _append(self, submissions: Sequence[Submission]) -> list[tuple[Appended, ...] | Exception]:
        try:
            with self.store.hold():
                frontier, previous = self._checked_frontier()
                written: list[_Prepared | Exception] = []
                for submission in submissions:
                    try:
                        prepared = self._prepare(frontier.copy(), previous, submission)
                    except Exception as fault:
                        if not _is_own(fault, submission):
                            raise
                        written.append(_told(fault))
                        continue
                    self._write(prepared)
                    frontier, previous = prepared.frontier, prepared.previous
                    written.append(prepared)
                done = [one for one in written if isinstance(one, _Prepared)]
                entries = [entry for one in done for entry in one.entries]
                note = b""
                if entries:
                    note = self._finish(frontier, entries, done)
        except GovrunError as error:
            told = _told(error)
            if told is error:
                raise
            raise told from error
        return [
            one
            if isinstance(one, Exception)
            else tuple(Appended(entry.index, entry.leaf_hash.hex(), note) for entry in one.entries)
            for one in written
        ]

    def _finish(self, frontier: Frontier, entries: Sequence[Entry], done: Sequence[_Prepared]) -> bytes:
        """Read back, sign the head and commit what was written; the signed note."""
        self._read_back(entries, [one for prepared in done for one in prepared.hashes])
        signed = self._sign_head(frontier)
        self.store.add_checkpoint(frontier.size, signed.note)
        # Before the commit, so that no durable receipt lacks its salt while the machine stays up.
        self.salts.write(entries[0].index, [salt for prepared in done for salt in prepared.salts])
        self._commit(entries)
        self._left = signed, frontier, entries[-1].leaf_hash.hex()
        return signed.note

    def _checked_frontier(self) -> tuple[Frontier, str]:
        """The tree as it is stored and its last leaf hash (hex, zeros if empty), to be grown by one append.

        Head, entries and hashes agree, and the guard has seen nothing greater.
        """
        store = self.store
        ends = store.ends()
        left = self._left
        if left is not None and left[0].note == ends.note:
            # The very note that this writer signed over this frontier: neither needs to be found again, which would
            # cost half of an append. Whatever else is done to the tables meanwhile can make no wrong root here.
            head, frontier, previous = left[0].checkpoint, left[1].copy(), left[2]
            self._check_sizes(head, ends)
        else:
            head = Checkpoint(store.origin, 0, EMPTY_ROOT)
            if ends.note is not None:
                head = verify_checkpoint(ends.note, store.origin, [self._log_signer.verifier]).checkpoint
            self._check_sizes(head, ends)
            frontier = Frontier.at(ends.size, store.hashes)
            if frontier.root() != head.root:
                raise _inconsistent(
                    "ledger.root", "the stored tree has another root", frontier.root().hex(), head.root.hex()
                )
            previous = self._checked_last(ends.size)
        self._guard.check(head, store.hashes)
        return frontier, previous

    @staticmethod
    def _check_sizes(head: Checkpoint, ends: Ends) -> None:
        if (head.size, stored_hash_count(ends.size)) != (ends.size, ends.hashes):
            raise _inconsistent(
                "ledger.head",
                "entries, tree and checkpoint disagree on the size",
                f"{ends.size} entries, {ends.hashes} hashes",
                f"{head.size} entries, {stored_hash_count(head.size)} hashes",
            )

    def _checked_last(self, size: int) -> str:
        if not size:
            return ZERO_HASH
        last = leaf_hash(self.store.leaf(size - 1) or b"")
        if [last] != self.store.hashes([stored_hash_index(0, size - 1)]):
            raise _inconsistent(
                "ledger.leaf", f"entry {size - 1} is not the one in the tree", "another leaf hash", "the same"
            )
        return last.hex()

    def _prepare(self, frontier: Frontier, previous: str, submission: Submission) -> _Prepared:
        """Place, check and sign a submission behind the entry of the leaf hash previous; nothing is written yet."""
        origin, drafts = self.store.origin, submission.drafts
        prepared = _Prepared(frontier, previous)
        for source, salt in zip(drafts, submission.salts or (None,) * len(drafts), strict=True):
            position = Position(origin, frontier.size, prepared.previous)
            draft = source if isinstance(source, Draft) else source(position)
            if draft is None:
                continue
            check_salt(salt)
            payload = format_statement(draft, position)
            columns = columns_of(Statement(draft.kind, draft.predicate, position))
            self._check_links(draft, prepared)
            entry = entry_of(position.index, _signed(payload, submission.signers or (self._receipt_signer,)))
            prepared.add(entry, columns, salt)
        return prepared

    def _write(self, prepared: _Prepared) -> None:
        for entry, columns, grown in zip(prepared.entries, prepared.columns, prepared.grown, strict=True):
            self.store.add_entry(entry, columns, stored_hash_count(entry.index), grown)

    def _check_links(self, draft: Draft, own: _Prepared) -> None:
        """An intent claims its request id alone; outcome and gap belong to an intent of this ledger, once each."""
        if draft.kind == "intent":
            request_id = draft.predicate["request"]["id"]
            claimed = None if request_id is None else self._claimed(request_id, own)
            if claimed is not None:
                raise GovrunError(
                    ExitCode.REQUEST_INVALID,
                    "request.claimed",
                    "the request id is claimed by another intent",
                    found=f"entry {claimed}",
                    expected="a request id of its own",
                    fix="ask for the recorded outcome, or use another request id",
                )
        elif draft.kind in ("outcome", "gap") and draft.predicate["intent"] is not None:
            intent = draft.predicate["intent"]
            of = intent["index"]
            columns, found = self._entry_at(of, own)
            if columns is None or columns.kind != "intent" or found != intent["leafHash"]:
                raise GovrunError(
                    ExitCode.RECEIPT_INVALID,
                    "receipt.intent",
                    f"the {draft.kind} is about no intent of this ledger",
                    found=f"entry {of}, leaf hash {intent['leafHash'][:16]}...",
                    expected="index and leaf hash of an intent",
                )
            if draft.predicate.get("invocationId", columns.invocation_id) != columns.invocation_id:
                raise GovrunError(
                    ExitCode.RECEIPT_INVALID,
                    "receipt.invocation",
                    "the outcome bears another invocation id than its intent",
                    found=draft.predicate["invocationId"],
                    expected=columns.invocation_id,
                )
            answered = own.answers.get((of, draft.kind))
            if answered is None and of < own.first:
                answered = self.store.answer_to(of, draft.kind)
            if answered is not None:
                raise GovrunError(
                    ExitCode.APPEND_FAILED,
                    "append.answered",
                    f"the intent already has its {draft.kind}",
                    found=f"entry {answered}",
                    expected=f"one {draft.kind} for entry {of}",
                )

    def _claimed(self, request_id: str, own: _Prepared) -> int | None:
        claimed = own.claims.get(request_id)
        return self.store.intent_of_request(request_id) if claimed is None else claimed

    def _entry_at(self, index: int, own: _Prepared) -> tuple[IndexColumns | None, str | None]:
        """Columns and leaf hash (hex) of an entry in the store or of the same submission; nothing that comes later."""
        if index < own.first:
            return self.store.columns(index), self.leaf_hash_of(index)
        at = index - own.first
        return (own.columns[at], own.entries[at].leaf_hash.hex()) if at < len(own.entries) else (None, None)

    def leaf_hash_of(self, index: int) -> str | None:
        """The leaf hash (hex) of an entry by the stored tree, None if there is none."""
        found = self.store.hashes([stored_hash_index(0, index)])
        return found[0].hex() if found else None

    def _read_back(self, entries: Sequence[Entry], hashes: Sequence[bytes]) -> None:
        # One flipped bit that is signed over ends a log; what is hashed again is what the store will give.
        leaves = self.store.leaves(entries[0].index, len(entries))
        for at, entry in enumerate(entries):
            if at >= len(leaves) or leaf_hash(leaves[at]) != entry.leaf_hash:
                raise _inconsistent(
                    "append.readBack",
                    f"entry {entry.index} reads differently than it was written",
                    "other bytes",
                    "same",
                )
        # Those that stood before are what the head says: that was checked under the same lock.
        at = stored_hash_count(entries[0].index)
        if self.store.hashes(range(at, at + len(hashes))) != hashes:
            raise _inconsistent(
                "append.readBack", "the tree reads differently than it was written", "another hash", "same"
            )

    def _sign_head(self, frontier: Frontier) -> VerifiedCheckpoint:
        try:
            return sign_verified(Checkpoint(self.store.origin, frontier.size, frontier.root()), self._log_signer)
        except Exception as error:
            # What the signer itself says is more than what can be said here.
            told = error if isinstance(error, GovrunError) and error.code is ExitCode.SIGNING_FAILED else None
            raise GovrunError(
                ExitCode.CHECKPOINT_FAILED,
                "checkpoint.signing" if told is None else told.rule,
                "the checkpoint could not be signed",
                found=error.what if isinstance(error, GovrunError) else type(error).__name__,
                fix=(told and told.fix) or "look at the log key or its signer",
                effect="nothing was appended",
            ) from error

    def _commit(self, entries: Sequence[Entry]) -> None:
        try:
            self.store.commit()
        except GovrunError as error:
            # The result is unknown: the entries may have been written, and others behind them. What stands at their
            # places decides, read on a new connection.
            try:
                self.store.reopen()
                found = self.store.hashes([stored_hash_index(0, entry.index) for entry in entries])
            except GovrunError as second:
                error.effect = f"unknown: whether the entry was written could not be read ({second.rule})"
                raise error from second
            if found != [entry.leaf_hash for entry in entries]:
                raise


def create_ledger(
    path: Path, genesis: Draft, receipt_signer: Signer, log_signer: Signer, guard: Guard, world: World
) -> Appended:
    """Make a ledger file whose entry 0 is genesis; its origin is the log key's name.

    The file appears under its name only when entry 0 is durable. GovrunError (ledger-unavailable): there already is
    one (`ledger.exists`), or it cannot be made; otherwise as `Writer.append`.
    """
    from govrun.ledger.place import exists
    from govrun.ledger.sqlite import create_store, move_store

    if os.path.lexists(path):
        raise exists(path)
    making = path.with_name(f"{path.name}.{world.new_id()}")
    try:
        with create_store(making, log_signer.verifier.name, world) as store:
            writer = Writer(store, receipt_signer, log_signer, guard)
            [told] = writer._append([Submission((genesis,))])
            if isinstance(told, Exception):
                raise told
        move_store(making, path, world)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    # Only now: the guard never leads.
    writer.remember()
    return told[0]


def _is_own(fault: Exception, submission: Submission) -> bool:
    """Whether a fault is of one submission alone, and not of the store or of the signer that all of them share."""
    if not isinstance(fault, GovrunError):
        return True
    if fault.code is ExitCode.SIGNING_FAILED:
        return bool(submission.signers)
    return fault.code not in (ExitCode.LEDGER_UNAVAILABLE, ExitCode.LEDGER_ROLLED_BACK)


def _told(fault: Exception) -> Exception:
    """A fault as `append` tells it."""
    if not isinstance(fault, GovrunError) or fault.code in _AS_THEY_ARE:
        return fault
    return GovrunError(
        ExitCode.APPEND_FAILED,
        fault.rule,
        fault.what,
        found=fault.found,
        expected=fault.expected,
        fix=fault.fix,
        effect=fault.effect or "nothing was appended",
    )


def _signed(payload: bytes, signers: Sequence[Signer]) -> bytes:
    try:
        return signed_leaf(payload, signers)
    except Exception as error:
        if isinstance(error, GovrunError) and error.code in (ExitCode.RECEIPT_INVALID, ExitCode.SIGNING_FAILED):
            error.effect = error.effect or "nothing was appended"
            raise
        raise GovrunError(
            ExitCode.SIGNING_FAILED,
            "signing.failed",
            "the receipt could not be signed",
            found=error.what if isinstance(error, GovrunError) else type(error).__name__,
            fix="look at the receipt key or its signer",
            effect="nothing was appended",
        ) from error


def _inconsistent(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        rule,
        what,
        found=found,
        expected=expected,
        fix="keep the ledger as it is and run `govrun verify`",
    )
