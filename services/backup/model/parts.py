"""Seals what a backup holds: parts of at most 8 MiB, and the manifest that names them. Byte by byte: docs/BACKUP.md.

    digest      = HMAC-SHA256(HKDF(data key, "name"), AAD ‖ compressed)[:16]
    key ‖ nonce = HKDF(data key, AAD ‖ digest), 32 and 12 bytes
    part        = AES-256-GCM of the compressed plaintext under them, AAD = canonical(backup, database, table, number)

Key and nonce follow from the content, so that the same content in the same place is the same part: an attempt that is
repeated finds what the one before it stored, and no nonce is ever used for two contents.
"""

from __future__ import annotations

import hmac
import zlib
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PART_BYTES = 8 * 1024 * 1024
KEY_BYTES, DIGEST_BYTES = 32, 16
_NONCE_BYTES = 12
_LEVEL = 1  # Most of what is in the log doesn't shrink, and the rest does so at any level.


class PartBroken(Exception):
    """A part isn't what the manifest says: changed, cut, or of another place. Says which."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part belongs."""

    backup_id: UUID
    database: str
    table: str
    number: int

    def canonical(self) -> bytes:
        """The place as RFC 8785 JSON; no name of ours needs an escape."""
        return (
            f'{{"backup_id":"{self.backup_id}","database":"{self.database}","part":{self.number},'
            f'"table":"{self.table}","v":1}}'
        ).encode()

    def object(self, digest: str) -> str:
        """The name that a part is stored under."""
        return f"parts/{self.backup_id}/{self.database}/{self.table}/{self.number:06d}-{digest}"


def seal_part(plaintext: bytes, place: Place, data_key: bytes) -> tuple[str, bytes]:
    """A part's digest and its bytes."""
    compressed = zlib.compress(plaintext, _LEVEL)
    digest = _digest(compressed, place, data_key)
    key, nonce = _keys(place, digest, data_key)
    return digest.hex(), AESGCM(key).encrypt(nonce, compressed, place.canonical())


def open_part(sealed: bytes, place: Place, digest: str, data_key: bytes) -> bytes:
    """What a part holds. Raises PartBroken."""
    key, nonce = _keys(place, bytes.fromhex(digest), data_key)
    try:
        compressed = AESGCM(key).decrypt(nonce, sealed, place.canonical())
    except InvalidTag:
        raise _broken(place) from None
    # The digest commits to the key: without it another key could be found under which the same bytes open.
    if not hmac.compare_digest(_digest(compressed, place, data_key), bytes.fromhex(digest)):
        raise _broken(place)
    opening = zlib.decompressobj()
    plaintext = opening.decompress(compressed, PART_BYTES + 1)
    if len(plaintext) > PART_BYTES or not opening.eof:
        raise _broken(place)
    return plaintext


def derive(data_key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """A key of its own for each use of the data key."""
    return HKDF(hashes.SHA256(), length, salt=None, info=b"recoup backup v1\0" + info).derive(data_key)


def _digest(compressed: bytes, place: Place, data_key: bytes) -> bytes:
    return hmac.digest(derive(data_key, b"name"), place.canonical() + compressed, "sha256")[:DIGEST_BYTES]


def _keys(place: Place, digest: bytes, data_key: bytes) -> tuple[bytes, bytes]:
    keys = derive(data_key, b"part" + place.canonical() + digest, KEY_BYTES + _NONCE_BYTES)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]


def _broken(place: Place) -> PartBroken:
    where = f"part {place.number} of {place.database}'s {place.table}"
    return PartBroken(f"{where} isn't what the manifest says: it was changed, cut, or belongs elsewhere")
