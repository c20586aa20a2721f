"""Reads and moves the movable clock: a JSON file holding {"offset_seconds": N}; simulated now = wall now + N.

It must not be used where HOUSE.md asks for the wall clock (TLS, tokens, grants, leases, STS expiry).
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path


class SimClock:
    """The simulated clock behind one clock file; a missing file is an offset of 0 seconds.

    The file is read again only when its modification stamp changes, so that `now` costs one stat.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._offset = timedelta(0)

    @property
    def path(self) -> Path:
        """Where the offset is kept."""
        return self._path

    def offset(self) -> timedelta:
        """Simulated minus wall time. Raises ValueError if the file is not the documented JSON."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._offset = None, timedelta(0)
            return self._offset
        # A rename gives a new inode, so two moves within one timestamp granule are still told apart.
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            self._offset = timedelta(seconds=_parse_offset(self._path.read_text("utf-8"), self._path))
            self._stamp = stamp
        return self._offset

    def now(self) -> datetime:
        """Simulated now, aware, in UTC."""
        return datetime.now(UTC) + self.offset()

    def set_offset(self, offset: timedelta) -> None:
        """Replaces the offset atomically, by rename: a reader sees the old or the new one, never half."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"offset_seconds": offset.total_seconds()}, file)
        Path(name).replace(self._path)

    def set_now(self, moment: datetime) -> None:
        """Moves simulated now to an aware `moment`; time goes on from there at wall speed."""
        if moment.tzinfo is None:
            raise ValueError("the movable clock needs an aware datetime")
        self.set_offset(moment - datetime.now(UTC))

    def advance(self, step: timedelta) -> None:
        """Moves simulated now by `step`."""
        self.set_offset(self.offset() + step)


def _parse_offset(text: str, path: Path) -> float:
    try:
        value = json.loads(text)["offset_seconds"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{path} must hold {{"offset_seconds": <number>}}') from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{path}: offset_seconds must be a number, not {value!r}")
    return float(value)
