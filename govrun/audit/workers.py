"""What can be judged of entries without their neighbours, one batch at a time, on every core.

A batch goes out with everything needed to judge it, and comes back as small facts; the order of the results is the
order of the batches, whoever finished first. Between processes plain tuples travel: named ones cost three times as much
to pickle, which would be 4 of the 15 microseconds that an entry costs beside being judged.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from govrun.audit.report import Finding, finding_of
from govrun.audit.terms import End, Terms, end_of, terms_of
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.ledger.checkpoint import verified_root, verify_checkpoint
from govrun.ledger.entry import IndexColumns, columns_of
from govrun.ledger.merkle import HASH_BYTES, leaf_hash
from govrun.policy import Policy, evaluate
from govrun.receipt import Position, Statement, parse_statement
from govrun.signing.dsse import TYPE_BYTES, pae, parse_envelope, read_usual, verify_envelope
from govrun.signing.keys import Verifier

# Batches that wait for a worker or for the parent, per worker: one in hand, one in reserve.
IN_FLIGHT: Final = 2
NOBODY: Final = -1
KEY_KINDS: Final = ("keyAdded", "keyRevoked")


@frozen
class Batch:
    """Neighbouring entries as they are stored.

    columns: their rows of the search index as plain tuples, None for one that is missing; None where the store has no
    index. notes: (size, signed note) of the stored checkpoints over trees that end in this batch.
    """

    start: int
    leaves: tuple[bytes, ...]
    columns: tuple[tuple[Any, ...] | None, ...] | None
    notes: tuple[tuple[int, bytes], ...]


@frozen
class Job:
    """What a batch is judged by: the origin, receipt keys by number, log keys, and policies by digest.

    auditor: the policy that every intent is judged by, None for none. known: policies that intents may name.
    """

    origin: str
    receipts: tuple[Verifier, ...]
    logs: tuple[Verifier, ...]
    auditor: Policy | None = None
    known: tuple[Policy, ...] = ()


class Facts(NamedTuple):
    """What the rules of the whole ledger need to know of one receipt; a tuple, because one crosses for each entry."""

    kind: str
    stated_on: str
    invocation_id: str | None
    request_id: str | None
    deadline_on: str | None
    policy: str | None
    intent: tuple[int, str] | None
    status: str | None
    refusals: int
    links: tuple[tuple[int, str], ...]
    terms: Terms | End | None


@frozen
class Judged:
    """What became of a batch.

    hashes: its leaf hashes, 32 bytes each. previous: what its first receipt says was the hash before. facts: None for
    an entry that could not be read. signers: the number of the key that signed each, NOBODY for none of them. unsigned,
    key_changes: (index, leaf), to be looked at with the keys of that index. roots: (size, root) of checkpoints that
    verified. unavailable: for each intent whose own policy is not among the known ones, that policy's digest.
    """

    start: int
    hashes: bytes
    previous: str | None
    facts: tuple[Facts | None, ...]
    signers: tuple[int, ...]
    unsigned: tuple[tuple[int, bytes, Finding], ...]
    key_changes: tuple[tuple[int, bytes], ...]
    roots: tuple[tuple[int, bytes], ...]
    unavailable: tuple[str, ...]
    findings: tuple[Finding, ...]


def judge(job: Job, batch: Batch) -> Judged:
    """Judge one batch; never raises for what stands in it."""
    findings: list[Finding] = []
    hashes: list[bytes] = []
    facts: list[Facts | None] = []
    signers: list[int] = []
    unsigned: list[tuple[int, bytes, Finding]] = []
    key_changes: list[tuple[int, bytes]] = []
    known = {policy.digest: policy for policy in job.known}
    numbers = {verifier.keyid: number for number, verifier in enumerate(job.receipts)}
    unavailable: list[str] = []
    first_previous: str | None = None
    for offset, leaf in enumerate(batch.leaves):
        index = batch.start + offset
        hashes.append(leaf_hash(leaf))
        signers.append(NOBODY)
        facts.append(None)
        usual = read_usual(leaf)
        try:
            payload = usual[0] if usual is not None else parse_envelope(leaf).payload
        except GovrunError as error:
            findings.append(finding_of(error, "envelopes", index))
            continue
        try:
            statement = parse_statement(payload)
        except GovrunError as error:
            findings.append(finding_of(error, "receipts", index))
            statement = None
        if statement is not None and statement.kind in KEY_KINDS:
            key_changes.append((index, leaf))
        else:
            try:
                signers[offset] = _signer(job, numbers, usual, leaf)
            except GovrunError as error:
                unsigned.append((index, leaf, finding_of(error, "signatures", index)))
        if statement is None:
            continue
        columns = columns_of(statement)
        facts[offset] = _facts(statement, columns)
        # Of an entry that cannot be read nothing is known that its row could be compared with.
        if batch.columns is not None and batch.columns[offset] != columns:
            findings.append(_another_row(index, batch.columns[offset], columns))
        previous = hashes[-2].hex() if offset else statement.position.previous
        if not offset:
            first_previous = previous
        if statement.position != (job.origin, index, previous):
            findings.extend(_misplacements(statement.position, Position(job.origin, index, previous)))
        if statement.kind == "intent" and job.auditor is not None:
            _judge_intent(index, statement, "policy", job.auditor, findings)
            named = statement.predicate["policy"]["sha256"]
            in_force = known.get(named)
            if in_force is None:
                unavailable.append(named)
            else:
                _judge_intent(index, statement, "policyInForce", in_force, findings)
    roots = _roots(job, batch, findings)
    return Judged(
        batch.start,
        b"".join(hashes),
        first_previous,
        tuple(facts),
        tuple(signers),
        tuple(unsigned),
        tuple(key_changes),
        roots,
        tuple(unavailable),
        tuple(findings),
    )


def _signer(job: Job, numbers: Mapping[str, int], usual: tuple[bytes, str, bytes] | None, leaf: bytes) -> int:
    if usual is not None:
        payload, keyid, sig = usual
        number = numbers.get(keyid)
        if number is not None and job.receipts[number].is_signature(pae(TYPE_BYTES, payload), sig):
            return number
    # The hint is wrong, or not one key that counts has signed: every key is tried, and the error says what is wrong.
    verified = verify_envelope(leaf, job.receipts, 1)
    return job.receipts.index(verified.verifiers[0])


def _facts(statement: Statement, columns: IndexColumns) -> Facts:
    get = statement.predicate.get
    intent, policy, links = get("intent"), get("policy"), get("links")
    return Facts(
        statement.kind,
        columns.stated_on,
        columns.invocation_id,
        columns.request_id,
        get("deadlineOn"),
        None if policy is None else policy["sha256"],
        None if intent is None else (intent["index"], intent["leafHash"]),
        columns.status,
        get("count", 0),
        tuple([(link["index"], link["leafHash"]) for link in links]) if links else (),
        _terms(statement),
    )


def _terms(statement: Statement) -> Terms | End | None:
    if statement.kind == "intent":
        return terms_of(statement.predicate)
    return end_of(statement.predicate) if statement.kind == "outcome" else None


def _misplacements(found: Position, expected: Position) -> Iterator[Finding]:
    index = expected.index
    if found.origin != expected.origin:
        yield _misplaced(
            index, "position.origin", "a receipt was signed for another ledger", found.origin, expected.origin
        )
    if found.index != index:
        yield _misplaced(index, "position.index", "a receipt stands at another place", str(found.index), str(index))
    if found.previous != expected.previous:
        yield chain_broken(index, found.previous, expected.previous)


def chain_broken(index: int, found: str, expected: str) -> Finding:
    """The finding that a receipt follows another entry than the one before it; hashes in hex."""
    return _misplaced(index, "position.previous", "a receipt follows another entry", found[:16], expected[:16])


def _misplaced(index: int, rule: str, what: str, found: str, expected: str) -> Finding:
    return Finding("positions", rule, "error", index, what, found, expected, ExitCode.LEDGER_INCONSISTENT)


def _another_row(index: int, found: tuple[Any, ...] | None, expected: IndexColumns) -> Finding:
    triples = zip(expected._fields, found or (), expected, strict=found is not None)
    names = [name for name, one, other in triples if one != other]
    return Finding(
        "index",
        "index.columns",
        "error",
        index,
        "a row of the search index is not what the entry says",
        "no row" if found is None else f"another {', '.join(names)}",
        "the columns that follow from the entry",
        ExitCode.LEDGER_INCONSISTENT,
    )


def _judge_intent(index: int, statement: Statement, check: str, policy: Policy, findings: list[Finding]) -> None:
    findings.extend(
        Finding(check, v.rule, "error", index, v.what, v.found, v.expected, ExitCode.POLICY_VIOLATED)
        for v in evaluate(policy, statement.predicate).violations
    )


def _roots(job: Job, batch: Batch, findings: list[Finding]) -> tuple[tuple[int, bytes], ...]:
    roots = []
    # With several log keys, or none, every note is looked at as one from anywhere.
    usual = job.logs[0] if [log.name for log in job.logs] == [job.origin] else None
    for size, note in batch.notes:
        if usual is not None and (root := verified_root(note, size, usual)) is not None:
            roots.append((size, root))
            continue
        try:
            checkpoint = verify_checkpoint(note, job.origin, job.logs).checkpoint
        except GovrunError as error:
            findings.append(finding_of(error, "checkpoints", size - 1))
            continue
        if checkpoint.size == size:
            roots.append((size, checkpoint.root))
        else:
            findings.append(
                Finding(
                    "checkpoints",
                    "checkpoint.size",
                    "error",
                    size - 1,
                    "a checkpoint is stored under another size",
                    f"tree size {checkpoint.size}",
                    f"tree size {size}",
                    ExitCode.LEDGER_INCONSISTENT,
                )
            )
    return tuple(roots)


def leaf_hashes(judged: Judged) -> Iterator[bytes]:
    """The leaf hashes of a batch, 32 bytes each, in order."""
    for at in range(0, len(judged.hashes), HASH_BYTES):
        yield judged.hashes[at : at + HASH_BYTES]


def judge_all(job: Callable[[], Job], batches: Iterable[Batch], workers: int) -> Iterator[tuple[int, Judged]]:
    """Judge every batch in order, each by the job of the moment it was sent out; with it, its number of receipt keys.

    One worker means this process. More mean child processes, unless other threads run here: a fork beside them could
    stop for ever. At most IN_FLIGHT batches per worker are out at a time. GovrunError (could-not-check) if a child
    dies.
    """
    if workers <= 1 or not _is_alone():
        for batch in batches:
            now = job()
            yield len(now.receipts), judge(now, batch)
        return
    yield from _judge_in_children(job, batches, workers)


def _is_alone() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _judge_in_children(job: Callable[[], Job], batches: Iterable[Batch], workers: int) -> Iterator[tuple[int, Judged]]:
    # Imported here: a small ledger never needs them.
    import gc
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # What is frozen stays shared with the children instead of being copied by their first collection.
    gc.freeze()
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
    out: deque[tuple[int, Future[Judged]]] = deque()
    try:
        for batch in batches:
            if len(out) >= IN_FLIGHT * workers:
                yield _next(out)
            now = job()
            out.append((len(now.receipts), executor.submit(_judge_packed, now, batch)))
        while out:
            yield _next(out)
    except BrokenProcessPool as error:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "audit.worker",
            "a process that checked entries died",
            found="killed, or out of memory",
            expected="an answer for every batch",
            fix="run it again with one worker, and look at the system's log",
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        gc.unfreeze()


def _judge_packed(job: Job, batch: Batch) -> Judged:
    """`judge`, with its facts as plain tuples."""
    judged = judge(job, batch)
    plain: Any = tuple([f and (*f[:-1], f.terms and tuple(f.terms)) for f in judged.facts])
    return evolve(judged, facts=plain)


def _unpacked(judged: Judged) -> Judged:
    return evolve(judged, facts=tuple([f and _facts_of(f) for f in judged.facts]))


def _facts_of(plain: tuple[Any, ...]) -> Facts:
    kind, *_, terms = plain
    if terms is not None:
        terms = Terms._make(terms) if kind == "intent" else End._make(terms)
    return Facts._make((*plain[:-1], terms))


def _next(out: deque[tuple[int, Future[Judged]]]) -> tuple[int, Judged]:
    keys, future = out.popleft()
    return keys, _unpacked(future.result())
