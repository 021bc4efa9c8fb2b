"""Single entries that a bookmark vouches for, read again because a new entry is about one of them.

Each is proved: by the leaf hash that the bookmark holds, or by an inclusion proof under the bookmark's checkpoint.
Stored hashes of entries that this audit reads are compared by it, and need no proof.
"""

from __future__ import annotations

from govrun.audit.report import Finding, Tally
from govrun.audit.terms import Terms, terms_of
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.merkle import inclusion_proof, leaf_hash, stored_hash_index, verify_inclusion
from govrun.ledger.read import Reader
from govrun.receipt import Statement, parse_statement
from govrun.signing.dsse import parse_envelope


class Vouched:
    """Entries of a ledger; those before start lie under root (a `rules.Earlier`)."""

    def __init__(self, reader: Reader, tally: Tally, start: int, root: bytes) -> None:
        self._reader = reader
        self._tally = tally
        self._start = start
        self._root = root

    def leaf_hash_at(self, index: int) -> str | None:
        try:
            stored = next(iter(self._reader.hashes((stored_hash_index(0, index),))), None)
            if stored is not None and index < self._start:
                self._prove(index, stored)
        except GovrunError:
            # Stored hashes that cannot be read are reported where the tree is compared.
            return None
        return None if stored is None else stored.hex()

    def kind_at(self, index: int) -> str | None:
        try:
            leaf = self._leaf(index)
            self._prove(index, leaf_hash(leaf))
            return _statement(leaf).kind
        except GovrunError:
            return None

    def terms_at(self, index: int, expected: str) -> Terms | None:
        try:
            leaf = self._leaf(index)
            found = leaf_hash(leaf).hex()
            if found == expected:
                return terms_of(_statement(leaf).predicate)
        except GovrunError as error:
            found = error.found or error.what
        self._tally.add(
            Finding(
                "tree",
                "tree.leaf",
                "error",
                index,
                "the entry is not the one that the bookmark vouches for",
                found[:16],
                expected[:16],
                ExitCode.LEDGER_INCONSISTENT,
            )
        )
        return None

    def _leaf(self, index: int) -> bytes:
        return next(iter(self._reader.leaves(index, index + 1, 1)))[0]

    def _prove(self, index: int, found: bytes) -> None:
        verify_inclusion(inclusion_proof(index, self._start, self._reader.hashes), found, self._root)


def _statement(leaf: bytes) -> Statement:
    return parse_statement(parse_envelope(leaf).payload)
