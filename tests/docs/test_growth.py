"""The pictures of docs/growth.md are those of the figures beside them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from benchmarks.draw import PICTURES, draw

DOCS = Path(__file__).parents[2] / "docs"


def test_every_picture_is_drawn_from_the_figures_and_shown() -> None:
    points = json.loads((DOCS / "growth" / "figures.json").read_text())["points"]
    shown = re.findall(r"!\[[^]]+\]\(growth/([a-z-]+)\.svg\)", (DOCS / "growth.md").read_text())
    assert sorted(shown) == sorted(picture.name for picture in PICTURES)
    for picture in PICTURES:
        drawn = draw(picture, points)
        assert drawn == (DOCS / "growth" / f"{picture.name}.svg").read_text()
        assert len(picture.lines) * len(points) == len(ET.fromstring(drawn).findall("{*}circle"))  # noqa: S314 - ours
