"""The Merkle tree of RFC 6962: hashes, roots and proofs, apart from where the hashes are kept.

What is kept is one list that only grows: the hash of every complete subtree, each right behind the last of its
leaves. With leaves a..e (ab is the subtree above a and b):

    0 1 2  3 4 5  6    7
    a b ab c d cd abcd e

A `HashReader` reads from that list. Adding a leaf appends to it, a root or a proof reads about log2(size) of it. What
a reader returns need not be trusted: roots are compared with a signed one, and proofs are verified. Whoever can change
the list can at most make a root or a proof come out wrong, never make a wrong one verify.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

HASH_BYTES: Final = 32
MAX_SIZE: Final = (1 << 63) - 1
MAX_ENTRY_BYTES: Final = 65_535  # a bundle of entries has two bytes for the length of each (`tile`)
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

# Reads the 32-byte hashes that stand at these places of the list, in the order asked for.
HashReader = Callable[[Sequence[int]], Sequence[bytes]]

_sha256 = hashlib.sha256


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 || leaf), 32 bytes (RFC 6962 2.1)."""
    return _sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), 32 bytes (RFC 6962 2.1)."""
    return _sha256(b"\x01" + left + right).digest()


def stored_hash_count(size: int) -> int:
    """How many hashes a tree of size leaves keeps: size + size//2 + size//4 + ..."""
    return 2 * size - size.bit_count()


def stored_hash_index(level: int, n: int) -> int:
    """The place of the hash of the n-th complete subtree of 2**level leaves, counting from 0."""
    last_leaf = ((n + 1) << level) - 1
    return stored_hash_count(last_leaf) + level


def split_stored_hash_index(index: int) -> tuple[int, int]:
    """The level and n of the hash at a place; inverse of `stored_hash_index`."""
    # stored_hash_count(m) <= 2 * m, so the leaf behind which the hash stands is no earlier than index // 2.
    leaf = index // 2
    while stored_hash_count(leaf + 1) <= index:
        leaf += 1
    level = index - stored_hash_count(leaf)
    return level, leaf >> level


def hashes_for_append(size: int, new_leaf_hash: bytes, reader: HashReader) -> tuple[bytes, ...]:
    """What the list grows by when a leaf is added to size others: its hash, then each subtree it completes."""
    completed = (~size & (size + 1)).bit_length() - 1
    siblings = _read(reader, [stored_hash_index(level, (size >> level) - 1) for level in range(completed)])
    hashes = [new_leaf_hash]
    for sibling in siblings:
        hashes.append(node_hash(sibling, hashes[-1]))
    return tuple(hashes)


def root_hash(size: int, reader: HashReader) -> bytes:
    """The root of the tree of size leaves, 32 bytes; of the empty tree, SHA-256 of nothing."""
    return _range_hashes([(0, size)], reader)[0] if size else EMPTY_ROOT


class Frontier:
    """The right edge of a growing tree: at most 63 hashes, from which roots and stored hashes follow.

    `append` costs two hashes on average, `root` at most 62. For whoever walks all leaves in order.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    @classmethod
    def at(cls, size: int, reader: HashReader) -> Frontier:
        """The frontier of the first size leaves of a stored tree."""
        frontier = cls()
        frontier.size = size
        frontier._peaks = list(_read(reader, [stored_hash_index(*peak) for peak in _peaks(0, size)]))
        return frontier

    def copy(self) -> Frontier:
        """The same frontier, to be grown apart from this one."""
        frontier = Frontier()
        frontier.size = self.size
        frontier._peaks = self._peaks.copy()
        return frontier

    def append(self, new_leaf_hash: bytes) -> list[bytes]:
        """Add a leaf; the hashes that the list grows by, in its order (see `hashes_for_append`)."""
        peaks = self._peaks
        hashes = [new_leaf_hash]
        rest = self.size
        while rest & 1:
            new_leaf_hash = _sha256(b"\x01" + peaks.pop() + new_leaf_hash).digest()
            hashes.append(new_leaf_hash)
            rest >>= 1
        peaks.append(new_leaf_hash)
        self.size += 1
        return hashes

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add many leaves; `append` without telling what was completed."""
        peaks, size = self._peaks, self.size
        for new_hash in leaf_hashes:
            new_peak, rest = new_hash, size
            while rest & 1:
                new_peak = _sha256(b"\x01" + peaks.pop() + new_peak).digest()
                rest >>= 1
            peaks.append(new_peak)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The root over all leaves so far, 32 bytes."""
        return _fold(self._peaks) if self._peaks else EMPTY_ROOT


@frozen
class InclusionProof:
    """That a leaf stands at index of a tree of size leaves: the siblings on the way up, leaf's sibling first."""

    index: int
    size: int
    hashes: tuple[bytes, ...]


@frozen
class ConsistencyProof:
    """That a tree of old_size leaves is the beginning of one of new_size leaves (RFC 6962 2.1.2)."""

    old_size: int
    new_size: int
    hashes: tuple[bytes, ...]


def inclusion_proof(index: int, size: int, reader: HashReader) -> InclusionProof:
    """The audit path of RFC 6962 2.1.1. GovrunError (could-not-check) if there is no such leaf."""
    if not 0 <= index < size:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "proof.range",
            "the tree has no such entry",
            found=f"index {index}",
            expected=f"0 <= index < {size}",
        )
    siblings = [(lo, hi) for lo, hi, _ in _path(index, size)]
    return InclusionProof(index, size, _range_hashes(siblings, reader))


def verify_inclusion(proof: InclusionProof, expected_leaf_hash: bytes, root: bytes) -> None:
    """Return if proof leads from the leaf hash to root, both 32 bytes; else GovrunError (ledger-inconsistent)."""
    if not 0 <= proof.index < proof.size <= MAX_SIZE:
        raise _no_inclusion("the entry lies outside the tree", f"index {proof.index}", f"below size {proof.size}")
    path = _path(proof.index, proof.size)
    _check_hashes(proof.hashes, len(path), _no_inclusion)
    _check_hashes((expected_leaf_hash, root), 2, _no_inclusion)
    found = expected_leaf_hash
    for sibling, (_, _, on_the_left) in zip(proof.hashes, path, strict=True):
        found = node_hash(sibling, found) if on_the_left else node_hash(found, sibling)
    if found != root:
        raise _no_inclusion("the inclusion proof leads to another root", found.hex(), root.hex())


def consistency_proof(old_size: int, new_size: int, reader: HashReader) -> ConsistencyProof:
    """The consistency proof of RFC 6962 2.1.2; empty if old_size is 0 or new_size.

    GovrunError (could-not-check) if the sizes are the wrong way round.
    """
    if not 0 <= old_size <= new_size:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "proof.range",
            "the older tree is larger than the newer",
            found=f"size {old_size}",
            expected=f"0 <= size <= {new_size}",
        )
    if old_size in (0, new_size):
        return ConsistencyProof(old_size, new_size, ())
    start, steps = _climb(old_size, new_size)
    ranges = [(lo, hi) for lo, hi, _ in steps]
    return ConsistencyProof(old_size, new_size, _range_hashes([start, *ranges] if start[0] else ranges, reader))


def verify_consistency(proof: ConsistencyProof, old_root: bytes, new_root: bytes) -> None:
    """Return if the tree under new_root begins with the tree under old_root; else GovrunError (history-diverged)."""
    old_size, new_size = proof.old_size, proof.new_size
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise _diverged("the tree is smaller than it was", f"tree size {new_size}", f"at least {old_size}")
    _check_hashes((old_root, new_root), 2, _diverged)
    if old_size in (0, new_size):
        expected = old_root if old_size == new_size else EMPTY_ROOT
        found = new_root if old_size == new_size else old_root
        _check_hashes(proof.hashes, 0, _diverged)
        if found != expected:
            raise _diverged(f"another root at size {old_size}", found.hex(), expected.hex())
        return
    start, steps = _climb(old_size, new_size)
    # An old tree that is one complete subtree is itself the first node of the climb and not repeated in the proof.
    hashes = proof.hashes if start[0] else (old_root, *proof.hashes)
    _check_hashes(hashes, 1 + len(steps), _diverged)
    old = new = hashes[0]
    for sibling, (_, _, on_the_left) in zip(hashes[1:], steps, strict=True):
        if on_the_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root:
        raise _diverged(f"another root at size {old_size}", old.hex(), old_root.hex())
    if new != new_root:
        raise _diverged(f"another root at size {new_size}", new.hex(), new_root.hex())


def _path(index: int, size: int) -> list[tuple[int, int, bool]]:
    """The siblings from leaf to root: leaves lo to hi (exclusive), and whether they stand on the left."""
    lo, hi = 0, size
    siblings = []
    while hi - lo > 1:
        middle = lo + _split(hi - lo)
        if index < middle:
            siblings.append((middle, hi, False))
            hi = middle
        else:
            siblings.append((lo, middle, True))
            lo = middle
    siblings.reverse()
    return siblings


def _climb(old_size: int, new_size: int) -> tuple[tuple[int, int], list[tuple[int, int, bool]]]:
    """The last complete subtree of the old tree, and the siblings met on the way from it to the new root."""
    lo, hi = 0, new_size
    siblings = []
    while hi != old_size:
        middle = lo + _split(hi - lo)
        if old_size <= middle:
            siblings.append((middle, hi, False))
            hi = middle
        else:
            siblings.append((lo, middle, True))
            lo = middle
    siblings.reverse()
    return (lo, hi), siblings


def _split(width: int) -> int:
    """The largest power of two below width (width >= 2): where RFC 6962 cuts a tree in two."""
    return 1 << ((width - 1).bit_length() - 1)


def _peaks(lo: int, hi: int) -> list[tuple[int, int]]:
    """The complete subtrees that make up leaves lo to hi, as (level, n), largest first.

    lo is a multiple of the largest power of two that fits, which holds for every range a proof needs.
    """
    peaks = []
    while lo < hi:
        level = (hi - lo).bit_length() - 1
        peaks.append((level, lo >> level))
        lo += 1 << level
    return peaks


def _range_hashes(ranges: Sequence[tuple[int, int]], reader: HashReader) -> tuple[bytes, ...]:
    """The Merkle tree hash of each range of leaves, with a single read."""
    groups = [_peaks(lo, hi) for lo, hi in ranges]
    stored = _read(reader, [stored_hash_index(*peak) for group in groups for peak in group])
    hashes = []
    at = 0
    for group in groups:
        hashes.append(_fold(stored[at : at + len(group)]))
        at += len(group)
    return tuple(hashes)


def _fold(peaks: Sequence[bytes]) -> bytes:
    result = peaks[-1]
    for peak in reversed(peaks[:-1]):
        result = node_hash(peak, result)
    return result


def _read(reader: HashReader, indexes: Sequence[int]) -> Sequence[bytes]:
    hashes = reader(indexes) if indexes else ()
    if len(hashes) != len(indexes) or any(len(stored) != HASH_BYTES for stored in hashes):
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "tree.stored",
            "stored tree hashes are missing or malformed",
            found=f"{len(hashes)} hashes",
            expected=f"{len(indexes)} hashes of {HASH_BYTES} bytes",
        )
    return hashes


def _check_hashes(hashes: Sequence[bytes], count: int, refuse: Callable[[str, str, str], GovrunError]) -> None:
    if len(hashes) != count:
        raise refuse("the proof has the wrong length", f"{len(hashes)} hashes", f"{count} hashes")
    if any(len(one) != HASH_BYTES for one in hashes):
        raise refuse("the proof has a malformed hash", "another length", f"{HASH_BYTES} bytes")


def _no_inclusion(what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_INCONSISTENT, "proof.inclusion", what, found=found, expected=expected)


def _diverged(what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.HISTORY_DIVERGED, "proof.consistency", what, found=found, expected=expected)
