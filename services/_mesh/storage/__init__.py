"""Where the log's archive and backups lie: objects that are written once and read back. A local folder, or S3.

Nothing here knows what an object holds. An object that is there stays as it is: writing the same again has no effect,
writing something else is refused.
"""

from __future__ import annotations

from typing import Protocol

# No object is as large: a bundle of the archive holds 256 entries of less than 64 KiB, a backup's part 8 MiB.
MAX_OBJECT_BYTES = 17 * 1024 * 1024


class StorageFailed(Exception):
    """The storage can't be reached, or refuses; says which object and why. Trying again later may help."""


class Occupied(Exception):
    """Another content lies under the name."""


class Missing(Exception):
    """Nothing lies under the name."""


class StorageLocked(StorageFailed):
    """The storage keeps an object: its lock isn't over yet, or this identity may not delete. Says which."""


class Storage(Protocol):
    """Write-once objects by name: segments of letters, digits and "._-%", with slashes between."""

    @property
    def where(self) -> str:
        """The storage as a person would name it."""

    async def put(self, name: str, content: bytes) -> None:
        """Write an object that stays. Raises Occupied, StorageFailed."""

    async def get(self, name: str) -> bytes:
        """An object's content. Raises Missing, StorageFailed."""

    async def holds(self, name: str) -> bool:
        """Whether an object lies under the name. Raises StorageFailed."""

    async def first(self, folder: str, count: int, after: str = "") -> list[str]:
        """The names of at most `count` objects right below a folder, the first in the order of octets; of those after a
        name, where one is given. Raises StorageFailed.
        """


class PrunedStorage(Storage, Protocol):
    """A storage that things are taken out of again. What was deleted is gone, in all of its versions."""

    async def delete(self, name: str) -> None:
        """Delete an object; nothing where there is none. Raises StorageLocked, StorageFailed."""

    async def delete_below(self, folder: str) -> int:
        """Delete all objects below a folder, at any depth; returns how many. Raises StorageLocked, StorageFailed."""
