"""Page tokens: where a list goes on, sealed to the organization, the method and the filter that it was made for.

A token is AES-256-GCM over its position, with organization, method and filter as associated data: one of another
organization, method or filter doesn't open, and neither does a made-up one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import Message

from services._mesh.errors import Invalid, Reason

DEFAULT_SIZE, MAX_SIZE = 50, 500
_NONCE = 12
_PAGING_FIELDS = ("page_size", "page_token")


class PageTokens:
    """Makes and opens the page tokens of one process; all replicas share the key file."""

    def __init__(self, key: bytes) -> None:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"recoup page tokens v1").derive(key)
        self._cipher = AESGCM(derived)

    @classmethod
    def from_file(cls, path: Path) -> PageTokens:
        """Tokens under a key derived from a secret file's bytes."""
        return cls(path.read_bytes())

    def encode(self, organization_id: UUID, request: Message, position: str) -> str:
        """The token that goes on after `position` for this organization and the request's filter."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, position.encode(), _binding(organization_id, request))
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def decode(self, organization_id: UUID, request: Message) -> str:
        """The position in the request's `page_token`, or "" at the start. Raises Invalid (PAGE_TOKEN_INVALID)."""
        token: str = request.page_token  # type: ignore[attr-defined]
        if not token:
            return ""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            opened = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], _binding(organization_id, request))
        except (binascii.Error, ValueError, InvalidTag):
            raise Invalid(
                Reason.ERROR_REASON_PAGE_TOKEN_INVALID,
                "page_token isn't one that we gave for this organization, method and filter. Start without one.",
            ) from None
        return opened.decode()


def size_of(request: Message) -> int:
    """How many items the request asks for, within the limits that its proto states."""
    asked: int = request.page_size  # type: ignore[attr-defined]
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def _binding(organization_id: UUID, request: Message) -> bytes:
    """Organization, method and filter: all of the request but its paging."""
    bare = type(request)()
    bare.CopyFrom(request)
    for name in _PAGING_FIELDS:
        bare.ClearField(name)
    digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
    return organization_id.bytes + request.DESCRIPTOR.full_name.encode() + digest
