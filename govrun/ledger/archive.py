"""The zip of an export in its one spelling: members stored as they are, one fixed time, nothing between or behind.

    for each member   local header, name, bytes
    for each member   central header, name
    once              the end; before it the 64 bit end and its locator, when a number is too large for the end alone

Any unzip program reads it. Writing gives equal bytes for equal members, and reading refuses whatever writing would not
have written: compression (and with it bombs), encryption, links, comments, gaps, overlaps, repeated names, bytes before
or behind. PKWARE's APPNOTE, of which this is a part.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

MAX_NAME_BYTES: Final = 200
# A ledger of 130 million entries; what a reader keeps of each member is a few hundred bytes.
MAX_MEMBERS: Final = 1 << 20

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_WIDE: Final = struct.Struct("<2HQ")
_END: Final = struct.Struct("<4s4H2IH")
_WIDE_END: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")

_VERSION: Final = 10
_VERSION_WIDE: Final = 45
_MADE_BY_UNIX: Final = 3 << 8 | _VERSION_WIDE
_FIRST_OF_1980: Final = 0x21
_MODE: Final = 0o100644 << 16
_MOST_16: Final = 0xFFFF
_MOST_32: Final = 0xFFFFFFFF


@frozen
class Member:
    """One file of an archive: its name, its bytes' number and CRC-32, and where its local header begins."""

    name: bytes
    size: int
    crc: int
    offset: int

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.offset + _LOCAL.size + len(self.name) + self.size


def write_archive(target: BinaryIO, members: Iterable[tuple[str, bytes]]) -> int:
    """Write members (ASCII name, bytes), in this order, to a file that is empty; how many there were."""
    offset = 0
    central: list[bytes] = []
    for name, data in members:
        member = Member(name.encode("ascii"), len(data), zlib.crc32(data), offset)
        target.write(_local(member) + data)
        central.append(_central(member))
        offset = member.end
    directory = b"".join(central)
    target.write(directory + _ending(len(central), offset, len(directory)))
    return len(central)


class Archive:
    """An archive that is open for reading; what it lists fits together, and each member is checked when it is read.

    limit_of gives how many bytes a member of this name may have, None for a name that must not be there. Errors are
    GovrunError: could-not-check (`export.form`) for a zip of another form, (`export.unreadable`) when the file cannot
    be read, ledger-inconsistent (`export.member`) for a member that is not what the list says.
    """

    def __init__(self, descriptor: int, limit_of: Callable[[str], int | None]) -> None:
        self._descriptor = descriptor
        self._members = {
            member.name.decode(): member for member in _listed(descriptor, os.fstat(descriptor).st_size, limit_of)
        }

    def names(self) -> tuple[str, ...]:
        """The names of all members, in their order."""
        return tuple(self._members)

    def read(self, name: str) -> bytes | None:
        """The bytes of a member, None if there is none of that name."""
        member = self._members.get(name)
        if member is None:
            return None
        head = _local(member)
        whole = _pread(self._descriptor, len(head) + member.size, member.offset)
        data = whole[len(head) :]
        if whole[: len(head)] != head or len(data) != member.size or zlib.crc32(data) != member.crc:
            raise GovrunError(
                ExitCode.LEDGER_INCONSISTENT,
                "export.member",
                f"{name} is not what the list of the zip says",
                found="other bytes",
                expected=f"{member.size} bytes with CRC-32 {member.crc:08x}",
                fix="get the file once more from whoever exported it",
            )
        return data


def _listed(descriptor: int, file_size: int, limit_of: Callable[[str], int | None]) -> Iterator[Member]:
    """The members, once the list is seen to be the one that writing gives for them."""
    count, start, length = _find_list(descriptor, file_size)
    offset = at = 0
    seen: set[bytes] = set()
    for _ in range(count):
        record = _pread(descriptor, _CENTRAL.size + MAX_NAME_BYTES + _WIDE.size, start + at)
        member, taken = _parse_central(record[: length - at], offset)
        limit = limit_of(member.name.decode("ascii", "replace"))
        if limit is None or member.name in seen:
            raise _foreign(f"a member {member.name[:60]!r}", "each file of an export, once")
        if member.size > limit:
            raise _foreign(f"{member.size} bytes as {member.name.decode()}", f"at most {limit} bytes")
        seen.add(member.name)
        yield member
        offset, at = member.end, at + taken
    if (offset, at) != (start, length):
        raise _foreign("bytes that belong to no member", "members without a gap, and their list")


def _find_list(descriptor: int, file_size: int) -> tuple[int, int, int]:
    """How many members there are, where their list begins, and its length."""
    tail = _pread(descriptor, _END.size, max(0, file_size - _END.size))
    if len(tail) < _END.size or not tail.startswith(b"PK\x05\x06"):
        raise _foreign("another ending", "the end of a zip, and nothing behind it")
    _, _, _, _, count, length, start, _ = _END.unpack(tail)
    if count == _MOST_16 or _MOST_32 in (length, start):
        wide = _pread(descriptor, _WIDE_END.size, max(0, file_size - _END.size - _LOCATOR.size - _WIDE_END.size))
        if len(wide) < _WIDE_END.size:
            raise _foreign("a shortened ending", "the 64 bit end of a zip")
        count, length, start = _WIDE_END.unpack(wide)[7:]
    expected = _ending(count, start, length) if count <= MAX_MEMBERS and start + length <= file_size else b""
    if not expected or start + length + len(expected) != file_size:
        raise _foreign("a list that does not fit the file", f"at most {MAX_MEMBERS} members, their list, the end")
    if _pread(descriptor, len(expected), start + length) != expected:
        raise _foreign("another ending", "the end of a zip without comment, on one disk")
    return count, start, length


def _parse_central(record: bytes, offset: int) -> tuple[Member, int]:
    """The member whose local header should begin at offset, and the length of its record."""
    if len(record) < _CENTRAL.size:
        raise _foreign("a list that ends early", "a record for each member")
    fields = _CENTRAL.unpack_from(record)
    crc, _, size, name_bytes = fields[7:11]
    member = Member(record[_CENTRAL.size : _CENTRAL.size + name_bytes], size, crc, offset)
    expected = _central(member) if name_bytes <= MAX_NAME_BYTES and size < _MOST_32 else b""
    if not expected or record[: len(expected)] != expected:
        raise _foreign(
            f"a member {member.name[:60]!r} in another form",
            "a stored regular file: not compressed, not encrypted, no link, of the one fixed time",
        )
    return member, len(expected)


def _local(member: Member) -> bytes:
    return (
        _LOCAL.pack(
            b"PK\x03\x04",
            _VERSION,
            0,
            0,
            0,
            _FIRST_OF_1980,
            member.crc,
            member.size,
            member.size,
            len(member.name),
            0,
        )
        + member.name
    )


def _central(member: Member) -> bytes:
    is_far = member.offset >= _MOST_32
    extra = _WIDE.pack(1, 8, member.offset) if is_far else b""
    return (
        _CENTRAL.pack(
            b"PK\x01\x02",
            _MADE_BY_UNIX,
            _VERSION_WIDE if is_far else _VERSION,
            0,
            0,
            0,
            _FIRST_OF_1980,
            member.crc,
            member.size,
            member.size,
            len(member.name),
            len(extra),
            0,
            0,
            0,
            _MODE,
            _MOST_32 if is_far else member.offset,
        )
        + member.name
        + extra
    )


def _ending(count: int, start: int, length: int) -> bytes:
    """What stands behind the list of so many members that begins at start and has so many bytes."""
    wide = b""
    if count >= _MOST_16 or start >= _MOST_32 or length >= _MOST_32:
        wide = _WIDE_END.pack(
            b"PK\x06\x06", _WIDE_END.size - 12, _MADE_BY_UNIX, _VERSION_WIDE, 0, 0, count, count, length, start
        ) + _LOCATOR.pack(b"PK\x06\x07", 0, start + length, 1)
    narrow = min(count, _MOST_16)
    return wide + _END.pack(b"PK\x05\x06", 0, 0, narrow, narrow, min(length, _MOST_32), min(start, _MOST_32), 0)


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """So many bytes, or as many as there are."""
    data = bytearray()
    try:
        while len(data) < size and (piece := os.pread(descriptor, size - len(data), offset + len(data))):
            data += piece
    except OSError as error:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "export.unreadable",
            "the zip cannot be read",
            found=os.strerror(error.errno or 0),
            expected="a file that can be read",
        ) from error
    return bytes(data)


def _foreign(found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "export.form",
        "the zip is not in the form of an export",
        found=found,
        expected=expected,
        fix="get it as `govrun ledger export` wrote it; a published ledger zipped by others can be unpacked and named",
    )
