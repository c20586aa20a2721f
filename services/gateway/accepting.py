"""Takes connections at the edge's address, within the bounds of handshakes, and hands them to their protocol."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from services.gateway.config import EdgeSettings
from services.gateway.handshakes import Handshakes
from services.gateway.watching import Watch

log = logging.getLogger(__name__)

# At once, before anybody else has their turn.
_AT_ONCE = 64
# Where the process, or the machine, has no more files or memory: until it is tried again.
_AGAIN_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Has the place of an `asyncio.Server` in uvicorn, whose handshakes nobody counts: `close` and `wait_closed`.

    `is_full` says whether there are so many connections that one more isn't even told so.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        settings: EdgeSettings,
        watch: Watch,
        is_full: Callable[[], bool],
    ) -> None:
        self._listener, self._make, self._tls, self._is_full = listener, make, tls, is_full
        self._seconds, self._watch = settings.handshake_seconds, watch
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
            self._let_in(connection, address[0])

    def _let_in(self, connection: socket.socket, address: str) -> None:
        if self._is_full():
            self._watch.refuse("connections")
            connection.close()
        elif self._tls is not None and not self._handshakes.has_room(address):
            connection.close()
        else:
            connection.setblocking(False)
            task = self._loop.create_task(self._begin(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if self._tls is not None:
                self._handshakes.begin(address, task)

    async def _begin(self, connection: socket.socket) -> None:
        """Hand it to its protocol, once it has one. Handshakes that fail are the internet's weather."""
        with contextlib.suppress(OSError):
            try:
                async with asyncio.timeout(self._seconds):
                    await self._loop.connect_accepted_socket(self._make, connection, ssl=self._tls)
            except TimeoutError:
                self._watch.refuse("handshake_seconds")
