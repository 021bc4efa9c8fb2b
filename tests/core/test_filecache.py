"""A remembered digest is used only for the very same bytes; a broken cache costs time, never truth."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from govrun.digest import FileDigest, sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.filecache import _MAX_ENTRIES, MIN_CACHED_BYTES, DigestCache

Refuses = Callable[..., GovrunError]
LARGE = b"x" * MIN_CACHED_BYTES
LIE = "ab" * 32


def large_file(tmp_path: Path, data: bytes = LARGE) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return path


def settled(path: Path) -> Callable[[], int]:
    return lambda: path.stat().st_ctime_ns + 3_000_000_000


def cache_at(tmp_path: Path, path: Path, **named: object) -> DigestCache:
    return DigestCache(tmp_path / "home" / "digests.json", settled(path), **named)  # type: ignore[arg-type]


def lie(tmp_path: Path, path: Path) -> None:
    """Make the cache say something false, so that a hit shows."""
    cache_at(tmp_path, path).digest(path)
    file = tmp_path / "home" / "digests.json"
    file.write_bytes(orjson.dumps(dict.fromkeys(orjson.loads(file.read_bytes()), LIE)))


def test_a_second_look_is_a_hit_also_from_another_cache(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    lie(tmp_path, path)
    cache = cache_at(tmp_path, path)
    assert cache.digest(path) == FileDigest(len(LARGE), LIE)
    assert cache.digest(path) == FileDigest(len(LARGE), LIE)


def test_the_cache_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    cache_at(tmp_path, path).digest(path)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["digests.json"]
    assert stat.S_IMODE((tmp_path / "home" / "digests.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["rewritten", "touched", "replaced", "grown"])
def test_a_changed_file_is_a_miss(tmp_path: Path, how: str) -> None:
    path = large_file(tmp_path)
    lie(tmp_path, path)
    data = b"y" * len(LARGE) if how == "rewritten" else LARGE + b"y" if how == "grown" else LARGE
    if how == "touched":
        os.utime(path, ns=(1, 1))
    elif how == "replaced":
        (tmp_path / "other").write_bytes(data)
        (tmp_path / "other").replace(path)
    else:
        path.write_bytes(data)
    assert cache_at(tmp_path, path).digest(path) == FileDigest(len(data), sha256_hex(data))


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    now = path.stat().st_ctime_ns
    for clock in (now, now + 2_000_000_000, now - 10**15):
        cache = DigestCache(tmp_path / "home" / "digests.json", lambda at=clock: at)  # type: ignore[misc]
        assert cache.digest(path).sha256 == sha256_hex(LARGE)
        assert not (tmp_path / "home").exists()


def test_small_files_are_always_read(tmp_path: Path) -> None:
    path = large_file(tmp_path, b"small")
    assert cache_at(tmp_path, path).digest(path) == FileDigest(5, sha256_hex(b"small"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"k":5}', b"\xff\xfe", b"[" * 5000],
    ids=lambda content: repr(content[:8]),
)
def test_a_corrupt_cache_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = large_file(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "digests.json").write_bytes(content)
    assert cache_at(tmp_path, path).digest(path).sha256 == sha256_hex(LARGE)


@pytest.mark.parametrize("value", ["zz" * 32, "AB" * 32, "ab" * 31, "", 5, None])
def test_an_entry_that_is_no_digest_is_ignored(tmp_path: Path, value: object) -> None:
    path = large_file(tmp_path)
    lie(tmp_path, path)
    file = tmp_path / "home" / "digests.json"
    file.write_bytes(orjson.dumps(dict.fromkeys(orjson.loads(file.read_bytes()), value)))
    assert cache_at(tmp_path, path).digest(path).sha256 == sha256_hex(LARGE)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    (tmp_path / "home").write_bytes(b"a file where the directory should be")
    assert cache_at(tmp_path, path).digest(path).sha256 == sha256_hex(LARGE)
    assert (tmp_path / "home").read_bytes() == b"a file where the directory should be"


def test_a_cache_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    (tmp_path / "home" / "digests.json" / "full").mkdir(parents=True)
    assert cache_at(tmp_path, path).digest(path).sha256 == sha256_hex(LARGE)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["digests.json"]


def test_the_cache_forgets_the_oldest_beyond_its_bound(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / "digests.json"
    file.write_bytes(orjson.dumps({f"old:{n}": LIE for n in range(_MAX_ENTRIES + 5)}))
    cache_at(tmp_path, path).digest(path)
    kept = list(orjson.loads(file.read_bytes()))
    assert len(kept) == _MAX_ENTRIES
    assert kept[0] == "old:6"
    assert not kept[-1].startswith("old:")


def test_progress_tells_name_total_and_done(tmp_path: Path) -> None:
    path = large_file(tmp_path, LARGE + b"tail")
    told: list[tuple[str, int, int]] = []
    cache_at(tmp_path, path, progress=lambda *step: told.append(step)).digest(path)
    size = len(LARGE) + 4
    assert told == [("model.gguf", size, len(LARGE)), ("model.gguf", size, size)]


@pytest.mark.parametrize("name", ["none", "a\0b"])
def test_a_file_that_cannot_be_had_is_refused(refuses: Refuses, tmp_path: Path, name: str) -> None:
    path = large_file(tmp_path)
    refuses(ExitCode.PREFLIGHT_REFUSED, "file.readable", cache_at(tmp_path, path).digest, tmp_path / name)


def test_a_directory_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    refuses(ExitCode.PREFLIGHT_REFUSED, "file.readable", cache_at(tmp_path, path).digest, tmp_path)


def test_a_file_that_vanishes_once_it_was_read_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    clock = settled(path)()
    cache = DigestCache(tmp_path / "home" / "d", lambda: clock if not path.exists() else (path.unlink(), clock)[1])
    refuses(ExitCode.PREFLIGHT_REFUSED, "file.readable", cache.digest, path)
    assert not (tmp_path / "home").exists()
