"""Which libraries a program asks for: real programs, and every mutation of one."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govrun.backends.elf import Dynamic, read_dynamic
from govrun.errors import ExitCode, GovrunError
from tests.backends.elf_writer import elf


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "program"


def test_the_interpreter_itself_asks_for_the_c_library() -> None:
    dynamic = read_dynamic(Path(os.path.realpath(sys.executable)))
    assert dynamic is not None
    assert any(name.startswith("libc.") for name in dynamic.needed)


def test_needed_names_and_search_path_are_read_in_order(path: Path) -> None:
    path.write_bytes(elf(["libb.so", "liba.so.1"], runpath="/x:$ORIGIN/../lib:"))
    assert Dynamic(("libb.so", "liba.so.1"), ("/x", "$ORIGIN/../lib", "")) == read_dynamic(path)


def test_a_runpath_hides_an_rpath(path: Path) -> None:
    path.write_bytes(elf(["liba.so"], runpath="/run", rpath="/r"))
    assert Dynamic(("liba.so",), ("/run",)) == read_dynamic(path)
    path.write_bytes(elf(["liba.so"], rpath="/r"))
    assert Dynamic(("liba.so",), ("/r",)) == read_dynamic(path)


def test_a_static_program_needs_nothing(path: Path) -> None:
    path.write_bytes(elf([], dynamic=False))
    assert Dynamic() == read_dynamic(path)
    path.write_bytes(elf([], strings=False))
    assert Dynamic() == read_dynamic(path)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fEL", b"MZ" * 40])
def test_what_is_not_elf_is_said_to_be_none(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert read_dynamic(path) is None


def test_another_machine_is_refused(path: Path) -> None:
    for data in (b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x02" + bytes(100), b"\x7fELF\x02\x01"):
        path.write_bytes(data)
        with pytest.raises(GovrunError) as refusal:
            read_dynamic(path)
        assert refusal.value.rule == "elf.class"


def test_a_missing_program_is_refused(path: Path) -> None:
    with pytest.raises(GovrunError) as refusal:
        read_dynamic(path)
    assert refusal.value.rule == "elf.readable"


@pytest.mark.parametrize(
    "data",
    [
        elf(["a"], segment_bytes=32),
        elf(["a"], segments=257),
        elf(["a"], dynamic_offset=1 << 20),
        elf(["a"], dynamic_offset=(1 << 64) - 8),
        elf(["a"], table_address=1 << 40),
        elf(["x" * 5000]),
    ],
    ids=["segment size", "segment count", "beyond the end", "impossible offset", "table nowhere", "name without end"],
)
def test_malformed_headers_are_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(GovrunError) as refusal:
        read_dynamic(path)
    assert refusal.value.rule == "elf.malformed"


WHOLE = elf(["libllama.so", "libggml.so"], runpath="/x:$ORIGIN")


def is_read_or_refused(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        return isinstance(read_dynamic(path), Dynamic | None)
    except GovrunError as error:
        return error.rule.startswith("elf.") and error.code == ExitCode.PREFLIGHT_REFUSED


def test_every_truncation_is_read_or_refused(path: Path) -> None:
    assert all(is_read_or_refused(path, WHOLE[:length]) for length in range(len(WHOLE)))


@given(st.integers(0, len(WHOLE) - 8), st.integers(0, (1 << 64) - 1))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_overwritten_word_is_read_or_refused(path: Path, at: int, word: int) -> None:
    assert is_read_or_refused(path, WHOLE[:at] + struct.pack("<Q", word) + WHOLE[at + 8 :])
