"""The key that subjects' keys are wrapped with. A key service takes the place of the file by serving these two calls.

Wrapped key, version 1:

    offset  length  content
    0       1       version: 0x01
    1       1       n = length of the KEK's id
    2       n       the KEK's id, UTF-8
    2+n     12      nonce
    14+n    48      AES-256-GCM of the 32 bytes, AAD = context ‖ bytes 0 .. 14+n

Unlike a credential's envelope (services/_mesh/envelope.py) it is symmetric: whoever seals payloads opens them too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services._mesh.errors import Reason, Unavailable

_VERSION, _KEY_LENGTH, _NONCE_LENGTH = 1, 32, 12


class KeyBroken(Exception):
    """A wrapped key doesn't open: its bytes, its context or its KEK are wrong. Says no more, on purpose."""


class KekMissing(Unavailable):
    """A key is wrapped under a KEK that isn't there, as its header says. Asking again changes nothing."""


class Kek(Protocol):
    """A key service, as far as subjects' keys need one. Each call takes all keys of a flush or a page at once.

    A context is what a key is bound to: it opens under no other.
    """

    async def wrap(self, keys: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
        """Keys under the KEK. Raises Problem when the key service can't be reached."""

    async def unwrap(self, wrapped: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
        """The keys. Raises KeyBroken, KekMissing, or Problem when the key service can't be reached."""


class FileKek:
    """A KEK in a file that only the audit process can read: JSON {"kek_id": text, "key": 32 bytes in hexadecimal}.

    Read once: a process that lost it could seal nothing new, and says so at its start. Raises ValueError.
    """

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text("utf-8"))
        try:
            self._id, key = str(content["kek_id"]).encode(), bytes.fromhex(content["key"])
        except (KeyError, TypeError) as error:
            raise ValueError('must be JSON with "kek_id" and "key"') from error
        if len(key) != _KEY_LENGTH or not 0 < len(self._id) < 256:
            raise ValueError(f"needs a key of {_KEY_LENGTH} bytes and an id of at most 255")
        self._cipher = AESGCM(key)

    async def wrap(self, keys: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
        """Keys under the KEK."""
        return [self._wrapped(key, context) for key, context in zip(keys, contexts, strict=True)]

    async def unwrap(self, wrapped: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
        """The keys. Raises KeyBroken, or KekMissing (KMS_UNAVAILABLE) for one that is under another KEK."""
        return [self._opened(key, context) for key, context in zip(wrapped, contexts, strict=True)]

    def _wrapped(self, key: bytes, context: bytes) -> bytes:
        header = bytes([_VERSION, len(self._id)]) + self._id + os.urandom(_NONCE_LENGTH)
        return header + self._cipher.encrypt(header[-_NONCE_LENGTH:], key, context + header)

    def _opened(self, wrapped: bytes, context: bytes) -> bytes:
        end = 2 + wrapped[1] + _NONCE_LENGTH if len(wrapped) > 2 else 0
        header = wrapped[:end]
        if not end or header[0] != _VERSION:
            raise KeyBroken("the wrapped key doesn't open")
        if header[2:-_NONCE_LENGTH] != self._id:
            raise KekMissing(Reason.ERROR_REASON_KMS_UNAVAILABLE, "The key is under a KEK that isn't there.")
        try:
            return self._cipher.decrypt(header[-_NONCE_LENGTH:], wrapped[end:], context + header)
        except (InvalidTag, ValueError):
            raise KeyBroken("the wrapped key doesn't open") from None
