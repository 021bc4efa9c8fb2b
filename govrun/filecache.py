"""Digests of large files, remembered by identity so that a call costs no rehash of gigabytes.

A cached digest is used only while device, inode, size, mtime and ctime are all unchanged, and a file that changed in
the last two seconds is never cached, because a second write within one tick of the clock would leave them equal.
Whoever can write the cache can lie about a file: it lies in the home, which only its owner may write.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import orjson

from govrun.digest import FileDigest, FileIdentity, digest_file, identity_of, unreadable

MIN_CACHED_BYTES: Final = 1 << 20
_MAX_ENTRIES: Final = 4096
_SETTLED_NS: Final = 2_000_000_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@attrs.define
class DigestCache:
    """Digests by file identity, kept in one small file; a cache that cannot be read is an empty one.

    progress, when set, is told (name, total bytes, bytes done) while a large file is hashed.
    """

    path: Path
    now_ns: Callable[[], int]
    progress: Callable[[str, int, int], None] | None = None
    _known: dict[str, str] | None = None
    # Threads that want the same large file wait for the one that hashes it.
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    def digest(self, path: Path) -> FileDigest:
        """The digest of a regular file; GovrunError (preflight-refused) if it cannot be had."""
        status = _status(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size < MIN_CACHED_BYTES:
            return digest_file(path)
        with self._lock:
            return self._digest_large(path, status)

    def _digest_large(self, path: Path, status: os.stat_result) -> FileDigest:
        key = _key(identity_of(status))
        cached = self._load().get(key)
        if cached is not None:
            return FileDigest(status.st_size, cached)
        fresh = digest_file(path, self._reporter(path.name, status.st_size))
        settled = self.now_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
        if settled and _key(identity_of(_status(path))) == key:
            self._store(key, fresh.sha256)
        return fresh

    def _reporter(self, name: str, total: int) -> Callable[[int], None] | None:
        if self.progress is None:
            return None
        done = 0

        def report(size: int) -> None:
            nonlocal done
            done += size
            assert self.progress is not None  # noqa: S101 - checked when the reporter was made
            self.progress(name, total, done)

        return report

    def _load(self) -> dict[str, str]:
        if self._known is None:
            try:
                value = orjson.loads(self.path.read_bytes())
            except (OSError, orjson.JSONDecodeError):
                value = {}
            self._known = {
                k: v
                for k, v in (value.items() if isinstance(value, dict) else ())
                if isinstance(v, str) and _SHA256.fullmatch(v)
            }
        return self._known

    def _store(self, key: str, sha256: str) -> None:
        known = self._load()
        known[key] = sha256
        while len(known) > _MAX_ENTRIES:
            del known[next(iter(known))]
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(orjson.dumps(known))
            temporary.replace(self.path)
        except OSError:
            # Losing the cache costs time, never truth: the digest in hand was computed from the file itself.
            with contextlib.suppress(OSError):
                temporary.unlink()


def _status(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _key(identity: FileIdentity) -> str:
    return f"{identity.device}:{identity.inode}:{identity.size}:{identity.mtime_ns}:{identity.ctime_ns}"
