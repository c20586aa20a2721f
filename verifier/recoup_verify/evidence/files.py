"""The files of an evidence bundle, in a folder or in a zip: read where they are, in bounded pieces, never unpacked."""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedReader
from typing import Any, cast

from recoup_verify.documents import CannotTell, Disproved

MAX_FILES, MAX_TOTAL, MAX_DEPTH, MAX_LINE = 200_000, 4 << 30, 8, 1 << 20
_NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._-]{1,100}(?:/[A-Za-z0-9._-]{1,100})*", re.ASCII)
_PIECE = 1 << 16
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class Files:
    """The names and sizes of what is there, and the contents as streams. Raises CannotTell, Disproved."""

    def __init__(self, path: str) -> None:
        self._path, self._zip = path, None if os.path.isdir(path) else _zip(path)
        self.sizes: dict[str, int] = {}
        total = 0
        for name, size in _in_zip(self._zip) if self._zip else _in_folder(path, "", MAX_DEPTH):
            if not _NAME.fullmatch(name):
                raise Disproved(f"the bundle has the file {name[:100]!r}: no bundle has such a name")
            if name in self.sizes:
                raise Disproved(f"the bundle has the file {name} twice")
            self.sizes[name], total = size, total + size
            if len(self.sizes) > MAX_FILES or total > MAX_TOTAL:
                raise Disproved(f"the bundle has more than {MAX_FILES} files or {MAX_TOTAL >> 30} GiB")

    def read(self, name: str, limit: int) -> bytes:
        """A whole file. Raises Disproved where it is missing or larger than the limit."""
        with self._opened(name) as opened:
            found = opened.read(limit + 1)
        if len(found) > limit:
            raise Disproved(f"{name} is larger than such a file can be ({limit >> 20} MiB)")
        return found

    def digest(self, name: str) -> str:
        """A file's SHA-256, hexadecimal."""
        found = sha256()
        with self._opened(name) as opened:
            while piece := opened.read(_PIECE):
                found.update(piece)
        return found.hexdigest()

    def lines(self, name: str) -> Iterator[bytes]:
        """A file's lines without their ends, each of which must be there."""
        with self._opened(name) as opened:
            while line := opened.readline(MAX_LINE):
                if line[-1:] != b"\n":
                    raise Disproved(f"{name} has a line that doesn't end, or is longer than any")
                yield line[:-1]

    @contextmanager
    def _opened(self, name: str) -> Iterator[BufferedReader]:
        if name not in self.sizes:
            raise Disproved(f"the bundle lacks the file {name}")
        try:
            with self._zip.open(name) if self._zip else open(os.path.join(self._path, name), "rb") as opened:
                yield BufferedReader(cast(Any, opened), _PIECE)  # a zip's own way to read a line is a slow one
        except _UNREADABLE as error:
            raise Disproved(f"{name} can't be read from the zip: {error}") from None


def _zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (*_UNREADABLE, ValueError) as error:
        raise CannotTell(f"this is neither a folder nor a zip that can be read: {error}") from None


def _in_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, int]]:
    """What the zip says of its files; none is ever read further than the size that it says."""
    for each in archive.infolist():
        kind, odd = stat.S_IFMT(each.external_attr >> 16), each.orig_filename != each.filename
        if kind not in (0, stat.S_IFREG) or each.flag_bits & 1 or odd:
            raise Disproved(f"the bundle's {each.orig_filename[:100]!r} isn't a plain file")
        yield each.filename, each.file_size


def _in_folder(path: str, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    with os.scandir(path) as found:
        for each in found:
            name = prefix + each.name
            if each.is_dir(follow_symlinks=False) and depth:
                yield from _in_folder(each.path, f"{name}/", depth - 1)
            elif each.is_file(follow_symlinks=False):
                yield name, each.stat(follow_symlinks=False).st_size
            else:
                raise Disproved(f"the bundle's {name[:100]!r} isn't a plain file")
