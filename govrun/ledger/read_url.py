"""Read the files of a published ledger from a web server, several requests ahead of what is needed.

Each of a few connections has one request under way, and what it answers waits in the system's own buffers until it is
asked for. So a long verification does not wait for the network between two tiles, and no thread is needed, beside
which it could not start its workers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from govrun.ledger.http_get import Connection, Patience, parse_address, trusting_context
from govrun.world import World

CONNECTIONS: Final = 6
# Small files that are asked for again and again while a tree is walked, and large ones that came before their turn.
_KEPT_TILES: Final = 64
_KEPT_BUNDLES: Final = 16
_TILE_BYTES: Final = 8_192


class UrlFiles:
    """The files below one address (a `read_published.Files`).

    Errors as `http_get.Connection`, and could-not-check (`url.form`, `url.http`) for what is no such address.
    """

    def __init__(self, url: str, world: World, allow_http: bool = False, patience: Patience | None = None) -> None:
        self._address = parse_address(url, allow_http)
        self._context = trusting_context() if self._address.is_tls else None
        self._world = world
        self._patience = patience or Patience()
        self._open: list[Connection] = []
        self._idle: list[Connection] = []
        self._asked: OrderedDict[str, tuple[Connection, int]] = OrderedDict()
        self._queue: deque[tuple[str, int]] = deque()
        self._tiles: OrderedDict[str, bytes | None] = OrderedDict()
        self._bundles: OrderedDict[str, bytes | None] = OrderedDict()

    def fetch(self, name: str, limit: int) -> bytes | None:
        if name in self._bundles:
            return self._bundles.pop(name)
        if name in self._tiles:
            self._tiles.move_to_end(name)
            return self._tiles[name]
        if name not in self._asked:
            self._ask(name, limit)
        data = self._take(name)
        if limit <= _TILE_BYTES:
            _keep(self._tiles, name, data, _KEPT_TILES)
        self._ask_ahead()
        return data

    def ahead(self, wanted: Sequence[tuple[str, int]]) -> None:
        self._queue = deque(
            (name, limit)
            for name, limit in wanted
            if name not in self._asked and name not in self._tiles and name not in self._bundles
        )
        self._ask_ahead()

    def close(self) -> None:
        self._queue.clear()
        self._asked.clear()
        for connection in self._open:
            connection.close()
        self._open, self._idle = [], []

    def _ask_ahead(self) -> None:
        while self._queue and (self._idle or len(self._open) < CONNECTIONS):
            self._ask(*self._queue.popleft())

    def _ask(self, name: str, limit: int) -> None:
        connection = self._free()
        try:
            connection.ask(name)
        except BaseException:
            self._idle.append(connection)
            raise
        self._asked[name] = connection, limit

    def _free(self) -> Connection:
        if not self._idle and len(self._open) < CONNECTIONS:
            self._open.append(Connection(self._address, self._world, self._patience, self._context))
            return self._open[-1]
        if not self._idle:
            # What was asked for first is read out of turn.
            name, (_, limit) = next(iter(self._asked.items()))
            kept, most = (self._tiles, _KEPT_TILES) if limit <= _TILE_BYTES else (self._bundles, _KEPT_BUNDLES)
            _keep(kept, name, self._take(name), most)
        return self._idle.pop()

    def _take(self, name: str) -> bytes | None:
        connection, limit = self._asked.pop(name)
        try:
            return connection.answer(limit)
        finally:
            self._idle.append(connection)


def _keep(kept: OrderedDict[str, bytes | None], name: str, data: bytes | None, most: int) -> None:
    kept[name] = data
    if len(kept) > most:
        kept.popitem(last=False)
