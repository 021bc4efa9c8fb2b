"""A stretch of wire between a client and the cluster that can be cut at a chosen word of the conversation."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# What a client sends to commit, as a simple or a prepared statement.
COMMIT = b"COMMIT\0"


class Wire:
    """A socket that passes everything on to a server's, until it sees a COMMIT it was told to cut at.

    cut: `before`, the server never gets the COMMIT; `after`, it is done and its answer is lost. then: called once the
    server has ended that conversation (after) or the wire is cut (before). One cut; later conversations pass.
    """

    def __init__(self, directory: Path, server: Path, cut: str, then: Callable[[], object] | None = None) -> None:
        self.directory = directory
        self.directory.mkdir()
        self.cuts = 0
        self._server = server / ".s.PGSQL.5432"
        self._cut: str | None = cut
        self._then = then
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen(16)
        self._stop, self._stopped = socket.socketpair()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.close()
        self._threads[0].join(30)
        for thread in self._threads:
            thread.join(30)
        self._listener.close()
        self._stopped.close()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._stopped], [], [])
            if self._stopped in ready:
                return
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._pass, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass(self, client: socket.socket) -> None:
        # A server that is gone ends the conversation, as it would without this wire.
        with contextlib.suppress(OSError), client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._server))
            while True:
                ready, _, _ = select.select([client, server, self._stopped], [], [])
                if self._stopped in ready:
                    return
                for one, other in ((client, server), (server, client)):
                    if one not in ready:
                        continue
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    if one is client and COMMIT in data and self._cut is not None:
                        self._cut_at(server, data)
                        return
                    other.sendall(data)

    def _cut_at(self, server: socket.socket, data: bytes) -> None:
        where, self._cut = self._cut, None
        self.cuts += 1
        if where == "after":
            server.sendall(data)
            answer = b""
            while b"COMMIT\0" not in answer:
                answer += server.recv(1 << 16)
        if self._then is not None:
            server.close()
            self._then()
