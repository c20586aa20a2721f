"""Takes connections at the edge's address, within their bounds and those of handshakes, for their protocols."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial

from services.gateway.config import EdgeSettings
from services.gateway.handshakes import Handshakes
from services.gateway.limiting import place_of
from services.gateway.watching import Watch

log = logging.getLogger(__name__)

# At once, before anybody else has their turn.
_AT_ONCE = 64
# Where the process, or the machine, has no more files or memory: until it is tried again.
_AGAIN_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Held:
    """One of the connections of a place, until it has left."""

    def __init__(self, held: Counter[str], place: str) -> None:
        self._held, self._place = held, place
        held[place] += 1

    def leave(self) -> None:
        """It is over, however often that is said."""
        place, self._place = self._place, ""
        if place:
            self._held[place] -= 1
            if not self._held[place]:
                del self._held[place]


class Acceptor:
    """Has the place of an `asyncio.Server` in uvicorn, whose handshakes nobody counts: `close` and `wait_closed`.

    `make` is told what to call when its connection is lost; `is_full` says whether there are so many connections that
    one more isn't even told so.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[Callable[[], None]], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        settings: EdgeSettings,
        watch: Watch,
        is_full: Callable[[], bool],
    ) -> None:
        self._listener, self._make, self._tls, self._is_full = listener, make, tls, is_full
        self._settings, self._watch = settings, watch
        self._held: Counter[str] = Counter()
        self._handshakes = Handshakes(settings, watch)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take nobody more. Who is in a handshake may end it, and be told that this process ends."""
        self._loop.remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()

    async def wait_closed(self) -> None:
        """Wait for nobody who is in a handshake still: nothing was asked."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("connections can't be taken: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._again = self._loop.call_later(_AGAIN_SECONDS, self._listen)
                return
            self._let_in(connection, place_of(address[0]))

    def _let_in(self, connection: socket.socket, place: str) -> None:
        if not self._has_room(place):
            connection.close()
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._begin(connection, _Held(self._held, place)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._tls is not None:
            self._handshakes.begin(place, task)

    def _has_room(self, place: str) -> bool:
        if self._is_full():
            self._watch.refuse("connections")
            return False
        if self._held[place] >= self._settings.address_connections:
            self._watch.refuse("address_connections")
            return False
        return self._tls is None or self._handshakes.has_room(place)

    async def _begin(self, connection: socket.socket, held: _Held) -> None:
        """Hand it to its protocol, once it has one. Handshakes that fail are the internet's weather."""
        make = partial(self._make, held.leave)
        # Whoever doesn't take a last answer either isn't waited for.
        ends = None if self._tls is None else self._settings.call_seconds
        try:
            async with asyncio.timeout(self._settings.handshake_seconds):
                await self._loop.connect_accepted_socket(make, connection, ssl=self._tls, ssl_shutdown_timeout=ends)
        except TimeoutError:
            self._watch.refuse("handshake_seconds")
            held.leave()
        except BaseException as error:
            held.leave()
            if not isinstance(error, OSError):
                raise
