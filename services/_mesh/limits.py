"""Bounded containers, so that nothing a caller sends can make a process grow without end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from services._mesh.clock import monotonic

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most `size` entries, the least recently used one dropped first; an entry can have an end of its
    own.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, tuple[V, float | None]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The entry, or None if there is none or its time is over."""
        found = self._entries.get(key)
        if found is None:
            return None
        if found[1] is not None and found[1] <= monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, seconds: float | None = None) -> None:
        """Keeps the entry, for `seconds` at most."""
        self._entries[key] = (value, None if seconds is None else monotonic() + seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        """Drops the entry, if there is one."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Drops all entries."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
