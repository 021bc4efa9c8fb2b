"""A backend whose import fails."""

raise RuntimeError("no backend here")
