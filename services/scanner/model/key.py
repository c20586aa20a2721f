"""The organization's own keys: what each purpose takes, and which of them are live. Pure."""

from __future__ import annotations

import base64
import binascii
import enum
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

# How Standard Webhooks 1.0 writes a symmetric key: this, and the base64 of 24 to 64 bytes.
PREFIX, _BYTES, _LEAST, _MOST = "whsec_", 32, 24, 64
_AI_KEY = re.compile(r"[!-~]{8,512}")


class KeyPurpose(enum.StrEnum):
    """What a key is for: the purpose that it is sealed with."""

    WEBHOOK = "webhook.key"
    AI = "ai.key"


class KeyState(enum.StrEnum):
    """Where a key stands; the names are those of `recoup.scanner.v1.KeyState`."""

    ACTIVE = "ACTIVE"
    RETIRING = "RETIRING"
    REVOKED = "REVOKED"


class KeyInvalid(ValueError):
    """What is no key of its purpose. It says the rule, and nothing of what was given."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the organization. Its envelope stands elsewhere, under the same id."""

    key_id: UUID
    purpose: KeyPurpose
    name: str
    state: KeyState
    created_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is about to be kept, in its envelope; `shown` is what was generated, to be shown once."""

    key_id: UUID
    purpose: KeyPurpose
    envelope: bytes
    shown: str

    def __repr__(self) -> str:
        return f"NewKey({self.key_id})"


def generated(purpose: KeyPurpose) -> str:
    """A new key as people write it. Raises KeyInvalid where somebody else makes keys of this purpose."""
    if purpose is not KeyPurpose.WEBHOOK:
        raise KeyInvalid("must be given: the AI provider makes it")
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def content(purpose: KeyPurpose, secret: str) -> bytes:
    """What is sealed: the bytes that webhooks are signed with, or an AI key as it was written. Raises KeyInvalid."""
    if secret != secret.strip():
        raise KeyInvalid("must have no space or line's end around it: it was copied with more than itself")
    if purpose is KeyPurpose.AI:
        if not _AI_KEY.fullmatch(secret):
            raise KeyInvalid("must be 8 to 512 visible ASCII characters without spaces, as the provider wrote it")
        return secret.encode()
    form = f'must be "{PREFIX}" and the base64 of {_LEAST} to {_MOST} bytes, as Standard Webhooks writes it'
    if not secret.startswith(PREFIX):
        raise KeyInvalid(form)
    try:
        made = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise KeyInvalid(form) from None
    if not _LEAST <= len(made) <= _MOST:
        raise KeyInvalid(form)
    return made
