"""The least of an ELF program for tests: headers and a dynamic section, each part of which can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def elf(
    needed: Sequence[str],
    *,
    runpath: str | None = None,
    rpath: str | None = None,
    dynamic: bool = True,
    strings: bool = True,
    segment_bytes: int = 56,
    segments: int = 2,
    dynamic_offset: int = 256,
    table_address: int | None = None,
) -> bytes:
    """64-bit little-endian; one PT_LOAD at address 0x10000, one PT_DYNAMIC, the string table right behind it."""
    base = 0x10000
    table, entries = b"\0", []
    for tag, name in [*((1, name) for name in needed), (29, runpath), (15, rpath)]:
        if name is not None:
            entries.append((tag, len(table)))
            table += name.encode() + b"\0"
    table_offset = 256 + 16 * (len(entries) + 2)
    if strings:
        entries.insert(0, (5, base + table_offset if table_address is None else table_address))
    entries.append((0, 0))
    section = b"".join(struct.pack("<qQ", tag, value) for tag, value in entries)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, segment_bytes, segments, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, 1 << 16, 1 << 16, 4096)
    kind = 2 if dynamic else 4
    place = struct.pack("<IIQQQQQQ", kind, 6, dynamic_offset, base + 256, base + 256, len(section), len(section), 8)
    return (header + load + place).ljust(256, b"\0") + section.ljust(table_offset - 256, b"\0") + table
