"""Publishing writes what C2SP tlog-tiles says, only what is new, and never over another history."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.append import Writer
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint
from govrun.ledger.entry import IndexColumns
from govrun.ledger.guard import Guard
from govrun.ledger.publish import Published, publish
from govrun.ledger.read import Reader, open_ledger
from govrun.ledger.tile import bundles_of, format_tile_path, tiles_of
from govrun.signing.keys import format_vkey, signer_from_seed
from tests.ledger.ledger_world import LOG, ORIGIN, RECEIPT, Home, denied, tree_size, verified_size, world


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "public"


def grow(home: Home, size: int) -> None:
    with home.writer() as writer:
        writer.append([denied(n + 1) for n in range(size - writer.store.size())])


def published(home: Home, public: Path) -> Published:
    reader = open_ledger(home.path)
    try:
        return publish(reader, public, LOG.verifier)
    finally:
        reader.close()


def files(public: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(public)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(public.rglob("*"))
        if path.is_file()
    }


def expected_names(size: int) -> set[str]:
    tiles = {format_tile_path(tile) for tile in (*tiles_of(size), *bundles_of(size))}
    return tiles | {"checkpoint", "log.vkey", "README.md"}


def refused(code: ExitCode, rule: str, action: Callable[[], object]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def test_a_published_ledger_has_the_files_of_its_size_and_verifies(home: Home, public: Path) -> None:
    since = 0
    for size in (1, 2, 255, 256, 257, 512, 700):
        grow(home, size)
        done = published(home, public)
        assert (size, since) == (done.size, done.since)
        more = set(files(public)) - expected_names(size)
        assert set() == expected_names(size) - set(files(public))
        # Older partial tiles, and only where there is no full one.
        assert all(".p/" in name and name.partition(".p/")[0] not in files(public) for name in more)
        assert size == verified_size(public)
        since = size


def test_publishing_again_writes_nothing(home: Home, public: Path) -> None:
    grow(home, 300)
    published(home, public)
    before = files(public)
    assert Published(300, 300, 0) == published(home, public)
    assert before == files(public)


def test_publishing_more_touches_only_what_is_new(home: Home, public: Path) -> None:
    grow(home, 600)
    published(home, public)
    before = files(public)
    grow(home, 601)
    done = published(home, public)
    after = files(public)
    assert {name for name in after if before.get(name) != after[name]} == {
        "checkpoint",
        "tile/0/002.p/89",
        "tile/entries/002.p/89",
    }
    assert 3 == done.written
    # Partial tiles stay until the full one is there: somebody may hold the checkpoint that needs them.
    assert {"tile/0/002.p/88", "tile/entries/002.p/88"} <= set(after)
    grow(home, 768)
    published(home, public)
    assert not any("002.p" in name for name in files(public))


def test_all_at_once_and_bit_by_bit_give_the_same_files(home: Home, tmp_path: Path) -> None:
    for size in (100, 256, 300, 600):
        grow(home, size)
        published(home, tmp_path / "often")
    published(home, tmp_path / "once")
    often = {name: data for name, (_, _, data) in files(tmp_path / "often").items()}
    once = {name: data for name, (_, _, data) in files(tmp_path / "once").items()}
    assert once == {name: data for name, data in often.items() if name in once}


def test_the_readme_and_the_key_tell_what_they_are_worth(home: Home, public: Path) -> None:
    published(home, public)
    readme = (public / "README.md").read_text()
    assert ORIGIN in readme
    assert "what it is trusted for" in readme
    for name in ("checkpoint", "tile/<L>/<N>", "tile/entries/<N>", "log.vkey"):
        assert f"`{name}`" in readme
    assert format_vkey(LOG.verifier) + "\n" == (public / "log.vkey").read_text()
    assert 0o644 == (public / "checkpoint").stat().st_mode & 0o777


def test_progress_is_told_in_entries(home: Home, public: Path) -> None:
    grow(home, 600)
    told: list[tuple[int, int]] = []
    publish(open_ledger(home.path), public, LOG.verifier, lambda done, all_: told.append((done, all_)))
    assert [(256, 600), (512, 600), (600, 600)] == told


def test_a_published_ledger_can_be_published_elsewhere(home: Home, public: Path, tmp_path: Path) -> None:
    grow(home, 300)
    published(home, public)
    publish(open_ledger(public), tmp_path / "mirror", LOG.verifier)
    assert 300 == verified_size(tmp_path / "mirror")


def test_another_origin_is_never_published_over(home: Home, public: Path) -> None:
    public.mkdir()
    other = signer_from_seed("example.com/other", b"x" * 32)
    (public / "checkpoint").write_bytes(sign_checkpoint(Checkpoint("example.com/other", 5, b"x" * 32), other))
    before = files(public)
    refused(ExitCode.HISTORY_DIVERGED, "publish.diverged", lambda: published(home, public))
    assert before == files(public)


def test_a_fork_is_never_published_over(home: Home, public: Path, tmp_path: Path) -> None:
    shutil.copy(home.path, tmp_path / "backup")
    grow(home, 40)
    published(home, public)
    before = files(public)
    shutil.copy(tmp_path / "backup", home.path)
    for size in (1, 30, 40, 60):
        with home.store() as store:
            writer = Writer(store, RECEIPT, LOG, Guard(tmp_path / "none", LOG.verifier, world()))
            writer.append([denied(1000 + n) for n in range(size - store.size())])
        error = refused(ExitCode.HISTORY_DIVERGED, "publish.diverged", lambda: published(home, public))
        assert error.found
        assert before == files(public)


def test_what_is_published_under_a_broken_checkpoint_stays(home: Home, public: Path) -> None:
    published(home, public)
    (public / "checkpoint").write_bytes(b"garbage")
    refused(ExitCode.HISTORY_DIVERGED, "publish.diverged", lambda: published(home, public))
    assert b"garbage" == (public / "checkpoint").read_bytes()


def test_a_directory_of_other_files_is_left_alone(home: Home, public: Path) -> None:
    public.mkdir()
    (public / "thesis.tex").write_bytes(b"")
    refused(ExitCode.COULD_NOT_CHECK, "publish.foreign", lambda: published(home, public))
    assert ["thesis.tex"] == os.listdir(public)


def test_what_an_interrupted_publishing_left_is_completed(home: Home, public: Path) -> None:
    grow(home, 300)
    published(home, public)
    (public / "checkpoint").unlink()
    (public / "tile" / "entries" / "000").write_bytes(b"half")
    (public / "tile" / "0" / "000.new").write_bytes(b"half")
    published(home, public)
    assert 300 == verified_size(public)


def test_two_do_not_publish_to_one_place_at_once(home: Home, public: Path) -> None:
    published(home, public)
    held = os.open(public, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    refused(ExitCode.COULD_NOT_CHECK, "publish.locked", lambda: published(home, public))
    os.close(held)
    published(home, public)


def test_a_place_that_cannot_be_written_is_said(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = refused(ExitCode.COULD_NOT_CHECK, "publish.files", lambda: published(home, tmp_path / "file" / "public"))
    assert error.effect


def test_a_ledger_that_another_key_signed_is_not_published(home: Home, public: Path) -> None:
    other = signer_from_seed(ORIGIN, b"x" * 32)
    refused(
        ExitCode.SIGNATURE_UNTRUSTED,
        "note.unknown",
        lambda: publish(open_ledger(home.path), public, other.verifier),
    )
    assert not public.exists()


class Lying:
    """A reader that is right but for one thing."""

    def __init__(self, reader: Reader, leaf: int | None = None, position: int | None = None) -> None:
        self._reader, self._leaf, self._position = reader, leaf, position
        self.origin, self.size = reader.origin, reader.size

    def checkpoint(self) -> bytes | None:
        return self._reader.checkpoint()

    def checkpoints(self, start: int, stop: int) -> Sequence[tuple[int, bytes]]:
        return self._reader.checkpoints(start, stop)

    def leaves(self, start: int, stop: int, batch: int = 1024) -> Iterator[tuple[bytes, ...]]:
        for part in self._reader.leaves(start, stop, batch):
            yield tuple(b"x" + one if start + n == self._leaf else one for n, one in enumerate(part))
            start += len(part)

    def hashes(self, positions: Sequence[int]) -> Sequence[bytes]:
        found = self._reader.hashes(positions)
        return [b"x" * 32 if at == self._position else one for at, one in zip(positions, found, strict=True)]

    def columns(self, start: int, stop: int) -> Sequence[IndexColumns | None] | None:
        return None

    def close(self) -> None:
        self._reader.close()


@pytest.mark.parametrize("size", [7, 256, 300])
def test_one_wrong_bit_is_found_before_it_is_published(home: Home, public: Path, size: int) -> None:
    grow(home, size)
    reader = open_ledger(home.path)
    for index in (0, size // 2, size - 1):
        for lying in (Lying(reader, leaf=index), Lying(reader, position=index)):
            error = refused(
                ExitCode.LEDGER_INCONSISTENT, "publish.tree", lambda lying=lying: publish(lying, public, LOG.verifier)
            )
            assert error.effect
            assert not (public / "checkpoint").exists()
    publish(reader, public, LOG.verifier)
    assert size == verified_size(public)


def test_a_stored_tree_under_another_root_is_not_published(home: Home, public: Path) -> None:
    grow(home, 300)
    published(home, public)
    reader = Lying(open_ledger(home.path))
    note = sign_checkpoint(Checkpoint(ORIGIN, 300, b"x" * 32), LOG)
    reader.checkpoint = lambda: note  # type: ignore[method-assign]
    refused(
        ExitCode.LEDGER_INCONSISTENT, "publish.tree", lambda: publish(reader, public.with_name("new"), LOG.verifier)
    )
    refused(ExitCode.HISTORY_DIVERGED, "publish.diverged", lambda: publish(reader, public, LOG.verifier))
    assert 300 == tree_size((public / "checkpoint").read_bytes())
