"""Which shared libraries an ELF program asks for, and in which directories its loader looks first.

Only what the loader reads is read: the program headers, the dynamic section, and the names it points to (System V ABI,
chapter 5; ld.so(8) for the search order). 64-bit little-endian files, as x86-64 and aarch64 have them.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NoReturn

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

MAX_SEGMENTS: Final = 256
MAX_ENTRIES: Final = 4096
MAX_TEXT_BYTES: Final = 4096

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_ENTRY: Final = struct.Struct("<qQ")
_CLASS64_LITTLE: Final = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2
_END, _NEEDED, _STRTAB, _RPATH, _RUNPATH = 0, 1, 5, 15, 29


@frozen
class Dynamic:
    """What a program tells its loader. needed: names in order. search: directories in order, `$ORIGIN` unexpanded.

    An empty element of search is the working directory of the process.
    """

    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def read_dynamic(path: Path) -> Dynamic | None:
    """Read the dynamic section; None when the file is not ELF (a script), an empty Dynamic when it needs nothing.

    Raises GovrunError (preflight-refused), rule `elf.<what>`.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return _read(file.fileno())
    except OSError as error:
        _refuse("readable", f"{path.name} cannot be read", error.strerror or "an error", "a readable file")


def _read(descriptor: int) -> Dynamic | None:
    head = os.pread(descriptor, _HEADER.size, 0)
    if not head.startswith(b"\x7fELF"):
        return None
    if len(head) < _HEADER.size or not head.startswith(_CLASS64_LITTLE):
        _refuse("class", "the program is not for this machine", head[4:6].hex(), "64-bit, little-endian")
    fields = _HEADER.unpack(head)
    offset, size, count = fields[5], fields[9], fields[10]
    if size != _SEGMENT.size or count > MAX_SEGMENTS:
        _refuse(
            "malformed", "the program headers are malformed", f"{count} of {size} bytes", f"{_SEGMENT.size} bytes each"
        )
    segments = [_SEGMENT.unpack(_exactly(descriptor, size, offset + i * size)) for i in range(count)]
    dynamic = next((s for s in segments if s[0] == _DYNAMIC), None)
    if dynamic is None:
        return Dynamic()
    loads = [(s[3], s[5], s[2]) for s in segments if s[0] == _LOAD]
    return _read_entries(descriptor, dynamic[2], min(dynamic[5] // _ENTRY.size, MAX_ENTRIES), loads)


def _read_entries(descriptor: int, offset: int, count: int, loads: list[tuple[int, int, int]]) -> Dynamic:
    entries: list[tuple[int, int]] = []
    for tag, value in _ENTRY.iter_unpack(_exactly(descriptor, count * _ENTRY.size, offset)):
        if tag == _END:
            break
        entries.append((tag, value))
    strings = next((value for tag, value in entries if tag == _STRTAB), None)
    if strings is None:
        return Dynamic()
    table = _file_offset(strings, loads)
    texts = [(tag, _text(descriptor, table + value)) for tag, value in entries if tag in (_NEEDED, _RPATH, _RUNPATH)]
    # A RUNPATH makes the loader ignore an RPATH (ld.so(8)).
    tag = _RUNPATH if any(t == _RUNPATH for t, _ in texts) else _RPATH
    search = tuple(part for t, text in texts if t == tag for part in text.split(":"))
    return Dynamic(tuple(text for t, text in texts if t == _NEEDED), search)


def _file_offset(address: int, loads: list[tuple[int, int, int]]) -> int:
    for start, size, offset in loads:
        if start <= address < start + size:
            return offset + address - start
    raise _refusal("malformed", "the string table lies in no segment", hex(address), "an address of a segment")


def _text(descriptor: int, offset: int) -> str:
    data, end, _ = _pread(descriptor, MAX_TEXT_BYTES, offset).partition(b"\0")
    if not end:
        _refuse("malformed", "a name of the dynamic section has no end", f"{len(data)} bytes", "a NUL")
    return os.fsdecode(data)


def _exactly(descriptor: int, size: int, offset: int) -> bytes:
    data = _pread(descriptor, size, offset)
    if len(data) != size:
        _refuse("malformed", "the program ends inside its headers", f"{len(data)} bytes", f"{size} bytes")
    return data


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    # Offsets beyond what a file can have would raise OverflowError, not OSError.
    if offset >= 1 << 62:
        _refuse("malformed", "an offset is impossible", hex(offset), "an offset inside the file")
    return os.pread(descriptor, size, offset)


def _refuse(rule: str, what: str, found: str, expected: str) -> NoReturn:
    raise _refusal(rule, what, found, expected)


def _refusal(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.PREFLIGHT_REFUSED, f"elf.{rule}", what, found=found, expected=expected)
