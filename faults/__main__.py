"""`python -m faults [--quick] [--json] [PART ...]`: cause faults, and say what was lost (nothing, or exit 1)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from faults import judge, trace
from faults.report import Row, table

PARTS = ("calls", "power", "mutants")
SEED = 20261122


def main() -> None:
    """Run every part that was asked for; a table on stdout, what did not hold on stderr."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a sample, chosen by the seed")
    parser.add_argument("--seed", type=int, default=SEED, help="what a sample is chosen by (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 1) + 1, help="how many at a time")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    parts = given.parts or PARTS
    began = time.monotonic()
    rows: list[Row] = []
    not_shown: list[str] = []
    print(f"seed {given.seed}", file=sys.stderr)
    # No fault here depends on a real disk, and many cases wait for one.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a directory of our own is made in it
    with tempfile.TemporaryDirectory(prefix="govrun-faults-", dir=memory) as directory:
        rows = _parts(Path(directory), given, parts, not_shown)
    held = not any(row.broken for row in rows)
    if given.json:
        print(
            json.dumps({"seed": given.seed, "held": held, "notShown": not_shown, "rows": [r._asdict() for r in rows]})
        )
    else:
        print(table(rows))
        print(f"\n{sum(r.times for r in rows):,} faults in {time.monotonic() - began:.0f} s, seed {given.seed}")
    for line in (*not_shown, *(words for row in rows for words in row.broken)):
        print(line, file=sys.stderr)
    sys.exit(0 if held else 1)


def _parts(directory: Path, given: argparse.Namespace, parts: list[str], not_shown: list[str]) -> list[Row]:
    rows: list[Row] = []
    if {"calls", "power"} & set(parts):
        if problem := trace.missing():
            not_shown.append(f"NOT SHOWN: system calls and power: {problem}")
        else:
            program = judge.build(directory)
            if program.absent:
                not_shown.append(f"NOT SHOWN: {program.absent}")
            if "calls" in parts:
                from faults import inject

                rows += inject.rows(directory, 12 if given.quick else None, given.seed, given.jobs, program)
            if "power" in parts:
                from faults import power

                rows += power.rows(directory, 15 if given.quick else None, given.seed, given.jobs, program)
    if "mutants" in parts:
        from faults import mutate

        rows += mutate.rows(directory, 5 if given.quick else None, given.seed, given.jobs)
    return rows


if __name__ == "__main__":
    main()
