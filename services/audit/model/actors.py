"""The keyed hash under which an actor can be searched for, without standing in the log's projection. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from uuid import UUID

KEY_LENGTH = 32
# Actors are few, and each of them acts often.
_REMEMBERED = 16_384

ActorHash = Callable[[UUID, str], bytes]


def actor_hash(key: bytes) -> ActorHash:
    """HMAC-SHA256 of "<organization_id>/<actor>" under `key`. Raises ValueError unless it has 32 bytes."""
    if len(key) != KEY_LENGTH:
        raise ValueError(f"the key of actors' hashes must have {KEY_LENGTH} bytes, not {len(key)}")

    @lru_cache(maxsize=_REMEMBERED)
    def hashed(organization_id: UUID, actor: str) -> bytes:
        return hmac.digest(key, f"{organization_id}/{actor}".encode(), "sha256")

    return hashed


def load_actor_hash(path: Path) -> ActorHash:
    """The hash under the key in a file. Raises ValueError unless it has 32 bytes."""
    return actor_hash(path.read_bytes())
