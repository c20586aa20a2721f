"""Key services, as the broker sees them: each can open key material that its sealing half wrapped."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services._mesh.envelope import FILE_KMS, SUITE, EnvelopeBroken, WrappedKey
from services._mesh.errors import Reason, Unavailable


class FileKms:
    """The local profile's key service: a KEK in a file that only the broker can read.

    Read for every use, so that a key that was taken away opens nothing any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def unwrap(self, key: WrappedKey, context: bytes) -> bytes:
        """The key material. Raises EnvelopeBroken, Unavailable (KMS_UNAVAILABLE)."""
        try:
            content = json.loads(self._path.read_text("utf-8"))
            private = X25519PrivateKey.from_private_bytes(bytes.fromhex(content["private_key"]))
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(Reason.ERROR_REASON_KMS_UNAVAILABLE, "The key service can't be used.") from error
        if key.key_service != FILE_KMS or key.kek_id != content["kek_id"]:
            raise EnvelopeBroken("the envelope is under another key")
        try:
            opened: bytes = SUITE.decrypt(key.wrapped, private, info=context)
        except (InvalidTag, ValueError):
            raise EnvelopeBroken("the envelope doesn't open") from None
        return opened
