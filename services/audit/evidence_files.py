"""The folder that bundles lie in: the worker writes and deletes them there, the API hands them out in pieces.

One folder on a volume that both processes reach; a file for each export, below its organization. Whatever touches the
disk runs in threads.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

from services._mesh.threads import BoundedThreads

PIECE_BYTES = 2 * 1024 * 1024
FILE_SECONDS = 30.0
_WORK = ".work"


class EvidenceFolder:
    """Bundles of evidence by organization and export."""

    def __init__(self, folder: Path, threads: BoundedThreads) -> None:
        self._folder, self._threads = folder, threads

    def file(self, organization_id: UUID, export_id: UUID) -> Path:
        """Where an export's bundle lies once it is finished."""
        return self._folder / str(organization_id) / f"{export_id}.zip"

    def workspace(self, export_id: UUID) -> Path:
        """A new, empty folder for making a bundle; what an earlier attempt left there is gone. Blocks."""
        path = self._folder / _WORK / str(export_id)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, mode=0o700)
        return path

    def discard(self, export_id: UUID) -> None:
        """Remove what the making of a bundle left. Blocks."""
        shutil.rmtree(self._folder / _WORK / str(export_id), ignore_errors=True)

    def publish(self, made: Path, organization_id: UUID, export_id: UUID) -> None:
        """Put a finished bundle in its place, whole or not at all. Blocks."""
        target = self.file(organization_id, export_id)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made.replace(target)

    def delete(self, organization_id: UUID, export_id: UUID) -> None:
        """Delete a bundle, if it is there. Blocks."""
        self.file(organization_id, export_id).unlink(missing_ok=True)

    async def read(self, organization_id: UUID, export_id: UUID, offset: int) -> bytes:
        """A piece of a bundle from an offset on; empty behind its end. Raises OSError, TimeoutError."""
        return await self._threads.run(FILE_SECONDS, _read, self.file(organization_id, export_id), offset)


def _read(file: Path, offset: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(PIECE_BYTES)
