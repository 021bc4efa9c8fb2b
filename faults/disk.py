"""A disk that forgets what was not synced: built from a trace, it gives the files as they may be after a power loss.

What POSIX promises and no more: data is durable after fsync or fdatasync of its file, a name after fsync of its
directory. Everything since then may be there or not: writes in sectors of 512 bytes, in any order; names in order.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

SECTOR = 512

_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"(\d+)<")
_HEX = re.compile(r"\\x([0-9a-f]{2})")


class _File:
    """One inode: what is durable of it, what it holds, and the operations in between."""

    def __init__(self, data: bytes = b"") -> None:
        self.durable = data
        self.current = bytearray(data)
        self.since: list[tuple[int, bytes | None]] = []  # (offset, data), or (size, None) for a truncation

    def do(self, at: int, data: bytes | None) -> None:
        self.since.append((at, data))
        _apply(self.current, at, data)

    def sync(self) -> None:
        self.durable = bytes(self.current)
        self.since.clear()

    def after_loss(self, chance: random.Random | None) -> bytes:
        found = bytearray(self.durable)
        for at, data in self.since if chance is not None else ():
            if data is None:
                if chance is not None and chance.random() < 0.5:
                    _apply(found, at, None)
                continue
            for start in range(0, len(data), SECTOR):
                if chance is not None and chance.random() < 0.5:
                    _apply(found, at + start, data[start : start + SECTOR])
        return bytes(found)


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    size = at if data is None else at + len(data)
    if data is None:
        del content[size:]
    if len(content) < size:
        content += bytes(size - len(content))
    if data is not None:
        content[at:size] = data


class _Change(NamedTuple):
    """One change of directories, whole or not at all: what each path names now, an inode, a directory, or nothing."""

    names: tuple[tuple[str, _File | str | None], ...]

    @property
    def directories(self) -> set[str]:
        return {path.rpartition("/")[0] for path, _ in self.names}


class Disk:
    """The files below a root; `play` takes one line of a trace, `crash` writes what a power loss may leave."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._now: dict[str, _File | str] = {}
        for path in sorted(root.rglob("*")):
            # A directory is known by its path.
            self._now[str(path)] = str(path) if path.is_dir() else _File(path.read_bytes())
        self._durable = dict(self._now)
        self._since: list[_Change] = []
        self._open: dict[int, tuple[_File | str, int]] = {}

    def play(self, line: str) -> str | None:
        """Do what a line of the trace says; what it wrote to stdout, None for anything else."""
        match = _CALL.match(line)
        if match is None or match[3].startswith("-"):
            return None
        name, arguments, result = match[1], match[2], int(match[3])
        if name == "write" and arguments.startswith("1<"):
            return _bytes(_STRING.findall(arguments)[0]).decode()
        step = getattr(self, f"_{name}", None)
        if step is not None:
            step(arguments, result)
        return None

    def crash(self, target: Path, chance: random.Random | None, names_only: bool = False) -> None:
        """Write the files as a power loss leaves them: the least there may be, or with chance some of the rest.

        names_only: every name and no data, as file systems do that keep a journal of names alone.
        """
        names = dict(self._durable)
        lost: set[str] = set()
        for change in self._since if chance is not None else ():
            # A directory's changes become durable in their order, those of two directories in any.
            if change.directories & lost or (chance is not None and not names_only and chance.random() < 0.3):
                lost |= change.directories
            else:
                _apply_names(names, change)
        target.mkdir(parents=True)
        for path, what in sorted(names.items()):
            place = target / path[len(self._root) + 1 :]
            if isinstance(what, str):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif place.parent.is_dir() and not path.endswith("-shm"):
                place.write_bytes(what.after_loss(None if names_only else chance))
                place.chmod(0o600)

    def _openat(self, arguments: str, descriptor: int) -> None:
        path = self._path(arguments)
        found = self._now.get(path)
        if found is None and path.startswith(self._root + "/") and "O_CREAT" in arguments:
            found = _File()
            self._change((path, found))
        if isinstance(found, _File) and "O_TRUNC" in arguments:
            found.do(0, None)
        if found is not None:
            self._open[descriptor] = found, 0

    def _close(self, arguments: str, _: int) -> None:
        self._open.pop(_number(arguments), None)

    def _pwrite64(self, arguments: str, size: int) -> None:
        file = self._file(arguments)
        if file is not None:
            file.do(int(arguments.rsplit(", ", 1)[1]), _bytes(_STRING.findall(arguments)[0])[:size])

    def _write(self, arguments: str, size: int) -> None:
        file = self._file(arguments)
        if file is not None:
            at = self._open[_number(arguments)][1]
            file.do(at, _bytes(_STRING.findall(arguments)[0])[:size])
            self._open[_number(arguments)] = file, at + size

    def _ftruncate(self, arguments: str, _: int) -> None:
        file = self._file(arguments)
        if file is not None:
            file.do(int(arguments.rsplit(", ", 1)[1]), None)

    def _fallocate(self, arguments: str, _: int) -> None:
        file = self._file(arguments)
        offset, length = map(int, arguments.split(", ")[-2:])
        if file is not None and len(file.current) < offset + length:
            file.do(offset + length, None)

    def _fsync(self, arguments: str, _: int) -> None:
        what = self._open.get(_number(arguments), (None, 0))[0]
        if isinstance(what, _File):
            what.sync()
        elif what is not None:
            for change in [change for change in self._since if what in change.directories]:
                _apply_names(self._durable, change)
                self._since.remove(change)

    _fdatasync = _fsync

    def _rename(self, arguments: str, _: int) -> None:
        old, new = (_bytes(one).decode() for one in _STRING.findall(arguments)[:2])
        if old in self._now:
            moved = [(path, what) for path, what in self._now.items() if path == old or path.startswith(old + "/")]
            removed = [(path, None) for path, _ in moved]
            targets = [(new + path[len(old) :], what) for path, what in moved]
            named = [(path, path if isinstance(what, str) else what) for path, what in targets]
            self._change(*removed, *named)

    _renameat = _renameat2 = _rename

    def _unlink(self, arguments: str, _: int) -> None:
        path = self._path(arguments)
        if path in self._now:
            self._change((path, None))

    _unlinkat = _rmdir = _unlink

    def _mkdir(self, arguments: str, _: int) -> None:
        path = self._path(arguments)
        if path.startswith(self._root + "/"):
            self._change((path, path))

    def _path(self, arguments: str) -> str:
        """The path of a call that takes one, or a name below an open directory."""
        name = _bytes(_STRING.findall(arguments)[0]).decode()
        directory = self._open.get(_number(arguments), (None, 0))[0]
        return f"{directory}/{name}" if isinstance(directory, str) and not name.startswith("/") else name

    def _file(self, arguments: str) -> _File | None:
        what = self._open.get(_number(arguments), (None, 0))[0]
        return what if isinstance(what, _File) else None

    def _change(self, *names: tuple[str, _File | str | None]) -> None:
        change = _Change(names)
        _apply_names(self._now, change)
        self._since.append(change)


def _apply_names(names: dict[str, _File | str], change: _Change) -> None:
    for path, what in change.names:
        if what is None:
            names.pop(path, None)
        else:
            names[path] = what


def _number(arguments: str) -> int:
    match = _DESCRIPTOR.match(arguments)
    return -1 if match is None else int(match[1])


def _bytes(text: str) -> bytes:
    return bytes(int(one, 16) for one in _HEX.findall(text))
