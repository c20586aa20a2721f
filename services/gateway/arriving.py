"""How many requests wait for their bodies, in all and of an address: each has one of the places of what runs meanwhile.

A body that is there already, or comes at once, waits for nothing. Who sends heads and no more would keep others out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from typing import Any

from services.gateway.exchange import Exchange, Receive
from services.gateway.limiting import place_of
from services.gateway.newcomers import busy

# Of all places: what may wait for bodies, and for those of one address (IPv6: its /64). Bodies come a moment behind
# their heads, of many callers behind one address too: those aren't to be refused.
_PART, _PART_OF_ONE = 3 / 4, 1 / 2


class Arriving:
    """Those that wait, where so many requests are served at a time."""

    def __init__(self, places: int) -> None:
        self._most, self._most_of_one = max(1, int(places * _PART)), max(1, int(places * _PART_OF_ONE))
        self._of: Counter[str] = Counter()

    def counted(self, exchange: Exchange, receive: Receive) -> Receive:
        """The same, which raises Unavailable instead of being another one that waits."""

        async def received() -> MutableMapping[str, Any]:
            place = place_of(exchange.client)
            if self._of[place] >= self._most_of_one or self._of.total() >= self._most:
                exchange.refused_by = "requests"
                raise busy()
            self._of[place] += 1
            try:
                return await receive()
            finally:
                self._of[place] -= 1
                if not self._of[place]:
                    del self._of[place]

        return received
