"""Write a sha256 manifest of a directory's files, in the form that `sha256sum --check` reads.

python examples/manifest.py OUTPUT [DIRECTORY]
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

SKIPPED = {
    ".git",
    ".venv",
    ".demo",
    ".govrun",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}


def main() -> int:
    output = Path(sys.argv[1])
    root = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
    rows = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(set(names) - SKIPPED)
        for file in sorted(files):
            path = Path(directory, file)
            if path.is_file() and not path.is_symlink():
                rows.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}")
    output.write_text("\n".join(sorted(rows, key=lambda row: row[66:])) + "\n")
    print(f"{len(rows)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
