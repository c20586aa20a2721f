"""Looks for a secret in files, dumps and memory: as it is, and in the writings that others would give it."""

from __future__ import annotations

import base64
import io
import json
import mmap
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# No heap of ours is larger: a test that meets such a region says so, instead of passing it over.
_MAX_REGION = 1 << 30
_MAX_MEMBER = 1 << 28
# A process that has it has it so: the others are what is written out.
_IN_MEMORY = ("raw", "utf-16", "hex", "base64+0", "base64+1", "base64+2")
_PRIVATE_WRITABLE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.p ")


@dataclass(frozen=True)
class Canary:
    """A secret that must not be found."""

    secret: str

    @property
    def writings(self) -> dict[str, bytes]:
        """The secret in the ways in which it may have been written down, by name."""
        raw = self.secret.encode()
        made = {
            "raw": raw,
            "reversed": raw[::-1],
            "hex": raw.hex().encode(),
            "HEX": raw.hex().upper().encode(),
            "utf-16": self.secret.encode("utf-16-le"),
            "url": quote(self.secret, safe="").encode(),
            "json": json.dumps(self.secret)[1:-1].replace("/", "\\/").encode(),
            "json-escapes": "".join(f"\\u{ord(each):04x}" for each in self.secret).encode(),
        }
        for offset in range(3):
            # Within base64 of something longer, a secret looks in three ways; what borders on others is left off.
            whole = base64.b64encode(bytes(offset) + raw)
            inner = whole[(4 if offset else 0) : len(whole) - 4]
            made[f"base64+{offset}"], made[f"base64url+{offset}"] = (
                inner,
                inner.translate(bytes.maketrans(b"+/", b"-_")),
            )
        return made

    def writings_in(self, content: bytes | mmap.mmap, among: Sequence[str] = ()) -> list[str]:
        """In which writings, of all or those that are named, the secret stands in something."""
        return [n for n, each in self.writings.items() if (not among or n in among) and content.find(each) >= 0]

    def found_below(self, folder: Path, *, except_in: frozenset[Path] = frozenset()) -> dict[str, list[str]]:
        """Files below a folder that have it, and members of zip files; some are not looked at."""
        found: dict[str, list[str]] = {}
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and not except_in & {path, *path.parents}:
                for name, content in _contents(path):
                    if writings := self.writings_in(content):
                        found[name] = writings
        return found

    def is_in_memory_of(self, pid: int) -> list[str]:
        """In which writings it stands in a process's private writable memory: heap, stacks, and anonymous mappings."""
        found: set[str] = set()
        maps = Path(f"/proc/{pid}/maps").read_text()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for begins, ends in ((int(a, 16), int(b, 16)) for a, b in _PRIVATE_WRITABLE.findall(maps)):
                assert ends - begins <= _MAX_REGION, f"{pid} has a region of {ends - begins} bytes"
                try:
                    memory.seek(begins)
                    found.update(self.writings_in(memory.read(ends - begins), _IN_MEMORY))
                except OSError:  # It was given back in the meantime.
                    continue
        return sorted(found)


def _contents(path: Path) -> Iterator[tuple[str, bytes | mmap.mmap]]:
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield str(path), content
                if content[:4] == b"PK\x03\x04":
                    yield from members(str(path), bytes(content))
    except FileNotFoundError:  # A database's files come and go.
        return


def members(name: str, archive: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of a zip file, by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for each in opened.infolist():
            assert each.file_size <= _MAX_MEMBER, each.filename
            yield f"{name}:{each.filename}", opened.read(each)
