"""Reading GGUF headers: real ones, hostile ones, and every mutation of a good one."""

from __future__ import annotations

import os
import resource
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun.backends import gguf
from govrun.errors import ExitCode, GovrunError
from tests.backends import gguf_writer as write
from tests.backends.bitnet_world import MODEL

HUGE = (1 << 31, 1 << 60, 1 << 63, (1 << 64) - 1)


def read(path: Path, data: bytes) -> gguf.Header:
    path.write_bytes(data)
    return gguf.read_header(path)


def refused(path: Path, data: bytes) -> str:
    """The rule under which a file is refused, quickly and with little memory."""
    path.write_bytes(data)
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(GovrunError) as refusal:
            gguf.read_header(path)
        assert time.perf_counter() - begin < 2
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert refusal.value.code == ExitCode.PREFLIGHT_REFUSED
    return refusal.value.rule


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_a_real_header_is_read() -> None:
    header = gguf.read_header(MODEL)
    assert header.version == 3
    assert header.value("general.architecture") == "bitnet-b1.58"
    assert header.value("bitnet-b1.58.context_length") == 2048
    assert header.value("tokenizer.ggml.add_bos_token") is True
    assert header.value("no.such.key") is None
    assert len(header.values) == 23
    assert len(header.tensors) == 24
    assert header.tensors[0] == gguf.Tensor("token_embd.weight", (256, 288), 1, 0)
    assert header.file_size == MODEL.stat().st_size
    assert header.data_offset % 32 == 0


def test_a_real_vocabulary_is_read() -> None:
    header = gguf.read_header(MODEL)
    tokens, types = header.value("tokenizer.ggml.tokens"), header.value("tokenizer.ggml.token_type")
    assert isinstance(tokens, gguf.ArraySpan)
    assert isinstance(types, gguf.ArraySpan)
    texts = list(gguf.read_texts(MODEL, tokens))
    kinds = gguf.read_int32s(MODEL, types)
    assert len(texts) == len(kinds) == 288
    assert (texts[270], kinds[270]) == (b"<|eot_id|>", 3)


def test_every_type_of_value_is_read(path: Path) -> None:
    cases: dict[int, tuple[bytes, gguf.Value]] = {
        0: (struct.pack("<B", 255), 255),
        1: (struct.pack("<b", -1), -1),
        2: (struct.pack("<H", 65535), 65535),
        3: (struct.pack("<h", -2), -2),
        4: (struct.pack("<I", 1 << 31), 1 << 31),
        5: (struct.pack("<i", -3), -3),
        6: (struct.pack("<f", 0.5), 0.5),
        7: (b"\1", True),
        8: (write.text("h\u00e9"), "h\u00e9"),
        10: (struct.pack("<Q", (1 << 64) - 1), (1 << 64) - 1),
        11: (struct.pack("<q", -4), -4),
        12: (struct.pack("<d", 0.25), 0.25),
    }
    header = read(path, write.gguf([write.entry(f"k{kind}", kind, data) for kind, (data, _) in cases.items()]))
    for kind, (_, value) in cases.items():
        assert header.value(f"k{kind}") == value


def test_a_long_string_is_placed_but_not_kept(path: Path) -> None:
    header = read(path, write.gguf([write.words("t", "x" * 100_000), write.number("n", 7)]))
    assert header.value("t") == gguf.TextSpan(24 + 8 + 1 + 4 + 8, 100_000)
    assert header.value("n") == 7


def test_arrays_are_placed_but_not_kept(path: Path) -> None:
    header = read(path, write.gguf([write.texts("t", ["a", "", "c" * 300_000]), write.int32s("i", range(5))]))
    texts, numbers = header.value("t"), header.value("i")
    assert isinstance(texts, gguf.ArraySpan)
    assert isinstance(numbers, gguf.ArraySpan)
    assert (texts.kind, texts.count) == (8, 3)
    assert gguf.read_int32s(path, numbers) == (0, 1, 2, 3, 4)


def test_an_array_is_read_as_what_it_is_only(path: Path) -> None:
    header = read(path, write.gguf([write.texts("t", ["a"]), write.int32s("i", [1])]))
    texts, numbers = header.value("t"), header.value("i")
    assert isinstance(texts, gguf.ArraySpan)
    assert isinstance(numbers, gguf.ArraySpan)
    with pytest.raises(GovrunError, match="strings"):
        list(gguf.read_texts(path, numbers))
    with pytest.raises(GovrunError, match="int32"):
        gguf.read_int32s(path, texts)


def test_a_vocabulary_of_128k_tokens_is_read_in_no_time(path: Path) -> None:
    entries = [
        write.texts("tokenizer.ggml.tokens", (f"token{n:06}" for n in range(128_256))),
        write.int32s("tokenizer.ggml.token_type", [1] * 128_256),
        write.texts("tokenizer.ggml.merges", (f"aa{n:05} bb" for n in range(280_147))),
    ]
    path.write_bytes(write.gguf(entries))
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    header = gguf.read_header(path)
    tokens = header.value("tokenizer.ggml.tokens")
    assert isinstance(tokens, gguf.ArraySpan)
    assert sum(1 for _ in gguf.read_texts(path, tokens)) == 128_256
    # A fifth of a second by itself; coverage makes every line of the suite several times slower.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - begin < 3


@pytest.mark.parametrize("data", [b"", b"G", b"GGU", b"GGML" + bytes(20), b"\x7fELF", b"ggufxxxx", b"FUGG" + bytes(20)])
def test_another_magic_is_refused(path: Path, data: bytes) -> None:
    assert refused(path, data) == "gguf.magic"
    with pytest.raises(GovrunError) as refusal:
        gguf.read_version(path)
    assert refusal.value.rule == "gguf.magic"


@pytest.mark.parametrize("version", [0, 1, 4, 99, 0x03000000])
def test_another_version_is_refused(path: Path, version: int) -> None:
    assert refused(path, write.gguf(version=version)) == "gguf.version"
    assert gguf.read_version(path) == version


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_are_read(path: Path, version: int) -> None:
    assert read(path, write.gguf([write.number("n", 1)], version=version)).version == version


def test_every_truncation_of_a_header_is_refused(path: Path) -> None:
    whole = write.tiny(data=b"")
    end = len(whole.rstrip(b"\0"))
    for length in range(end):
        assert refused(path, whole[:length]) in ("gguf.magic", "gguf.truncated"), length


@pytest.mark.parametrize("count", HUGE)
def test_impossible_counts_are_refused(path: Path, count: int) -> None:
    start, count_bytes = b"GGUF" + struct.pack("<I", 3), struct.pack("<Q", count)
    assert refused(path, start + count_bytes + bytes(8)) == "gguf.limit"
    assert refused(path, start + bytes(8) + count_bytes) == "gguf.limit"


@pytest.mark.parametrize("count", HUGE)
def test_impossible_lengths_are_refused(path: Path, count: int) -> None:
    size = struct.pack("<Q", count)
    assert refused(path, write.gguf([size])) == "gguf.limit"  # of a key
    assert refused(path, write.gguf([write.entry("k", 8, size)])) == "gguf.truncated"
    assert refused(path, write.gguf([write.entry("k", 9, struct.pack("<I", 8) + size)])) == "gguf.limit"
    assert refused(path, write.gguf([write.entry("k", 9, struct.pack("<I", 4) + size)])) == "gguf.truncated"
    assert refused(path, write.gguf([write.array("k", 8, [size])])) == "gguf.truncated"
    assert refused(path, write.gguf([], [size])) == "gguf.limit"  # of a tensor's name


def test_arrays_of_arrays_are_refused(path: Path) -> None:
    deep = b"".join(struct.pack("<IQ", 9, 1) for _ in range(10_000))
    assert refused(path, write.gguf([write.entry("k", 9, deep)])) == "gguf.type"


@pytest.mark.parametrize("kind", [13, 255, 1 << 31])
def test_unknown_types_are_refused(path: Path, kind: int) -> None:
    assert refused(path, write.gguf([write.entry("k", kind, bytes(64))])) == "gguf.type"
    assert refused(path, write.gguf([write.entry("k", 9, struct.pack("<IQ", kind, 1) + bytes(64))])) == "gguf.type"


def test_a_key_that_stands_twice_is_refused(path: Path) -> None:
    assert refused(path, write.gguf([write.number("k", 1), write.number("k", 2)])) == "gguf.duplicate"


def test_a_tensor_that_stands_twice_is_refused(path: Path) -> None:
    assert refused(path, write.gguf([], [write.info("t", (4,), 0, 0)] * 2, bytes(16))) == "gguf.duplicate"


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_c_would_read_otherwise_is_refused(path: Path, name: str) -> None:
    assert refused(path, write.gguf([write.number(name, 1)])) == "gguf.name"
    assert refused(path, write.gguf([], [write.info(name, (4,), 0, 0)])) == "gguf.name"


def test_text_that_is_not_utf8_is_refused(path: Path) -> None:
    assert refused(path, write.gguf([write.entry("k", 8, write.text(b"\xff"))])) == "gguf.utf8"
    assert refused(path, write.gguf([write.entry(b"\xff", 4, bytes(4))])) == "gguf.utf8"


@pytest.mark.parametrize(
    "dimensions", [(), (0,), (4, 0), (1, 1, 1, 1, 1), (1 << 63,), (1 << 32, 1 << 32), (1 << 60,) * 4]
)
def test_impossible_shapes_are_refused(path: Path, dimensions: tuple[int, ...]) -> None:
    assert refused(path, write.gguf([], [write.info("t", dimensions, 0, 0)])) == "gguf.shape"


@pytest.mark.parametrize("alignment", [0, 3, 1 << 21, (1 << 32) - 1])
def test_impossible_alignments_are_refused(path: Path, alignment: int) -> None:
    assert refused(path, write.gguf([write.number("general.alignment", alignment)])) == "gguf.alignment"


def test_an_alignment_of_another_type_is_refused(path: Path) -> None:
    assert refused(path, write.gguf([write.words("general.alignment", "32")])) == "gguf.alignment"
    assert refused(path, write.gguf([write.entry("general.alignment", 7, b"\1")])) == "gguf.alignment"


def test_an_alignment_moves_the_data(path: Path) -> None:
    data = write.gguf([write.number("general.alignment", 256)], alignment=256)
    assert read(path, data).data_offset == 256


def test_a_header_beyond_the_limit_is_refused(path: Path) -> None:
    size = gguf.MAX_HEADER_BYTES
    with path.open("wb") as file:
        file.write(write.gguf([write.entry("k", 9, struct.pack("<IQ", 0, size))]))
        file.truncate(size + 4096)  # a hole: nothing is written
    with pytest.raises(GovrunError) as refusal:
        gguf.read_header(path)
    assert refusal.value.rule == "gguf.limit"


def test_a_header_of_nothing_but_zeros_ends_soon(path: Path) -> None:
    # A million empty strings in an array: the most that one array may hold.
    body = write.entry("k", 9, struct.pack("<IQ", 8, gguf.MAX_TEXTS)) + bytes(8 * gguf.MAX_TEXTS)
    path.write_bytes(write.gguf([body]))
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert len(gguf.read_header(path).values) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - begin < 3


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GovrunError) as refusal:
        gguf.read_header(tmp_path / "none")
    assert refusal.value.rule == "gguf.readable"


def test_a_directory_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(GovrunError) as refusal:
            gguf.read_header(path)
        assert refusal.value.rule == "gguf.regular"


def test_a_file_that_shrinks_while_it_is_read_is_refused(path: Path) -> None:
    path.write_bytes(write.gguf([write.texts("t", ["x" * 60_000] * 40)]))
    span = gguf.read_header(path).value("t")
    assert isinstance(span, gguf.ArraySpan)
    texts = gguf.read_texts(path, span)
    next(texts)
    os.truncate(path, 100)
    with pytest.raises(GovrunError) as refusal:
        list(texts)
    assert refusal.value.rule == "gguf.truncated"


def test_a_file_that_cannot_be_read_on_is_refused() -> None:
    # Offset 0 of a process's memory gives EIO.
    with open("/proc/self/mem", "rb", buffering=0) as file, pytest.raises(GovrunError) as refusal:
        gguf._Reader(file.fileno(), 100).take(4)
    assert refusal.value.rule == "gguf.readable"


WHOLE = write.tiny(more=[write.words("t", "x" * 50), write.number("general.alignment", 32)])


def is_read_or_refused(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        return gguf.read_header(path).file_size == len(data)
    except GovrunError as error:
        return error.rule.startswith("gguf.") and error.code == ExitCode.PREFLIGHT_REFUSED


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_mutation_is_read_or_refused(path: Path, data: st.DataObject) -> None:
    changed = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    assert is_read_or_refused(path, bytes(changed))


def test_every_flipped_byte_is_read_or_refused(path: Path) -> None:
    for at in range(len(WHOLE) - 64):
        for flip in (1, 0xFF):
            changed = bytearray(WHOLE)
            changed[at] ^= flip
            assert is_read_or_refused(path, bytes(changed))
