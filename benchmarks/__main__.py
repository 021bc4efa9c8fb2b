"""`python -m benchmarks [--quick] [--json] [MEASURE ...]`: take the figures and print them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Row

MEASURES = ("start", "append", "group", "peers", "scale", "verify")
_HEAD = ("measure", "govrun", "peer or floor", "ratio", "bar", "met")


def main() -> None:
    """Take every measure that was asked for; print a table as it is to stand in docs/benchmarks.md, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"which of {', '.join(MEASURES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller ledgers: a look, not a figure")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--directory", type=Path, help="where the temporary ledgers lie: their disk is what is measured"
    )
    given = parser.parse_args()
    if unknown := set(given.measures) - set(MEASURES):
        parser.error(f"there is no measure {', '.join(sorted(unknown))}")
    # Without byte code every start compiles every module, and no figure means anything.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows: list[Row] = []
    for name in given.measures or MEASURES:
        measure = importlib.import_module(f"benchmarks.{name}")
        with tempfile.TemporaryDirectory(dir=given.directory, prefix="govrun-bench-") as directory:
            for row in measure.rows(Path(directory), given.quick):
                rows.append(row)
                print(f"{row.measure}: {_ratio(row)}", file=sys.stderr, flush=True)
    print(json.dumps(_document(rows), indent=2) if given.json else _table(rows))


def machine() -> str:
    """What the figures were taken on."""
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {platform.system()}"


def _document(rows: list[Row]) -> dict[str, object]:
    return {"machine": machine(), "rows": [{"measure": r.measure, **r._asdict()} for r in rows]}


def _table(rows: list[Row]) -> str:
    cells = [
        (r.measure, r.govrun, r.peer, _ratio(r), r.bar, {True: "yes", False: "no", None: ""}[r.is_met]) for r in rows
    ]
    widths = [max(len(row[n]) for row in (_HEAD, *cells)) for n in range(len(_HEAD))]
    lines = [_HEAD, tuple("-" * width for width in widths), *cells]
    shown = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([*shown, "", machine()])


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f}"


if __name__ == "__main__":
    main()
