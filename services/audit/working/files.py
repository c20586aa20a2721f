"""The files of a bundle while it is made: written once, from beginning to end, with their digests. All of it blocks."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rfc8785

from services.audit.model.evidence.csv_files import row
from services.audit.model.evidence.records import cells

# What a zip file's entries say of when they were written: nothing, so that the same bundle has the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20
# Most of a bundle are hashes and ids, which don't get much smaller however long one tries.
_LEVEL = 1


class Files:
    """The files of one bundle, below a folder. `digests` has the SHA-256 of each that was closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[File] = []
        self.digests: dict[str, bytes] = {}
        self._closed_bytes = 0

    @property
    def written(self) -> int:
        """How many bytes there are."""
        return self._closed_bytes + sum(file.written for file in self._open)

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.open(name) as file:
            file.write(content)

    def open(self, name: str) -> File:
        """Begin a file."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._closed_bytes += sum(file.written for file in self._open if file.closed)
        self._open = [file for file in self._open if not file.closed]
        self._open.append(File(path, name, self.digests))
        return self._open[-1]

    def abandon(self) -> None:
        """Close what is still open, where a bundle isn't finished."""
        for file in self._open:
            file.close()

    def path(self, name: str) -> Path:
        """Where a file lies, to read it again."""
        return self._folder / name

    def pack(self, target: Path) -> tuple[int, str]:
        """Put everything into a zip file; returns its size and SHA-256."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as packed:
            for name in sorted(self.digests):
                entry = zipfile.ZipInfo(name, _NO_TIME)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                with self.path(name).open("rb") as source, packed.open(entry, "w", force_zip64=True) as sink:
                    while block := source.read(_BLOCK):
                        sink.write(block)
        with target.open("rb") as made:
            return target.stat().st_size, hashlib.file_digest(made, "sha256").hexdigest()


class File:
    """A file that is being written."""

    def __init__(self, path: Path, name: str, digests: dict[str, bytes]) -> None:
        self._file, self._name, self._digests = path.open("wb"), name, digests
        self._hash = hashlib.sha256()
        self.written = 0

    def write(self, content: bytes) -> None:
        """Append bytes."""
        self._file.write(content)
        self.written += len(content)
        self._hash.update(content)

    @property
    def closed(self) -> bool:
        """Whether it was ended."""
        return self._file.closed

    def close(self) -> None:
        """End the file, and note its digest."""
        self._file.close()
        self._digests[self._name] = self._hash.digest()

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ListFile:
    """A list of objects that grows, as JSON (RFC 8785) and as CSV beside it."""

    def __init__(self, files: Files, name: str, columns: Sequence[str]) -> None:
        self._json, self._csv, self._columns = files.open(f"{name}.json"), files.open(f"{name}.csv"), columns
        self.count = 0
        self._json.write(b"[")
        self._csv.write(row(columns))

    def add(self, found: Mapping[str, Any]) -> None:
        """Append an object."""
        self._json.write((b"," if self.count else b"") + rfc8785.dumps(dict(found)))
        self._csv.write(row(cells(found, self._columns)))
        self.count += 1

    def close(self) -> None:
        """End both files."""
        self._json.write(b"]")
        self._json.close()
        self._csv.close()
