"""Sealed payloads and wrapped keys: what opens, and that nothing else does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services._mesh.errors import Unavailable
from services.audit.kek import FileKek, KeyBroken
from services.audit.model.digests import keyed_digest, plain_digest
from services.audit.model.leaf import parse_payload
from services.audit.model.sealing import SubjectKey, Unopenable, new_key, open_sealed, seal
from tests.support.log import ACME, event

GLOBEX = UUID(int=2)
PAYLOAD = b'{"actor":"user:1"}'


def a_key(organization: UUID = ACME) -> SubjectKey:
    return SubjectKey(organization, uuid4(), new_key())


def test_what_was_sealed_opens_to_salt_and_payload() -> None:
    key, event_id = a_key(), uuid4()
    sealed = seal(key, event_id, PAYLOAD)
    assert open_sealed(key, event_id, sealed.content) == sealed.salt + PAYLOAD
    assert sealed.key_id == key.key_id
    assert PAYLOAD not in sealed.content
    assert sealed.salt not in sealed.content


def test_sealing_twice_gives_other_bytes_and_another_salt() -> None:
    key, event_id = a_key(), uuid4()
    first, second = seal(key, event_id, PAYLOAD), seal(key, event_id, PAYLOAD)
    assert first.salt != second.salt
    assert first.content[:12] != second.content[:12]


def test_it_opens_only_for_its_event_organization_and_key() -> None:
    key, event_id = a_key(), uuid4()
    content = seal(key, event_id, PAYLOAD).content
    others = [
        (key, uuid4()),
        (SubjectKey(GLOBEX, key.key_id, key.material), event_id),
        (SubjectKey(ACME, uuid4(), key.material), event_id),
        (SubjectKey(ACME, key.key_id, new_key()), event_id),
    ]
    for other, other_event in others:
        with pytest.raises(Unopenable):
            open_sealed(other, other_event, content)


def test_no_bit_of_it_can_be_changed_and_none_be_missing() -> None:
    key, event_id = a_key(), uuid4()
    content = seal(key, event_id, PAYLOAD).content
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unopenable):
            open_sealed(key, event_id, bytes(changed))
    for length in range(len(content)):
        with pytest.raises(Unopenable):
            open_sealed(key, event_id, content[:length])


def test_a_key_never_shows_in_a_repr() -> None:
    key = a_key()
    assert repr(key.material)[2:-1] not in repr(key)
    assert key.material.hex() not in repr(key)


def kek(folder: Path, kek_id: str = "file:1", key: bytes = b"k" * 32) -> FileKek:
    path = folder / f"{uuid4()}.json"
    path.write_text(json.dumps({"kek_id": kek_id, "key": key.hex()}))
    return FileKek(path)


async def test_a_wrapped_key_opens_in_its_context_and_under_its_kek_only(tmp_path: Path) -> None:
    keys = [new_key(), new_key()]
    wrapped = await kek(tmp_path).wrap(keys, [b"one", b"two"])
    assert await kek(tmp_path).unwrap(wrapped, [b"one", b"two"]) == keys
    assert keys[0] not in wrapped[0]
    with pytest.raises(KeyBroken):
        await kek(tmp_path).unwrap(wrapped, [b"two", b"one"])
    with pytest.raises(KeyBroken):
        await kek(tmp_path, key=b"o" * 32).unwrap(wrapped, [b"one", b"two"])
    with pytest.raises(Unavailable):
        await kek(tmp_path, kek_id="file:2").unwrap(wrapped, [b"one", b"two"])
    for broken in (b"", wrapped[0][:1], wrapped[0][:-1], b"\x02" + wrapped[0][1:], os.urandom(len(wrapped[0]))):
        with pytest.raises((KeyBroken, Unavailable)):
            await kek(tmp_path).unwrap([broken], [b"one"])


@pytest.mark.parametrize("content", ["{}", '{"kek_id": "", "key": ""}', '{"kek_id": "x", "key": "00"}', "[]", "no"])
def test_a_kek_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kek.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        FileKek(path)


def test_the_digest_is_keyed_and_an_older_one_is_known_still() -> None:
    made, digest = event(1), keyed_digest(b"k" * 32)
    payload = parse_payload(made.payload, made.event_id, ACME, digest)
    assert payload.digest != plain_digest(made.payload)
    assert payload.digest != keyed_digest(b"o" * 32)(made.payload)
    assert payload.is_that_of(digest(made.payload))
    assert payload.is_that_of(plain_digest(made.payload))
    assert not payload.is_that_of(digest(made.payload + b" "))
