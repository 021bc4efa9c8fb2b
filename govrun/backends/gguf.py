"""GGUF headers: metadata and tensor infos, read within bounds and without the weights.

A file is hostile until shown otherwise: every count and length is compared with the bytes that are left before anything
is read or allocated, and only short values are kept. The layout is that of the GGUF specification, versions 2 and 3:

    "GGUF" | u32 version | u64 tensors | u64 keys | key* | tensor* | padding | data
    key    = string, u32 type, value         string = u64 length, bytes        array = u32 type, u64 count, element*
    tensor = string, u32 dimensions, u64 size*, u32 type, u64 offset into data
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_HEADER_BYTES: Final = 128 << 20
MAX_KEYS: Final = 4096
MAX_TENSORS: Final = 65_536
MAX_TEXTS: Final = 1 << 20  # elements of one array of strings
MAX_NAME_BYTES: Final = 65_535
KEPT_TEXT_BYTES: Final = 4096
DEFAULT_ALIGNMENT: Final = 32

_WINDOW_BYTES: Final = 1 << 18
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32: Final = _SCALARS[4]
_U64: Final = _SCALARS[10]
_INT32: Final = 5


@frozen
class ArraySpan:
    """Where an array lies: element type, number of elements, file offset of the first in bytes."""

    kind: int
    count: int
    offset: int


@frozen
class TextSpan:
    """Where a string lies that is too long to keep: file offset and size in bytes."""

    offset: int
    size: int


Value = int | float | bool | str | ArraySpan | TextSpan


@frozen
class Tensor:
    """One tensor's info. dimensions: elements, innermost first, 1 to 4. offset: bytes from `Header.data_offset`."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int


@frozen
class Header:
    """All of a GGUF file but its data. values: (key, value) pairs in file order. sizes and offsets in bytes."""

    version: int
    values: tuple[tuple[str, Value], ...]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_size: int

    def value(self, key: str) -> Value | None:
        """The value of a key, None when the file has no such key."""
        return next((value for name, value in self.values if name == key), None)


def read_version(path: Path) -> int:
    """Read magic and version, 8 bytes, and judge only the magic.

    Raises GovrunError (preflight-refused), rule `gguf.magic`, `gguf.truncated` or `gguf.readable`.
    """
    with _opened(path) as reader:
        return _read_start(reader)


def read_header(path: Path) -> Header:
    """Read everything before the data. Raises GovrunError (preflight-refused), rule `gguf.<what>`, and nothing else."""
    with _opened(path) as reader:
        version = _read_start(reader)
        if version not in VERSIONS:
            _refuse("version", "the GGUF version is not supported", str(version), " or ".join(map(str, VERSIONS)))
        tensors, keys = reader.u64(), reader.u64()
        _bound("tensors", tensors, MAX_TENSORS)
        _bound("keys", keys, MAX_KEYS)
        values = _read_values(reader, keys)
        infos = _read_tensors(reader, tensors)
        alignment = _alignment(dict(values).get("general.alignment", DEFAULT_ALIGNMENT))
        data_offset = -(-reader.offset // alignment) * alignment
        return Header(version, values, infos, data_offset, reader.size)


def read_texts(path: Path, span: ArraySpan) -> Iterator[bytes]:
    """Yield the strings of an array, in order; same errors as `read_header`."""
    with _opened(path) as reader:
        if span.kind != _STRING:
            _refuse("type", "an array does not hold strings", f"type {span.kind}", f"type {_STRING}")
        _bound("strings", span.count, MAX_TEXTS)
        reader.seek(span.offset)
        for _ in range(span.count):
            yield reader.take(_bound("string bytes", reader.u64(), MAX_NAME_BYTES))


def read_int32s(path: Path, span: ArraySpan) -> tuple[int, ...]:
    """Read an array of int32; same errors as `read_header`."""
    with _opened(path) as reader:
        if span.kind != _INT32:
            _refuse("type", "an array does not hold int32", f"type {span.kind}", f"type {_INT32}")
        reader.seek(span.offset)
        count = _bound("numbers", span.count, MAX_TEXTS)
        return struct.unpack(f"<{count}i", reader.take(4 * count))


def _read_start(reader: _Reader) -> int:
    magic = reader.take(min(4, reader.size))
    if magic != MAGIC:
        _refuse("magic", "the file is not GGUF", repr(magic), repr(MAGIC))
    return reader.u32()


def _read_values(reader: _Reader, count: int) -> tuple[tuple[str, Value], ...]:
    values: dict[str, Value] = {}
    for _ in range(count):
        key = reader.name()
        if key in values:
            _refuse("duplicate", "a key stands twice", ascii(key[:64]), "each key once")
        values[key] = _read_value(reader, reader.u32())
    return tuple(values.items())


def _read_value(reader: _Reader, kind: int) -> Value:
    if kind in _SCALARS:
        value: int | float | bool = reader.unpack(_SCALARS[kind])
        return value
    if kind == _STRING:
        size = reader.u64()
        if size > KEPT_TEXT_BYTES:
            span = TextSpan(reader.offset, size)
            reader.seek(reader.offset + size)
            return span
        return _text(reader.take(size))
    if kind == _ARRAY:
        return _read_array(reader)
    raise _refusal("type", "a value has an unknown type", str(kind), "0 to 12")


def _read_array(reader: _Reader) -> ArraySpan:
    kind, count = reader.u32(), reader.u64()
    span = ArraySpan(kind, count, reader.offset)
    if kind in _SCALARS:
        reader.seek(reader.offset + count * _SCALARS[kind].size)
    elif kind == _STRING:
        reader.skip_texts(_bound("strings", count, MAX_TEXTS))
    else:
        # The engines abort on arrays of arrays; no writer makes them.
        _refuse("type", "an array has elements that no engine reads", f"type {kind}", "numbers or strings")
    return span


def _read_tensors(reader: _Reader, count: int) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        name = reader.name()
        if name in tensors:
            _refuse("duplicate", "a tensor stands twice", ascii(name[:64]), "each tensor once")
        rank = reader.u32()
        if not 1 <= rank <= 4:
            _refuse("shape", "a tensor has a wrong number of dimensions", str(rank), "1 to 4")
        dimensions = tuple(reader.u64() for _ in range(rank))
        elements = 1
        for size in dimensions:
            elements *= size
        if not 0 < elements < 1 << 63:
            _refuse(
                "shape", "a tensor has an impossible shape", " x ".join(map(str, dimensions)), "1 to 2^63 - 1 in all"
            )
        tensors[name] = Tensor(name, dimensions, reader.u32(), reader.u64())
    return tuple(tensors.values())


def _alignment(value: Value) -> int:
    if type(value) is not int or not 0 < value <= 1 << 20 or value & (value - 1):
        _refuse("alignment", "general.alignment is not an alignment", ascii(value)[:64], "a power of two up to 2^20")
    return value


class _Reader:
    """A position in a file of known size, one window of it in memory; refuses to pass the end or the header limit."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._start = 0
        self._window = b""
        self._at = 0

    @property
    def offset(self) -> int:
        return self._start + self._at

    def seek(self, offset: int) -> None:
        if offset > self.size:
            _refuse("truncated", "the file ends inside its header", f"{self.size} bytes", f"at least {offset} bytes")
        if offset > MAX_HEADER_BYTES:
            _refuse("limit", "the header is too large", f"at least {offset} bytes", f"at most {MAX_HEADER_BYTES} bytes")
        if self._start <= offset <= self._start + len(self._window):
            self._at = offset - self._start
        else:
            self._start, self._window, self._at = offset, b"", 0

    def take(self, size: int) -> bytes:
        end = self.offset + size
        if self._at + size > len(self._window):
            start = self.offset
            self.seek(end)
            self._start, self._window, self._at = start, self._pread(max(size, _WINDOW_BYTES), start), 0
        data = self._window[self._at : self._at + size]
        if len(data) != size:
            _refuse("truncated", "the file became shorter while it was read", f"{len(data)} bytes", f"{size} bytes")
        self._at += size
        return data

    def _pread(self, size: int, start: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, start)
        except OSError as error:
            _refuse("readable", "the model cannot be read", error.strerror or "an error", "a readable file")

    def unpack(self, form: struct.Struct) -> int | float | bool:
        value: int | float | bool = form.unpack(self.take(form.size))[0]
        return value

    def u32(self) -> int:
        return int(self.unpack(_U32))

    def u64(self) -> int:
        return int(self.unpack(_U64))

    def name(self) -> str:
        text = _text(self.take(_bound("name bytes", self.u64(), MAX_NAME_BYTES)))
        # Engines compare names as C strings: what follows a NUL would hide a duplicate.
        if not text or "\0" in text:
            _refuse("name", "a name is empty or contains NUL", ascii(text[:64]), "a name")
        return text

    def skip_texts(self, count: int) -> None:
        read = _U64.unpack_from
        while count:
            if self._at + 8 > len(self._window):
                self.take(8)
                self._at -= 8
            window, at, last = self._window, self._at, len(self._window) - 8
            while count and at <= last:
                at += 8 + read(window, at)[0]
                count -= 1
            self.seek(self._start + at)


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        _refuse("readable", "the model cannot be read", error.strerror or "an error", "a readable file")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            _refuse("regular", "the model is not a regular file", "something else", "a regular file")
        yield _Reader(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("utf8", "a string is not UTF-8", "undecodable bytes", "UTF-8")


def _bound(what: str, count: int, maximum: int) -> int:
    if count > maximum:
        _refuse("limit", f"the header declares too many {what}", str(count), f"at most {maximum}")
    return count


def _refuse(rule: str, what: str, found: str, expected: str) -> NoReturn:
    raise _refusal(rule, what, found, expected)


def _refusal(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(ExitCode.PREFLIGHT_REFUSED, f"gguf.{rule}", what, found=found, expected=expected)
