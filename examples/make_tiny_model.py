"""Write a tiny ternary model that runs in llama.cpp, the same bytes every time, with nothing but the standard library.

    python examples/make_tiny_model.py examples/tiny-bitnet-tq2_0.gguf

The file is a GGUF of architecture `bitnet` whose weights are ternary (TQ2_0, as in BitNet b1.58): one layer of width
256. Embeddings and attention are pseudo-random; the feed-forward part is laid out so that the greedy answer is known
and holds with a wide margin on every machine: the model continues the alphabet and the digits, ends a row with a full
stop, and stops after it. `abc` gives `defghijklmnopqrstuvwxyz.`; `-` gives `=-=-=-` until the limit.

It knows nothing else. It exists so that a real engine, a real preflight and a real receipt can be tried in a second.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SEED: Final = b"govrun tiny bitnet 1"
WIDTH: Final = 256  # also the block size of TQ2_0, so a row is a whole number of blocks
HALF: Final = WIDTH // 2
HIDDEN: Final = 512
HEADS: Final = 4
CONTEXT: Final = 4096
ALIGNMENT: Final = 32

UNKNOWN, BEGIN, END = 0, 1, 2
NORMAL_TYPE, UNKNOWN_TYPE, CONTROL_TYPE, BYTE_TYPE = 1, 2, 3, 6  # llama.cpp, enum llama_token_type
F32, TQ2_0 = 0, 35  # ggml.h, enum ggml_type
FILE_TYPE_TQ2_0: Final = 37  # llama.h, LLAMA_FTYPE_MOSTLY_TQ2_0

SPACE: Final = "\u2581"  # how a SentencePiece vocabulary writes a space
PIECES: Final = ("<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), SPACE, *map(chr, range(0x21, 0x7F)))
TYPES: Final = (
    UNKNOWN_TYPE,
    CONTROL_TYPE,
    CONTROL_TYPE,
    *([BYTE_TYPE] * 256),
    *([NORMAL_TYPE] * (len(PIECES) - 259)),
)

Row = list[int]  # ternary: -1, 0 or 1


def successors() -> list[tuple[int, int]]:
    """(token, the token that the model says after it) for every token that has one."""
    number = {piece: index for index, piece in enumerate(PIECES)}
    pairs = [(number["."], END)]
    for first, last in ("az", "AZ", "09"):
        codes = range(ord(first), ord(last))
        pairs += [(number[chr(code)], number[chr(code + 1)]) for code in codes]
        pairs.append((number[last], number["."]))
    pairs += [(number["-"], number["="]), (number["="], number["-"])]
    return [*pairs, (number[SPACE], number["a"]), (BEGIN, number["a"])]


def trits(name: str, count: int) -> Row:
    """count pseudo-random ternary values that depend on SEED and name alone."""
    return [byte % 3 - 1 for byte in hashlib.shake_128(SEED + name.encode()).digest(count)]


def random_matrix(name: str, rows: int, columns: int) -> list[Row]:
    values = trits(name, rows * columns)
    return [values[start : start + columns] for start in range(0, len(values), columns)]


def embeddings() -> list[Row]:
    """One row per token: its own code, then the sum of codes of the tokens before it, cut to ternary.

    The second half is what `output_norm` lets through, so a token wins when its predecessor's code stands there.
    """
    codes = [trits(f"code {index}", HALF) for index in range(len(PIECES))]
    before: list[list[Row]] = [[] for _ in PIECES]
    for token, next_token in successors():
        before[next_token].append(codes[token])
    rows = []
    for own, previous in zip(codes, before, strict=True):
        sums = [sum(column) for column in zip(*previous, strict=True)] or [0] * HALF
        rows.append([*own, *((total > 0) - (total < 0) for total in sums)])
    return rows


def feed_forward() -> tuple[list[Row], list[Row]]:
    """Gate (and up), then down: they copy the first half of a vector, its own code, into the second.

    A unit computes z * silu(z). Of two units, one sees z and one sees -z; their difference is z * z * tanh(z / 2), odd
    in z, so the sign of every element survives.
    """
    gate = [[0] * WIDTH for _ in range(HIDDEN)]
    down = [[0] * HIDDEN for _ in range(WIDTH)]
    for element in range(HALF):
        gate[element][element], gate[element + HALF][element] = 1, -1
        down[element + HALF][element], down[element + HALF][element + HALF] = 1, -1
    return gate, down


def pack_ternary(rows: list[Row], scale: float) -> bytes:
    """Rows as TQ2_0: per 256 values 64 bytes of four 2-bit fields (value + 1), then the scale as float16.

    Byte 32 * h + m holds the values 128 * h + m + 32 * n at bit 2 * n (ggml-quants.c, quantize_row_tq2_0_ref).
    """
    packed = bytearray()
    for row in rows:
        for start in range(0, len(row), 256):
            for half in (start, start + 128):
                for m in range(half, half + 32):
                    packed.append(sum((row[m + 32 * n] + 1) << (2 * n) for n in range(4)))
            packed += struct.pack("<e", scale)
    return bytes(packed)


def pack_floats(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def tensors() -> Iterator[tuple[str, tuple[int, ...], int, bytes]]:
    """(name, dimensions with the fastest first, type, data) of every tensor of architecture bitnet."""
    ones = [1.0] * WIDTH
    gate, down = feed_forward()
    yield "token_embd.weight", (WIDTH, len(PIECES)), TQ2_0, pack_ternary(embeddings(), 1.0)
    yield "output_norm.weight", (WIDTH,), F32, pack_floats([0.0] * HALF + [0.06] * HALF)
    yield "blk.0.attn_norm.weight", (WIDTH,), F32, pack_floats(ones)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        data = pack_ternary(random_matrix(name, WIDTH, WIDTH), 0.01)
        yield f"blk.0.{name}.weight", (WIDTH, WIDTH), TQ2_0, data
    yield "blk.0.attn_sub_norm.weight", (WIDTH,), F32, pack_floats(ones)
    yield "blk.0.ffn_norm.weight", (WIDTH,), F32, pack_floats(ones)
    for name in ("ffn_gate", "ffn_up"):
        yield f"blk.0.{name}.weight", (WIDTH, HIDDEN), TQ2_0, pack_ternary(gate, 1.0)
    yield "blk.0.ffn_sub_norm.weight", (HIDDEN,), F32, pack_floats([1.0] * HIDDEN)
    yield "blk.0.ffn_down.weight", (HIDDEN, WIDTH), TQ2_0, pack_ternary(down, 4.0)


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata() -> list[bytes]:
    """The key-value pairs, each ready to be written."""

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    def uint32(key: str, value: int) -> bytes:
        return pair(key, 4, struct.pack("<I", value))

    def boolean(key: str, value: bool) -> bytes:
        return pair(key, 7, struct.pack("<?", value))

    def string(key: str, value: str) -> bytes:
        return pair(key, 8, text(value))

    def array(key: str, kind: int, items: list[bytes]) -> bytes:
        return pair(key, 9, struct.pack("<IQ", kind, len(items)) + b"".join(items))

    return [
        string("general.architecture", "bitnet"),
        string("general.name", "govrun-tiny-bitnet"),
        uint32("general.file_type", FILE_TYPE_TQ2_0),
        uint32("general.quantization_version", 2),
        uint32("bitnet.context_length", CONTEXT),
        uint32("bitnet.embedding_length", WIDTH),
        uint32("bitnet.block_count", 1),
        uint32("bitnet.feed_forward_length", HIDDEN),
        uint32("bitnet.attention.head_count", HEADS),
        uint32("bitnet.attention.head_count_kv", HEADS),
        pair("bitnet.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        uint32("bitnet.rope.dimension_count", WIDTH // HEADS),
        pair("bitnet.rope.freq_base", 6, struct.pack("<f", 10000.0)),
        uint32("bitnet.vocab_size", len(PIECES)),
        string("tokenizer.ggml.model", "llama"),
        array("tokenizer.ggml.tokens", 8, [text(piece) for piece in PIECES]),
        array("tokenizer.ggml.scores", 6, [struct.pack("<f", 0.0) for _ in PIECES]),
        array("tokenizer.ggml.token_type", 5, [struct.pack("<i", kind) for kind in TYPES]),
        uint32("tokenizer.ggml.bos_token_id", BEGIN),
        uint32("tokenizer.ggml.eos_token_id", END),
        uint32("tokenizer.ggml.unknown_token_id", UNKNOWN),
        boolean("tokenizer.ggml.add_bos_token", True),
        boolean("tokenizer.ggml.add_space_prefix", False),
    ]


def model() -> bytes:
    """The whole file: GGUF version 3, little-endian."""
    pairs, parts = metadata(), list(tensors())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(pairs)) + b"".join(pairs)
    body = bytearray()
    for name, dimensions, kind, data in parts:
        head += text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(body))
        body += data + bytes(-len(data) % ALIGNMENT)
    return head + bytes(-len(head) % ALIGNMENT) + bytes(body)


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "tiny-bitnet-tq2_0.gguf")
    data = model()
    path.write_bytes(data)
    print(f"{path}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
