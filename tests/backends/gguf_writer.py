"""GGUF files for tests, written from their parts so that one part can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

UINT32, INT32, STRING, ARRAY = 4, 5, 8, 9

Info = tuple[str, Sequence[int], int, int]


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    """One key with its type number and the bytes of its value."""
    return text(key) + struct.pack("<I", kind) + value


def number(key: str, value: int) -> bytes:
    return entry(key, UINT32, struct.pack("<I", value))


def words(key: str, value: str) -> bytes:
    return entry(key, STRING, text(value))


def array(key: str, kind: int, elements: Sequence[bytes]) -> bytes:
    return entry(key, ARRAY, struct.pack("<IQ", kind, len(elements)) + b"".join(elements))


def texts(key: str, values: Iterable[str | bytes]) -> bytes:
    return array(key, STRING, [text(value) for value in values])


def int32s(key: str, values: Iterable[int]) -> bytes:
    return array(key, INT32, [struct.pack("<i", value) for value in values])


def info(name: str | bytes, dimensions: Sequence[int], kind: int, offset: int) -> bytes:
    sizes = struct.pack(f"<{len(dimensions)}Q", *dimensions)
    return text(name) + struct.pack("<I", len(dimensions)) + sizes + struct.pack("<IQ", kind, offset)


def gguf(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A file of these entries and tensor infos, its data aligned."""
    head = magic + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def tiny(
    *,
    architecture: str = "bitnet-b1.58",
    tokens: Sequence[str | bytes] = ("a", "b", "<|eot_id|>"),
    types: Sequence[int] = (1, 1, 3),
    more: Sequence[bytes] = (),
    tensors: Sequence[bytes] | None = None,
    data: bytes = bytes(64),
    version: int = 3,
) -> bytes:
    """A whole, small model file."""
    entries = [
        words("general.architecture", architecture),
        number(f"{architecture}.context_length", 2048),
        texts("tokenizer.ggml.tokens", tokens),
        int32s("tokenizer.ggml.token_type", types),
        *more,
    ]
    infos = [info("token_embd.weight", (4, 4), 0, 0)] if tensors is None else tensors
    return gguf(entries, infos, data, version=version)
