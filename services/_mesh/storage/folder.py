"""A storage in a folder of this machine, or of one that is mounted: for one machine, and for tapes and shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from heapq import nsmallest
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from services._mesh.storage import MAX_OBJECT_BYTES, Missing, Occupied, StorageFailed, StorageLocked
from services._mesh.threads import BoundedThreads

R = TypeVar("R")
CALL_SECONDS = 60.0
_UNFINISHED = ".unfinished"


class FolderStorage:
    """Files that are written, synced and made read-only before they have their name."""

    def __init__(self, threads: BoundedThreads, folder: Path) -> None:
        self._threads, self._folder = threads, folder

    @property
    def where(self) -> str:
        """The folder."""
        return f"folder {self._folder}"

    async def put(self, name: str, content: bytes) -> None:
        """Write an object that stays. Raises Occupied, StorageFailed."""
        await self._run(name, self._put, self._path(name), content)

    async def get(self, name: str) -> bytes:
        """An object's content. Raises Missing, StorageFailed."""
        return await self._run(name, _read, self._path(name))

    async def holds(self, name: str) -> bool:
        """Whether an object lies under the name. Raises StorageFailed."""
        return await self._run(name, self._path(name).is_file)

    async def first(self, folder: str, count: int, after: str = "") -> list[str]:
        """See Storage."""
        try:
            found = await self._run(folder, _first, self._path(folder), count, after.rpartition("/")[2])
        except Missing:
            return []
        return [f"{folder}/{name}" for name in found]

    async def delete(self, name: str) -> None:
        """See PrunedStorage."""
        await self._run(name, _delete, self._path(name))

    async def delete_below(self, folder: str) -> int:
        """See PrunedStorage."""
        return await self._run(folder, _delete_below, self._path(folder))

    async def _run(self, name: str, call: Callable[..., R], *arguments: Any) -> R:
        try:
            return await self._threads.run(CALL_SECONDS, call, *arguments)
        except FileNotFoundError as error:
            raise Missing(name) from error
        except PermissionError as error:
            raise StorageLocked(f"{name} in {self.where}: {error.strerror}") from error
        except (OSError, TimeoutError) as error:
            raise StorageFailed(f"{name} in {self.where}: {type(error).__name__}: {error}") from error

    def _path(self, name: str) -> Path:
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"{name!r} names no object")
        return self._folder / name

    def _put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f"{path.name}.{uuid4().hex}{_UNFINISHED}")
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.chmod(0o400)
            # A hard link never replaces what is there, as a rename would.
            os.link(unfinished, path)
        except FileExistsError:
            if _read(path) != content:
                raise Occupied(str(path)) from None
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_OBJECT_BYTES + 1)
    if len(content) > MAX_OBJECT_BYTES:
        raise OSError(f"{path} is larger than any object of ours")
    return content


def _first(folder: Path, count: int, after: str) -> list[str]:
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not entry.name.endswith(_UNFINISHED))
        return nsmallest(count, (name for name in names if name > after))


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        _sync_folder(path.parent)


def _delete_below(folder: Path) -> int:
    """The files first, from the deepest folder up; no link is followed."""
    deleted = 0
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            Path(place, name).unlink(missing_ok=True)
            deleted += not name.endswith(_UNFINISHED)
        Path(place).rmdir()
    if deleted:
        _sync_folder(folder.parent)
    return deleted


def _sync_folder(folder: Path) -> None:
    """The name itself is durable only once its folder is."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
