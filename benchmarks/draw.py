"""`python -m benchmarks.draw JSON DIRECTORY`: the curves of `benchmarks.scale` as SVG pictures, written by hand.

One picture for each question: entries on a scale of powers of ten from left to right, the measure from zero upwards.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 45
COLOURS = ("#1f5fa8", "#c2571a", "#3b7d3b", "#8a4a9e")


class Line(NamedTuple):
    """One curve: its words, and the name of its value in a point."""

    words: str
    value: str


class Picture(NamedTuple):
    """One picture: the name of its file, its title, the unit of its values, and its curves."""

    name: str
    title: str
    unit: str
    lines: tuple[Line, ...]


PICTURES = (
    Picture(
        "append",
        "A durable append, against one to a ledger of 1,000 entries in the same loop",
        "times",
        (Line("by the clock on the wall", "append wall ratio"), Line("by CPU time", "append cpu ratio")),
    ),
    Picture("proof-size", "The proof of one entry, leaf and checkpoint in it", "bytes", (Line("size", "proof bytes"),)),
    Picture(
        "proof-make",
        "Making the proof of one entry, the ledger opened for it",
        "ms of CPU",
        (Line("by CPU time", "make proof CPU ms"),),
    ),
    Picture(
        "proof-verify",
        "Verifying it: `govrun verify PROOF`, from start to end",
        "ms of CPU",
        (Line("by CPU time", "verify proof CPU ms"),),
    ),
    Picture(
        "verify",
        "A full verification, for each entry",
        "us of CPU",
        (Line("start of the command included", "verify CPU us"),),
    ),
    Picture(
        "storage",
        "Room on the disk, for each entry, appended in groups",
        "bytes",
        (
            Line("leaf", "leaf bytes"),
            Line("tree", "tree bytes"),
            Line("search index", "index bytes"),
            Line("tables, checkpoints, salts", "other bytes"),
        ),
    ),
)


def draw(picture: Picture, points: list[dict[str, float]]) -> str:
    """The picture as one SVG document; points without a value of it are left out."""
    top = _round_up(max(point.get(line.value, 0) for line in picture.lines for point in points))
    left, right = (math.log10(points[at]["entries"]) for at in (0, -1))

    def x(entries: float) -> float:
        return LEFT + (math.log10(entries) - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 20, picture.title, "start", 14)]
    for step in range(5):
        value = top * step / 4
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y(value) + 4, f"{value:,.6g}", "end"))
    parts.append(_text(LEFT - 8, TOP - 12, picture.unit, "end"))
    for point in points:
        parts.append(_text(x(point["entries"]), HEIGHT - 22, f"{point['entries']:,.0f}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "entries in the ledger", "middle"))
    for number, line in enumerate(picture.lines):
        colour = COLOURS[number]
        known = [(x(point["entries"]), y(point[line.value])) for point in points if line.value in point]
        way = "L".join(f"{at:.1f} {height:.1f}" for at, height in known)
        parts.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{at:.1f}" cy="{height:.1f}" r="3.5" fill="{colour}"/>' for at, height in known]
        if len(picture.lines) > 1:
            parts.append(_text(LEFT + 150 * number, 38, line.words, "start", 11, colour))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, words: str, anchor: str, size: int = 11, colour: str = "#333333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} font-family="sans-serif" fill="{colour}">{escape(words)}</text>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten, so that the lines of the grid have short numbers."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= value)


def main() -> None:
    """Draw every picture whose values are there."""
    points: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())["points"]
    directory = Path(sys.argv[2])
    directory.mkdir(exist_ok=True)
    for picture in PICTURES:
        if any(line.value in point for line in picture.lines for point in points):
            (directory / f"{picture.name}.svg").write_text(draw(picture, points))


if __name__ == "__main__":
    main()
