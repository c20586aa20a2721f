"""The envelope that a secret is kept in, byte by byte. Whoever may wrap can seal; only who may unwrap can open.

Envelope, version 2 (integers big-endian):

    offset  length  content
    0       1       version: 0x02
    1       1       key service: 0x01 file KMS, 0x02 AWS KMS, 0x03 Azure Key Vault, 0x04 Google Cloud KMS
    2       2       k = length of the KEK's reference
    4       k       the KEK's reference, version included, UTF-8 (services/_mesh/kms/interface.py)
    4+k     2       w = length of the wrapped key material
    6+k     w       the wrapped key material: 32 random bytes (IKM) under the KEK
    6+k+w   32      key commitment
    38+k+w  12      nonce, random
    50+k+w  rest    AES-256-GCM ciphertext and its tag of 16 bytes

    context            = RFC 8785 JSON of {"credential_id", "organization_id", "purpose", "v": 2}
    DEK ‖ commitment   = HKDF-SHA256(IKM, salt = none, info = context, length 64)
    AAD                = context
    key binding        = context ‖ bytes 0 .. 4+k; AWS takes pairs of text instead (`Binding.pairs`)

The context is bound three times (the key binding, HKDF's info, the AAD), so that it holds even with a key service that
ignores it; the ciphertext commits to its key, so that no second key can open it to something else. The payload isn't
bound to the wrapped key, so that a KEK is exchanged by one unwrap and one wrap (`rewrap`), and no payload is opened.

Version 1 is read, and never written. It differs: byte 2 is n, the length of the KEK's id, which follows, and then w;
"v" is 1 in its context; its key binding is the context; its AAD is context ‖ all bytes before the ciphertext. So it
can't be rewrapped: it is opened and sealed anew.
"""

from __future__ import annotations

import hmac
import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, KeyService, Kms, SecretContext

VERSION, _FIRST = 2, 1
MAX_PLAINTEXT, MAX_REFERENCE, MAX_WRAPPED = 8192, 512, 1024
_SERVICES = {service.value: service for service in KeyService}
_IKM_LENGTH, _COMMITMENT_LENGTH, _NONCE_LENGTH, _TAG_LENGTH = 32, 32, 12, 16
_SHA256 = hashes.SHA256()


class Envelope(NamedTuple):
    """An envelope in its parts, of which nothing is verified. `header` is all that stands before the ciphertext."""

    version: int
    kek: Kek
    wrapped: bytes
    commitment: bytes
    nonce: bytes
    sealed: bytes
    header: bytes


async def seal(plaintext: bytes, context: SecretContext, kek: Kek, kms: Kms) -> bytes:
    """The envelope of `plaintext`. Raises ValueError above MAX_PLAINTEXT bytes, and what `Kms.wrap` raises.

    It calls the key service, so never within a transaction.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise ValueError(f"a secret has at most {MAX_PLAINTEXT} bytes")
    canonical, head, material = context.canonical(VERSION), _head(kek), os.urandom(_IKM_LENGTH)
    wrapped = await kms.wrap(kek, material, Binding(canonical + head, context, kek))
    return assemble(plaintext, canonical, head, material, wrapped, os.urandom(_NONCE_LENGTH))


def assemble(plaintext: bytes, canonical: bytes, head: bytes, material: bytes, wrapped: bytes, nonce: bytes) -> bytes:
    """An envelope with all that is random in it given, as test vectors need it. Raises ValueError."""
    keys = _derive(material, canonical)
    sealed = AESGCM(keys[:_IKM_LENGTH]).encrypt(nonce, plaintext, canonical)
    return _joined(head, wrapped, keys[_IKM_LENGTH:] + nonce + sealed)


async def open_envelope(envelope: bytes, context: SecretContext, kms: Kms) -> bytes:
    """The plaintext. Raises EnvelopeBroken, or what `Kms.unwrap` raises."""
    parts, canonical = parse(envelope), context.canonical(envelope[0])
    return open_with(parts, canonical, await derive_keys(parts, context, canonical, kms))


async def derive_keys(parts: Envelope, context: SecretContext, canonical: bytes, kms: Kms) -> bytes:
    """DEK ‖ commitment of an envelope, by the key service; the commitment isn't compared yet. Raises like `unwrap`."""
    return _derive(await _unwrap(parts, context, canonical, kms), canonical)


def open_with(parts: Envelope, canonical: bytes, keys: bytes | bytearray) -> bytes:
    """The plaintext, by DEK ‖ commitment. Raises EnvelopeBroken."""
    _check_commitment(parts, keys)
    aad = canonical + parts.header if parts.version == _FIRST else canonical
    try:
        return AESGCM(memoryview(keys)[:_IKM_LENGTH]).decrypt(parts.nonce, parts.sealed, aad)
    except InvalidTag:
        raise _broken() from None


async def rewrap(envelope: bytes, context: SecretContext, kek: Kek, kms: Kms) -> bytes:
    """The envelope under another KEK, or under another version of it: one unwrap, one wrap, no payload opened.

    The commitment shows that the key is the right one. An envelope of version 1 is opened and sealed anew. Raises like
    `open_envelope` and `seal`.
    """
    parts, canonical = parse(envelope), context.canonical(envelope[0])
    if parts.version == _FIRST:
        return await seal(await open_envelope(envelope, context, kms), context, kek, kms)
    material = await _unwrap(parts, context, canonical, kms)
    _check_commitment(parts, _derive(material, canonical))
    head = _head(kek)
    wrapped = await kms.wrap(kek, material, Binding(canonical + head, context, kek))
    return _joined(head, wrapped, parts.commitment + parts.nonce + parts.sealed)


def parse(envelope: bytes) -> Envelope:
    """An envelope's parts. Raises EnvelopeBroken for what has none."""
    try:
        version, service = envelope[0], _SERVICES[envelope[1]]
        if version != VERSION and (version, service) != (_FIRST, KeyService.FILE):
            raise _broken()
        start = 3 if version == _FIRST else 4
        middle = start + int.from_bytes(envelope[2:start])
        kek = Kek(service, envelope[start:middle].decode())
        end = middle + 2 + int.from_bytes(envelope[middle : middle + 2])
    except (LookupError, ValueError):
        raise _broken() from None
    nonce = end + _COMMITMENT_LENGTH
    sealed = nonce + _NONCE_LENGTH
    is_sized = 0 < middle - start <= MAX_REFERENCE and end - middle - 2 <= MAX_WRAPPED
    if not is_sized or len(envelope) < sealed + _TAG_LENGTH:
        raise _broken()
    return Envelope(
        version,
        kek,
        envelope[middle + 2 : end],
        envelope[end:nonce],
        envelope[nonce:sealed],
        envelope[sealed:],
        envelope[:sealed],
    )


async def _unwrap(parts: Envelope, context: SecretContext, canonical: bytes, kms: Kms) -> bytes:
    aad = canonical if parts.version == _FIRST else canonical + _head(parts.kek)
    return await kms.unwrap(parts.kek, parts.wrapped, Binding(aad, context, parts.kek))


def _check_commitment(parts: Envelope, keys: bytes | bytearray) -> None:
    if not hmac.compare_digest(keys[_IKM_LENGTH:], parts.commitment):
        raise _broken()


def _head(kek: Kek) -> bytes:
    reference = kek.reference.encode()
    if not 0 < len(reference) <= MAX_REFERENCE:
        raise ValueError(f"a KEK's reference has from 1 to {MAX_REFERENCE} bytes")
    return bytes([VERSION, kek.service]) + len(reference).to_bytes(2) + reference


def _joined(head: bytes, wrapped: bytes, rest: bytes) -> bytes:
    if len(wrapped) > MAX_WRAPPED:
        raise ValueError(f"wrapped key material has at most {MAX_WRAPPED} bytes")
    return head + len(wrapped).to_bytes(2) + wrapped + rest


def _derive(material: bytes, canonical: bytes) -> bytes:
    length = _IKM_LENGTH + _COMMITMENT_LENGTH
    return HKDF(_SHA256, length, salt=None, info=canonical).derive(material)


def _broken() -> EnvelopeBroken:
    return EnvelopeBroken("the envelope doesn't open")
