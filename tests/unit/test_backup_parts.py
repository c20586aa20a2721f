"""A backup's parts: what docs/BACKUP.md says, derived here from that page alone, and what isn't so is refused."""

from __future__ import annotations

import hmac
import os
import zlib
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.backup.model.parts import PART_BYTES, PartBroken, Place, open_part, seal_part

KEY = bytes(range(32))
PLACE = Place(UUID(int=7), "main", "audit.entries", 3)
AAD = b'{"backup_id":"00000000-0000-0000-0000-000000000007","database":"main","part":3,"table":"audit.entries","v":1}'


def k(info: bytes, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=b"recoup backup v1\0" + info).derive(KEY)


def sealed(compressed: bytes, digest: bytes) -> bytes:
    keys = k(b"part" + AAD + digest, 44)
    return AESGCM(keys[:32]).encrypt(keys[32:], compressed, AAD)


def digest_of(compressed: bytes) -> bytes:
    return hmac.digest(k(b"name"), AAD + compressed, "sha256")[:16]


def test_a_part_is_what_the_page_says() -> None:
    text = b"one\trow\n" * 1000
    digest, part = seal_part(text, PLACE, KEY)
    compressed = zlib.compress(text, 1)
    assert (digest, part) == (digest_of(compressed).hex(), sealed(compressed, digest_of(compressed)))
    assert open_part(part, PLACE, digest, KEY) == text
    assert seal_part(text, PLACE, KEY) == (digest, part)
    assert PLACE.object(digest) == f"parts/{PLACE.backup_id}/main/audit.entries/000003-{digest}"


def test_a_part_opens_in_its_place_under_its_key_only() -> None:
    digest, part = seal_part(b"x", PLACE, KEY)
    elsewhere = [
        (Place(UUID(int=8), "main", "audit.entries", 3), KEY),
        (Place(UUID(int=7), "keys", "audit.entries", 3), KEY),
        (Place(UUID(int=7), "main", "audit.nodes", 3), KEY),
        (Place(UUID(int=7), "main", "audit.entries", 4), KEY),
        (PLACE, os.urandom(32)),
    ]
    for place, key in elsewhere:
        with pytest.raises(PartBroken):
            open_part(part, place, digest, key)
    for at in range(len(part)):
        changed = bytearray(part)
        changed[at] ^= 1
        with pytest.raises(PartBroken, match=r"part 3 of main's audit\.entries"):
            open_part(bytes(changed), PLACE, digest, KEY)


def test_a_digest_commits_a_part_to_its_content_and_a_bomb_is_no_part() -> None:
    compressed = zlib.compress(b"x")
    with pytest.raises(PartBroken):  # It opens under the key of that digest, which isn't its own.
        open_part(sealed(compressed, bytes(16)), PLACE, bytes(16).hex(), KEY)
    for content in (zlib.compress(bytes(PART_BYTES + 1)), zlib.compress(b"cut")[:-4]):
        with pytest.raises(PartBroken):
            open_part(sealed(content, digest_of(content)), PLACE, digest_of(content).hex(), KEY)
