"""Seals the payloads that the log keeps (format 2): one key destroyed makes a subject's payloads unreadable. Pure.

    event key = HKDF-Expand-SHA256(subject key, info = "recoup payload v2" ‖ event_id, 32 bytes)     (RFC 5869)
    content   = nonce (12 random bytes) ‖ AES-256-GCM(event key, nonce, salt ‖ payload, AAD)
    AAD       = "recoup payload v2" ‖ organization_id ‖ event_id ‖ key_id

A key for each event, derived, rather than a count of uses for each subject's key: random 96-bit nonces are good for
2^32 messages a key, which a busy organization's processes pass one day, and a count that survives a crash would be one
more row to write with every flush. An event's key seals a handful of attempts at most. Extracting isn't needed: a
subject's key is 32 random bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from services.audit.model.leaf import SALT_LENGTH

KEY_LENGTH, NONCE_LENGTH = 32, 12
_LABEL = b"recoup payload v2"
_SHA256 = SHA256()


class Unopenable(Exception):
    """Sealed bytes don't open: they were changed, or belong to another event, organization or key."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The key of one data subject in one organization, out of its wrapping."""

    organization_id: UUID
    key_id: UUID
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BrokenKey:
    """A subject's key that doesn't open any more: nothing is sealed under it, nor under another one in its place."""

    organization_id: UUID
    key_id: UUID


@dataclass(frozen=True, slots=True)
class Sealed:
    """A payload as it will be kept: the salt of its commitment, the key that it is under, and the sealed bytes."""

    salt: bytes
    key_id: UUID
    content: bytes


def new_key() -> bytes:
    """The material of a new subject key."""
    return os.urandom(KEY_LENGTH)


def seal(key: SubjectKey, event_id: UUID, payload: bytes) -> Sealed:
    """Seal a payload with a new salt."""
    return seal_salted(key, event_id, os.urandom(SALT_LENGTH), payload)


def seal_salted(key: SubjectKey, event_id: UUID, salt: bytes, payload: bytes) -> Sealed:
    """Seal a payload with the salt that its leaf's commitment has already."""
    nonce, event = os.urandom(NONCE_LENGTH), event_id.bytes
    content = AESGCM(_event_key(key, event)).encrypt(nonce, salt + payload, _bound_to(key, event))
    return Sealed(salt, key.key_id, nonce + content)


def open_sealed(key: SubjectKey, event_id: UUID, content: bytes) -> bytes:
    """The salt and, right after it, the payload. Raises Unopenable."""
    event = event_id.bytes
    nonce, rest = content[:NONCE_LENGTH], content[NONCE_LENGTH:]
    try:
        return AESGCM(_event_key(key, event)).decrypt(nonce, rest, _bound_to(key, event))
    except (InvalidTag, ValueError):
        raise Unopenable("the sealed payload doesn't open") from None


def _event_key(key: SubjectKey, event: bytes) -> bytes:
    return HKDFExpand(_SHA256, KEY_LENGTH, _LABEL + event).derive(key.material)


def _bound_to(key: SubjectKey, event: bytes) -> bytes:
    return _LABEL + key.organization_id.bytes + event + key.key_id.bytes
