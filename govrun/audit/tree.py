"""The tree over the entries as they are, held against what is stored: hashes, checkpoints, and a pinned one.

Nothing stored is used to compute anything, so one changed hash shows as itself and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from govrun.audit.heads import KeptHead
from govrun.audit.report import Finding, Tally, finding_of
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import Checkpoint
from govrun.ledger.merkle import Frontier, HashReader, split_stored_hash_index, stored_hash_count

_NONE_BAD: Final = -1


class TreeWalk:
    """Walks leaf hashes in order, from a frontier on; memory for one batch of hashes."""

    def __init__(self, stored: HashReader, tally: Tally, frontier: Frontier) -> None:
        self.frontier = frontier
        self._stored = stored
        self._tally = tally
        self._kept: tuple[KeptHead, ...] = ()
        self._kept_sizes: frozenset[int] = frozenset()
        self._bad = _NONE_BAD

    def hold_against(self, kept: Collection[KeptHead]) -> None:
        """Compare heads with the tree of their size when it is reached; those not beyond the frontier hold already."""
        self._kept = tuple(head for head in kept if head.checkpoint.size > self.frontier.size)
        self._kept_sizes = frozenset(head.checkpoint.size for head in self._kept)

    def add(self, leaf_hashes: Iterable[bytes], roots: Mapping[int, bytes]) -> None:
        """Take the next leaf hashes, 32 bytes each; roots are those of the checkpoints over trees that end there."""
        frontier = self.frontier
        start = frontier.size
        computed: list[bytes] = []
        for one in leaf_hashes:
            computed.extend(frontier.append(one))
            size = frontier.size
            if size in roots:
                self._compare_root("checkpoints", size, roots[size])
            if size in self._kept_sizes:
                self._compare_kept(size)
        self._compare_stored(start, computed)

    def close(self, head: Checkpoint | None) -> None:
        """After the last entry: the newest checkpoint, None when there is none, must be over exactly these entries."""
        size = self.frontier.size
        if head is not None and head.size == size:
            self._compare_root("checkpoint", size, head.root)
        elif head is not None:
            what = "entries are missing" if head.size > size else "entries stand behind the newest checkpoint"
            self._tally.add(
                Finding(
                    "checkpoint",
                    "checkpoint.size",
                    "error",
                    min(size, head.size),
                    what,
                    f"{size} entries",
                    f"{head.size}, as the checkpoint says",
                    ExitCode.LEDGER_INCONSISTENT,
                )
            )
        for kept in self._kept:
            if kept.checkpoint.size > size:
                self._tally.add(kept.is_longer(size))

    def _compare_root(self, check: str, size: int, expected: bytes) -> None:
        found = self.frontier.root()
        if found != expected:
            self._tally.add(
                Finding(
                    check,
                    "checkpoint.root",
                    "error",
                    size - 1,
                    f"the checkpoint of {size} entries was signed over others",
                    found.hex()[:16],
                    expected.hex()[:16],
                    ExitCode.LEDGER_INCONSISTENT,
                )
            )

    def _compare_kept(self, size: int) -> None:
        found = self.frontier.root()
        for kept in self._kept:
            if kept.checkpoint.size == size and kept.checkpoint.root != found:
                self._tally.add(kept.differs(found))

    def _compare_stored(self, start: int, computed: Sequence[bytes]) -> None:
        positions = range(stored_hash_count(start), stored_hash_count(self.frontier.size))
        self._tally.judge("tree", len(positions))
        try:
            stored = self._stored(positions)
            if len(stored) != len(positions):
                # Some are missing: ask one by one, to say which.
                stored = [next(iter(self._stored((position,))), b"") for position in positions]
        except GovrunError as error:
            self._tally.add(finding_of(error, "tree", start))
            return
        if list(stored) == computed:
            return
        for position, found, expected in zip(positions, stored, computed, strict=True):
            if found != expected:
                self._differs(position, found, expected)

    def _differs(self, position: int, found: bytes, expected: bytes) -> None:
        level, n = split_stored_hash_index(position)
        last = ((n + 1) << level) - 1
        if n << level <= self._bad:
            # Below this hash another one differs already, so this one had to.
            return
        self._bad = last
        self._tally.add(
            Finding(
                "tree",
                "tree.leaf" if level == 0 else "tree.node",
                "error",
                last,
                "the entry is not the one that was hashed when it was appended"
                if level == 0
                else f"the stored hash over entries {n << level} to {last} is another",
                found.hex()[:16] or "none stored",
                expected.hex()[:16],
                ExitCode.LEDGER_INCONSISTENT,
            )
        )
