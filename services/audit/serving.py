"""Whether the subjects' keys may be used: only while the database of keys is known to lack every key that was erased.

A copy of it from a backup has keys in it that were destroyed since. Its generation tells: it changes with each
destruction, so that a process that knows another one looks again before it opens or seals anything.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from services._mesh.errors import Unavailable, dependency_down


class Serving:
    """What this process knows of the database of keys. Doubted until it was looked at."""

    def __init__(self) -> None:
        self._generation: UUID | None = None
        self.doubted = asyncio.Event()
        self.doubted.set()

    @property
    def ready(self) -> bool:
        """Whether keys may be used."""
        return self._generation is not None

    def require(self) -> None:
        """Raises Unavailable while keys may not be used."""
        if self._generation is None:
            raise away()

    def holds(self, generation: UUID) -> None:
        """Hold what was read against what is known. Raises Unavailable, and doubts, where they differ."""
        if generation != self._generation:
            self.doubt()
            raise away()

    def doubt(self) -> None:
        """Use no key until the database was looked at again."""
        self._generation = None
        self.doubted.set()

    def trust(self, generation: UUID) -> None:
        """The database was looked at, as it was in this generation: nothing in it was erased."""
        self._generation = generation
        self.doubted.clear()

    @property
    def generation(self) -> UUID | None:
        """The generation that was looked at last; None while in doubt."""
        return self._generation


def away() -> Unavailable:
    """What a caller gets while keys may not be used."""
    return dependency_down("subjects' keys")
