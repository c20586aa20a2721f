"""Whether a caller reads what they are answered: who doesn't holds the memory of it, and the connection."""

from __future__ import annotations

import asyncio

# What is kept for a caller before the next answer waits. TLS would keep eight times as much.
MOST_KEPT_BYTES = 64 * 1024
# So much has to be taken each time: whoever takes a byte now and then would be there for ever.
_LEAST_TAKEN_BYTES = 16 * 1024


class Reading:
    """Watches a connection while more waits to be taken than is kept. In each `seconds`, some of it has to be."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport, self._seconds = transport, seconds
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=MOST_KEPT_BYTES)

    def begin(self) -> None:
        """More waits than is kept."""
        self.end()
        self._left = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def end(self) -> None:
        """It was taken, or the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() > self._left - _LEAST_TAKEN_BYTES:
            self._transport.abort()
        else:
            self.begin()
