"""Knows the public keys of the processes that sign: one JWKS file per process, read again when it changes.

It never fetches anything, and a file that breaks leaves the last good keys in force for twenty minutes,
then none.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services._mesh.clock import monotonic
from services._mesh.tokens import ALGORITHM, TokenInvalid

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_LAST_GOOD_SECONDS = 20 * 60
_MAX_FILE_BYTES = 64 * 1024


@dataclass
class _Keys:
    by_kid: dict[str, OKPKey] = field(default_factory=dict)
    stamp: tuple[int, int, int] | None = None
    looked_at: float = -_LOOK_SECONDS
    good_at: float = 0.0


class TrustStore:
    """The keys in `folder`. `epoch` rises whenever any key set changes, so that what was concluded from one
    can end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[str, _Keys] = {}
        self.epoch = 0

    def key(self, process: str, kid: str) -> OKPKey:
        """The key `kid` of `process`. Raises TokenInvalid if it isn't trusted (any more)."""
        keys = self._look(process)
        found = keys.by_kid.get(kid)
        if found is None:
            raise TokenInvalid("unknown key")
        return found

    def refresh(self, process: str) -> int:
        """Looks for a changed file, at most once a second, and returns the epoch."""
        self._look(process)
        return self.epoch

    def _look(self, process: str) -> _Keys:
        keys = self._keys.setdefault(process, _Keys()) if self._known(process) else _Keys()
        now = monotonic()
        # Once a second bounds what a flood of unknown key ids can cost, and is how late a withdrawn key can
        # be noticed.
        if now - keys.looked_at >= _LOOK_SECONDS:
            keys.looked_at = now
            self._reload(process, keys, now)
        return keys

    def _known(self, process: str) -> bool:
        return process in self._keys or (self._folder / f"{process}.jwks.json").is_file()

    def _reload(self, process: str, keys: _Keys, now: float) -> None:
        path = self._folder / f"{process}.jwks.json"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != keys.stamp:
                keys.by_kid, keys.stamp = _read(path), stamp
                self.epoch += 1
            keys.good_at = now
        except (OSError, ValueError, KeyError) as error:
            _log.error("trust file refused", extra={"file": str(path), "error": str(error)})
            if keys.by_kid and now - keys.good_at > _LAST_GOOD_SECONDS:
                keys.by_kid, keys.stamp = {}, None
                self.epoch += 1


def _read(path: Path) -> dict[str, OKPKey]:
    from joserfc.jwk import OKPKey

    data = path.read_bytes()
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError("too large")
    found: dict[str, OKPKey] = {}
    for entry in json.loads(data)["keys"]:
        _lint(entry, found)
        found[entry["kid"]] = OKPKey.import_key(entry)
    return found


def _lint(entry: dict[str, Any], found: dict[str, OKPKey]) -> None:
    if entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519" or entry.get("alg") != ALGORITHM:
        raise ValueError("only Ed25519 keys that pin their algorithm are trusted")
    if "d" in entry:
        raise ValueError("a private key lies in the trust folder")
    if not entry.get("kid") or entry["kid"] in found:
        raise ValueError("each key needs an id of its own")
