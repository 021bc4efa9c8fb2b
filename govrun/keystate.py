"""Which keys a ledger has named so far, and which of them still count: what its genesis and its key entries say.

This reads a ledger that is one's own; who else may be believed is for `audit` to say. A key change that the root keys
before it did not sign counts for nothing here either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from govrun.audit.trust import KeyRing, Keys, Role
from govrun.audit.workers import KEY_KINDS
from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.ledger.read import Reader
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope
from govrun.signing.keys import Verifier, verifier_for

_AT_ONCE: Final = 4096


@frozen
class Revoked:
    """Where a key was revoked, why, and from which index its receipts are suspect (None: none are)."""

    index: int
    reason: str
    suspect_from: int | None


@frozen
class LedgerKey:
    """One key of a ledger; added is the index of the entry that names it first, 0 for the genesis."""

    role: Role
    verifier: Verifier
    added: int
    revoked: Revoked | None = None

    @property
    def counts(self) -> bool:
        """Whether it may sign what comes next."""
        return self.revoked is None


def key_name(origin: str, role: str) -> str:
    """The name of a key: the origin for the log key, the role behind it for the others."""
    return origin if role == "log" else f"{origin}/{role}"


def read_keys(reader: Reader) -> tuple[LedgerKey, ...]:
    """Every key of a ledger, in the order root, log, receipt of the genesis and then as they were added.

    GovrunError: as the reader, and ledger-inconsistent (`keys.genesis`) when entry 0 is no genesis.
    """
    keys = list(_first_keys(reader))
    ring = KeyRing(
        Keys(
            log=(),
            receipt=tuple(key.verifier for key in keys if key.role == "receipt"),
            root=tuple(key.verifier for key in keys if key.role == "root"),
            from_genesis=(),
        )
    )
    for index, leaf in key_entries(reader):
        if ring.apply(index, leaf) is not None:
            continue
        statement = parse_statement(parse_envelope(leaf).payload)
        _apply(keys, statement.kind, statement.predicate, index, reader.origin)
    return tuple(keys)


def _first_keys(reader: Reader) -> Iterator[LedgerKey]:
    leaf = next(iter(reader.leaves(0, 1, 1)), (b"",))[0]
    statement = parse_statement(parse_envelope(leaf).payload)
    if statement.kind != "genesis":
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "keys.genesis",
            "the ledger does not begin with its genesis",
            found=statement.kind,
            expected="genesis",
        )
    roles: tuple[Role, ...] = ("root", "log", "receipt")
    for role in roles:
        public = bytes.fromhex(statement.predicate["keys"][role]["publicKey"])
        yield LedgerKey(role, verifier_for(key_name(reader.origin, role), public), 0)


def key_entries(reader: Reader) -> Iterator[tuple[int, bytes]]:
    """(index, leaf) of each key change, in order; nothing is verified."""
    for start in range(0, reader.size, _AT_ONCE):
        stop = min(start + _AT_ONCE, reader.size)
        columns = reader.columns(start, stop)
        if columns is None:
            yield from _key_leaves(reader, start, stop)
            continue
        # A row that is missing may hide anything, so its leaf is read.
        for index, row in enumerate(columns, start):
            if row is None or row.kind in KEY_KINDS:
                yield from _key_leaves(reader, index, index + 1)


def _key_leaves(reader: Reader, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    index = start
    for batch in reader.leaves(start, stop):
        for leaf in batch:
            if parse_statement(parse_envelope(leaf).payload).kind in KEY_KINDS:
                yield index, leaf
            index += 1


def _apply(keys: list[LedgerKey], kind: str, predicate: JsonObject, index: int, origin: str) -> None:
    role, public = predicate["role"], bytes.fromhex(predicate["key"]["publicKey"])
    at = next((n for n, key in enumerate(keys) if (key.role, key.verifier.public) == (role, public)), None)
    if kind == "keyRevoked":
        # Nothing is revoked twice, and a key that never counted not at all.
        if at is not None and keys[at].revoked is None:
            keys[at] = evolve(keys[at], revoked=Revoked(index, str(predicate["reason"]), predicate["suspectFromIndex"]))
    elif at is None:
        keys.append(LedgerKey(role, verifier_for(key_name(origin, role), public), index))
    elif role == "root":
        # A root key that is added again counts again; a receipt key that was revoked never does.
        keys[at] = evolve(keys[at], revoked=None)


def find_key(keys: tuple[LedgerKey, ...], role: str, public: bytes) -> LedgerKey | None:
    """The key of a role with a public half (32 bytes), None if the ledger names none."""
    return next((key for key in keys if (key.role, key.verifier.public) == (role, public)), None)
