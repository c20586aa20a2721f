"""The Ed25519 key that vouches for evidence bundles; the key manifest names its public half."""

from __future__ import annotations

import hashlib
from pathlib import Path

from services._mesh.keys import read_private_key
from services.audit.model.evidence.documents import envelope, pre_authentication


class EvidenceKey:
    """Signs statements. Held by the API, which signs what the log bears out, and not by the worker that writes files.

    Raises ValueError where the file holds no such key.
    """

    def __init__(self, path: Path) -> None:
        self._key = read_private_key(path)
        self.key_id = hashlib.sha256(self._key.public_key().public_bytes_raw()).hexdigest()

    def sign(self, payload: bytes) -> bytes:
        """The DSSE envelope over a statement."""
        return envelope(payload, self.key_id, self._key.sign(pre_authentication(payload)))
