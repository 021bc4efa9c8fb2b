"""Make the corpus again: python -m tests.vectors.make DIRECTORY.

Keys and nonces are fixed and published, the clock is fixed, and nothing of govrun is used: what the cases hold follows
from SPEC. The same bytes come out every time, and a test compares them with the ones that are here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.vectors.make import (
    of_disclosures,
    of_envelopes,
    of_json,
    of_keys,
    of_ledgers,
    of_notes,
    of_policies,
    of_proofs,
    of_statements,
    of_trees,
)
from tests.vectors.make.case import Case

PARTS = (
    of_keys,
    of_json,
    of_envelopes,
    of_statements,
    of_notes,
    of_trees,
    of_proofs,
    of_ledgers,
    of_policies,
    of_disclosures,
)


def cases() -> Iterator[Case]:
    """Every case, each of another name."""
    seen: set[str] = set()
    for part in PARTS:
        for case in part.cases():
            assert case.directory not in seen, case.directory
            seen.add(case.directory)
            yield case


def main() -> int:
    place = Path(sys.argv[1])
    for case in cases():
        case.write(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
