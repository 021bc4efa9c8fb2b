"""The tree over the entries as they are, held against what is stored: hashes, checkpoints, and a pinned one.

Nothing stored is used to compute anything, so one changed hash shows as itself and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from govrun.audit.report import Finding, Tally, finding_of
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import Checkpoint
from govrun.ledger.merkle import Frontier, HashReader, split_stored_hash_index, stored_hash_count

_NONE_BAD: Final = -1


class TreeWalk:
    """Walks all leaf hashes in order; memory for one batch of hashes."""

    def __init__(self, stored: HashReader, tally: Tally, pin: Checkpoint | None) -> None:
        self.frontier = Frontier()
        self._stored = stored
        self._tally = tally
        self._pin = pin
        self._bad = _NONE_BAD

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
            if self._pin is not None and size == self._pin.size:
                self._compare_pin(self._pin)
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
        if self._pin is not None and self._pin.size > size:
            self._tally.add(
                Finding(
                    "pin",
                    "pin.longer",
                    "error",
                    size,
                    "the ledger ends before the pinned checkpoint does",
                    f"{size} entries",
                    f"at least {self._pin.size}",
                    ExitCode.HISTORY_DIVERGED,
                )
            )

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

    def _compare_pin(self, pin: Checkpoint) -> None:
        found = self.frontier.root()
        if found != pin.root:
            self._tally.add(
                Finding(
                    "pin",
                    "pin.root",
                    "error",
                    pin.size - 1,
                    f"the first {pin.size} entries are not those of the pinned checkpoint",
                    found.hex()[:16],
                    pin.root.hex()[:16],
                    ExitCode.HISTORY_DIVERGED,
                )
            )

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
