"""The envelope that a secret is kept in, byte by byte, and its sealing half. Opening needs what only the broker has.

Envelope, version 1 (integers big-endian):

    offset  length  content
    0       1       version: 0x01
    1       1       key service: 0x01 = file KMS (HPKE, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM)
    2       1       n = length of the KEK's id
    3       n       the KEK's id, UTF-8
    3+n     2       w = length of the wrapped key material
    5+n     w       the wrapped key material: 32 random bytes (IKM) under the KEK
    5+n+w   32      key commitment
    37+n+w  12      nonce
    49+n+w  rest    AES-256-GCM ciphertext and tag

    context            = RFC 8785 JSON of {"credential_id", "organization_id", "purpose", "v": 1}
    DEK ‖ commitment   = HKDF-SHA256(IKM, salt = none, info = context, length 64)
    AAD                = context ‖ bytes 0 .. 49+n+w of the envelope

The context is bound three times (as HPKE's info, as HKDF's info, in the AAD), so that it holds even with a key service
that ignores it; the ciphertext commits to its key, so that no second key can open it to something else.
"""

from __future__ import annotations

import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

import rfc8785
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
FILE_KMS = 1
_IKM_LENGTH, _COMMITMENT_LENGTH, _NONCE_LENGTH, _TAG_LENGTH = 32, 32, 12, 16
MAX_PLAINTEXT = 8192
SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class EnvelopeBroken(Exception):
    """The envelope doesn't open: its bytes, its context or its key are wrong. Says no more, on purpose."""


@dataclass(frozen=True, slots=True)
class SecretContext:
    """What a secret belongs to. `purpose` is such as "aws.base_key"; a purpose can't be swapped for another."""

    organization_id: UUID
    credential_id: UUID
    purpose: str

    def canonical(self) -> bytes:
        """The context as RFC 8785 JSON."""
        return rfc8785.dumps(
            {
                "v": VERSION,
                "organization_id": str(self.organization_id),
                "credential_id": str(self.credential_id),
                "purpose": self.purpose,
            }
        )


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """Key material under a KEK: which key service, which KEK, and the bytes."""

    key_service: int
    kek_id: str
    wrapped: bytes


class Wrapper(Protocol):
    """The sealing half of a key service."""

    def wrap(self, key_material: bytes, context: bytes) -> WrappedKey:
        """Put key material under the KEK, bound to the context."""


class Unwrapper(Protocol):
    """The opening half of a key service; only the broker has one."""

    def unwrap(self, key: WrappedKey, context: bytes) -> bytes:
        """The key material. Raises EnvelopeBroken, or Problem when the key service can't be reached."""


class FileWrapper:
    """Seals to the public half of the file KMS's KEK; can't open what it sealed.

    The file is JSON: {"kek_id": text, "public_key": 32 bytes in hexadecimal}.
    """

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text("utf-8"))
        self._kek_id = str(content["kek_id"])
        self._public_key = X25519PublicKey.from_public_bytes(bytes.fromhex(content["public_key"]))

    def wrap(self, key_material: bytes, context: bytes) -> WrappedKey:
        return WrappedKey(FILE_KMS, self._kek_id, SUITE.encrypt(key_material, self._public_key, info=context))


def seal(plaintext: bytes, context: SecretContext, wrapper: Wrapper) -> bytes:
    """The envelope of `plaintext`. Raises ValueError above MAX_PLAINTEXT bytes."""
    if len(plaintext) > MAX_PLAINTEXT:
        raise ValueError(f"a secret has at most {MAX_PLAINTEXT} bytes")
    canonical = context.canonical()
    key_material = os.urandom(_IKM_LENGTH)
    key = wrapper.wrap(key_material, canonical)
    kek_id = key.kek_id.encode()
    dek, commitment = _derive(key_material, canonical)
    header = bytes([VERSION, key.key_service, len(kek_id)]) + kek_id + len(key.wrapped).to_bytes(2) + key.wrapped
    header += commitment + os.urandom(_NONCE_LENGTH)
    return header + AESGCM(dek).encrypt(header[-_NONCE_LENGTH:], plaintext, canonical + header)


def open_envelope(envelope: bytes, context: SecretContext, unwrapper: Unwrapper) -> bytes:
    """The plaintext. Raises EnvelopeBroken, or what the key service raises."""
    key, header_length = _parse(envelope)
    canonical = context.canonical()
    header, ciphertext = envelope[:header_length], envelope[header_length:]
    dek, commitment = _derive(unwrapper.unwrap(key, canonical), canonical)
    given = header[-_NONCE_LENGTH - _COMMITMENT_LENGTH : -_NONCE_LENGTH]
    if not hmac.compare_digest(commitment, given):
        raise EnvelopeBroken("the envelope doesn't open")
    try:
        return AESGCM(dek).decrypt(header[-_NONCE_LENGTH:], ciphertext, canonical + header)
    except InvalidTag:
        raise EnvelopeBroken("the envelope doesn't open") from None


def _parse(envelope: bytes) -> tuple[WrappedKey, int]:
    """The wrapped key, and where the ciphertext starts."""
    try:
        version, key_service, id_length = envelope[:3]
        kek_id = envelope[3 : 3 + id_length].decode("utf-8")
    except (ValueError, UnicodeDecodeError):
        raise EnvelopeBroken("the envelope doesn't open") from None
    start = 5 + id_length
    wrapped_length = int.from_bytes(envelope[start - 2 : start])
    end = start + wrapped_length + _COMMITMENT_LENGTH + _NONCE_LENGTH
    if version != VERSION or len(envelope) < end + _TAG_LENGTH:
        raise EnvelopeBroken("the envelope doesn't open")
    return WrappedKey(key_service, kek_id, envelope[start : start + wrapped_length]), end


def _derive(key_material: bytes, context: bytes) -> tuple[bytes, bytes]:
    derived = HKDF(hashes.SHA256(), 64, salt=None, info=context).derive(key_material)
    return derived[:32], derived[32:]
