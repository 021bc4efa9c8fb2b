"""Where an audit begins: at the first entry, or behind those that a bookmark vouches for.

A bookmark vouches only for the question that is asked now: the same log, keys, program and policies. And the ledger
must still stand on it: the stored hashes must lead to its root, and every older kept head to the same. Otherwise every
entry is read, with the bookmark's checkpoint pinned, so that the verdict is that of a full verification.
"""

from __future__ import annotations

from typing import Final

from govrun import __version__
from govrun.audit.bookmark import Bookmark
from govrun.audit.heads import kept_heads
from govrun.audit.question import Question
from govrun.audit.report import Tally
from govrun.audit.trust import ROLES, Keys, Role, TrustedKeys, first_keys
from govrun.canonical import JsonObject
from govrun.errors import GovrunError
from govrun.frozen import frozen
from govrun.ledger.checkpoint import Checkpoint, verify_checkpoint
from govrun.ledger.merkle import Frontier, consistency_proof, verify_consistency
from govrun.ledger.read import Reader
from govrun.policy import Policy
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope
from govrun.signing.keys import Verifier

# What looked at the entries below a bookmark of ours; another version may look more closely.
PROGRAM: Final = f"govrun {__version__}"


@frozen
class Start:
    """Where to begin, and with which keys.

    frontier: of the entries before. bookmark: what vouches for them, None for none before. genesis: the unverified
    predicate of entry 0, None if it is not read or is none. unused: why a bookmark that was brought cannot vouch.
    """

    frontier: Frontier
    keys: Keys
    bookmark: Bookmark | None = None
    genesis: JsonObject | None = None
    unused: str | None = None

    @property
    def index(self) -> int:
        """The first entry to read."""
        return self.frontier.size


def start_of(
    reader: Reader, trusted: TrustedKeys, question: Question, policy: Policy | None, known: tuple[Policy, ...]
) -> Start:
    """Where an audit begins; never raises for what the ledger holds."""
    unused = None
    if (bookmark := question.bookmark) is not None:
        keys = _keys_of(bookmark)
        unused = _unfit(bookmark, reader.origin, trusted, policy, known)
        if question.read_all:
            unused = "as was asked for"
        if unused is None:
            frontier = _anchored(bookmark, reader, question, keys)
            if frontier is not None:
                return Start(frontier, keys, bookmark)
            unused = "the stored hashes do not lead to the bookmark's checkpoint"
    genesis = _peek_genesis(reader) if reader.size > 0 else None
    return Start(Frontier(), first_keys(reader.origin, trusted, genesis), None, genesis, unused)


def _keys_of(bookmark: Bookmark) -> Keys:
    ring = bookmark.ring
    borrowed: tuple[Role, ...] = tuple(role for role in ROLES if role in ring.from_genesis)
    return Keys(ring.log, ring.receipt, ring.root, borrowed)


def _unfit(
    bookmark: Bookmark, origin: str, trusted: TrustedKeys, policy: Policy | None, known: tuple[Policy, ...]
) -> str | None:
    """Why a bookmark does not answer this question, None if it does."""
    if bookmark.origin != origin:
        return "the bookmark is about another ledger"
    if bookmark.verifier != PROGRAM:
        return f"the bookmark was made by {bookmark.verifier}"
    if trusted.is_empty or not _are_same_keys(bookmark, trusted):
        return "the bookmark was made with other trusted keys"
    if policy is None:
        return None
    by = bookmark.judged_by
    if by is None or by.digest != policy.digest:
        return "the bookmark was not made with this policy"
    if {digest for digest, _ in by.unavailable} & {one.digest for one in known}:
        return "a policy is at hand that was not when the bookmark was made"
    return None


def _are_same_keys(bookmark: Bookmark, trusted: TrustedKeys) -> bool:
    ring = bookmark.ring
    had = {"root": ring.root, "log": ring.log, "receipt": ring.receipt}
    brought = {"root": trusted.root, "log": trusted.log, "receipt": trusted.receipt}
    return all(not brought[role] if role in ring.from_genesis else _same(had[role], brought[role]) for role in ROLES)


def _same(some: tuple[Verifier, ...], others: tuple[Verifier, ...]) -> bool:
    return {(one.name, one.public) for one in some} == {(one.name, one.public) for one in others}


def _anchored(bookmark: Bookmark, reader: Reader, question: Question, keys: Keys) -> Frontier | None:
    """The frontier of the entries below the bookmark's checkpoint, if the stored hashes and older heads lead there."""
    try:
        base = verify_checkpoint(bookmark.checkpoint, bookmark.origin, keys.log).checkpoint
        if not base.size == bookmark.size <= reader.size:
            return None
        frontier = Frontier.at(base.size, reader.hashes)
        if frontier.root() != base.root:
            return None
        # What is wrong with a kept head itself is told where all of them are looked at.
        for kept in kept_heads(question, bookmark.origin, keys, Tally()):
            _check_older(kept.checkpoint, base, reader)
    except GovrunError:
        # Whatever it is, reading every entry finds it and says it.
        return None
    return frontier


def _check_older(old: Checkpoint, base: Checkpoint, reader: Reader) -> None:
    if 0 < old.size <= base.size:
        verify_consistency(consistency_proof(old.size, base.size, reader.hashes), old.root, base.root)


def _peek_genesis(reader: Reader) -> JsonObject | None:
    """The predicate of entry 0 if it is a genesis, unverified; it is verified with all others later."""
    try:
        for leaves in reader.leaves(0, 1, 1):
            statement = parse_statement(parse_envelope(leaves[0]).payload)
            return statement.predicate if statement.kind == "genesis" else None
    except GovrunError:
        # Whatever is wrong with entry 0 is found again, and reported, when all entries are read.
        return None
    return None
