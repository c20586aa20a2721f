"""The broker's derived keys: bounded, at most five minutes old, purged by the revocation feed, wiped at the end.

What is kept is DEK ‖ commitment of one sealed version of one credential, never a plaintext. A key is dropped by
overwriting its bytes; copies that Python or OpenSSL made in the meantime can't be reached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

# SECURITY-MODEL: never a cached key that is older. A key that was disabled in its key service opens nothing after it.
KEEP_SECONDS = 300.0
MAX_KEYS = 4096


class KeyName(NamedTuple):
    """Which sealed version of which credential a key opens. `version` is all that stands before the ciphertext, so that
    what is sealed or wrapped anew has another one.
    """

    organization_id: UUID
    credential_id: UUID
    purpose: str
    version: bytes

    def is_of(self, organization_id: UUID | None, credential_id: UUID | None) -> bool:
        """Whether it is one of an organization's, or of a credential's; of neither, every one is."""
        return organization_id in (None, self.organization_id) and credential_id in (None, self.credential_id)


class KeyCache:
    """Derived keys by name. `now` is seconds that only rise: a clock that is set back makes no key older."""

    def __init__(self, now: Callable[[], float], keep_seconds: float = KEEP_SECONDS, size: int = MAX_KEYS) -> None:
        self.now, self._keep, self._size = now, keep_seconds, size
        self._kept: OrderedDict[KeyName, tuple[float, bytearray]] = OrderedDict()

    def get(self, name: KeyName) -> bytearray | None:
        """The key, unless it is too old. Not to be kept by the caller: it may be wiped at the next await."""
        found = self._kept.get(name)
        if found is None:
            return None
        if self.now() - found[0] >= self._keep:
            self._drop(name)
            return None
        return found[1]

    def put(self, name: KeyName, keys: bytes, asked_at: float) -> None:
        """Keep a key whose unwrapping began at `asked_at`."""
        self._drop(name)
        self._kept[name] = (asked_at, bytearray(keys))
        while len(self._kept) > self._size:
            self._drop(next(iter(self._kept)))

    def purge(self, *, organization_id: UUID | None = None, credential_id: UUID | None = None) -> None:
        """Drop the keys of an organization, or of a credential; of neither, all."""
        for name in list(self._kept):
            if name.is_of(organization_id, credential_id):
                self._drop(name)

    def _drop(self, name: KeyName) -> None:
        found = self._kept.pop(name, None)
        if found is not None:
            found[1][:] = bytes(len(found[1]))

    def __len__(self) -> int:
        return len(self._kept)
