"""Makes tests/vectors/envelope.json: `python -m tests.vectors.make_envelope_vectors`.

Written from the format alone (docs/ENVELOPE.md): HKDF is two lines of HMAC here, and nothing of the module that the
vectors are for is used. All that is random is derived from the case's name, so that a second run writes the same bytes;
what HPKE wrapped can't be, and was made once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

OUTPUT = Path(__file__).with_name("envelope.json")
ORGANIZATION, CREDENTIAL = "01978d2e-0000-7000-8000-00000000acce", "01978d2e-1111-7000-8000-00000000c4ed"
RING_KEY = hashlib.sha256(b"the ring of the test vectors").digest()
RING = "file:0123456789abcdef"
CASES = (
    ("file", 1, f"{RING}/{ORGANIZATION}/1", "aws.base_key", b'{"access_key_id":"AKIAEXAMPLE"}'),
    ("aws", 2, f"arn:aws:kms:eu-central-1:111122223333:key/{CREDENTIAL}", "aws.base_key", b"x" * 2048),
    (
        "azure",
        3,
        "https://acme.vault.azure.net/keys/recoup/0123456789abcdef0123456789abcdef",
        "webhook.signing_key",
        b"",
    ),
    (
        "google",
        4,
        "projects/acme/locations/europe-west3/keyRings/recoup/cryptoKeys/acme/cryptoKeyVersions/7",
        "gcp.service_account",
        "größer".encode(),
    ),
)


def document() -> str:
    """The vectors as JSON."""
    made = [_version_2(*case) for case in CASES] + [_version_1()]
    return json.dumps({"ring": RING, "ring_private_key": RING_KEY.hex(), "vectors": made}, indent=1) + "\n"


def _version_2(name: str, service: int, reference: str, purpose: str, plaintext: bytes) -> dict[str, Any]:
    context = _context(purpose, 2)
    head = bytes([2, service]) + len(reference.encode()).to_bytes(2, "big") + reference.encode()
    material = _random(name, "material", 32)
    wrapped = _hpke(WRAPPED_2, material, context + head) if name == "file" else _random(name, "wrapped", 96)
    dek, commitment = _hkdf(material, context)
    nonce = _random(name, "nonce", 12)
    sealed = AESGCM(dek).encrypt(nonce, plaintext, context)
    envelope = head + len(wrapped).to_bytes(2, "big") + wrapped + commitment + nonce + sealed
    return _document(name, 2, purpose, context, material, wrapped, dek, commitment, plaintext, envelope)


def _version_1() -> dict[str, Any]:
    context, kek_id = _context("aws.base_key", 1), RING.encode()
    material, nonce, plaintext = _random("first", "material", 32), _random("first", "nonce", 12), b"sealed before"
    wrapped = _hpke(WRAPPED_1, material, context)
    dek, commitment = _hkdf(material, context)
    header = bytes([1, 1, len(kek_id)]) + kek_id + len(wrapped).to_bytes(2, "big") + wrapped + commitment + nonce
    envelope = header + AESGCM(dek).encrypt(nonce, plaintext, context + header)
    return _document("first", 1, "aws.base_key", context, material, wrapped, dek, commitment, plaintext, envelope)


def _document(name: str, version: int, purpose: str, context: bytes, *parts: bytes) -> dict[str, Any]:
    names = ("material", "wrapped", "dek", "commitment", "plaintext", "envelope")
    about = {"name": name, "version": version, "organization_id": ORGANIZATION, "credential_id": CREDENTIAL}
    given = {key: part.hex() for key, part in zip(names, parts, strict=True)}
    return {**about, "purpose": purpose, "context": context.decode(), **given}


def _context(purpose: str, version: int) -> bytes:
    return rfc8785.dumps(
        {"v": version, "organization_id": ORGANIZATION, "credential_id": CREDENTIAL, "purpose": purpose}
    )


def _hkdf(material: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 5869 with SHA-256, no salt, 64 bytes."""
    key = hmac.digest(bytes(32), material, "sha256")
    first = hmac.digest(key, info + b"\x01", "sha256")
    return first, hmac.digest(key, first + info + b"\x02", "sha256")


def _random(name: str, what: str, length: int) -> bytes:
    return hashlib.shake_256(f"{name}/{what}".encode()).digest(length)


def _hpke(known: str, material: bytes, info: bytes) -> bytes:
    """What was wrapped once, after a look whether it still opens; wrapped anew (and to be written here) if not."""
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    key = X25519PrivateKey.from_private_bytes(RING_KEY)
    if not known:
        raise SystemExit(f"write this down: {suite.encrypt(material, key.public_key(), info=info).hex()}")
    wrapped = bytes.fromhex(known)
    assert suite.decrypt(wrapped, key, info=info) == material
    return wrapped


WRAPPED_1 = (
    "ceafdaba3993279f5b2396a4bbafa9ecec1fd2271f483fd561f15231fb3f0f0eab51d573a79da73c"
    "9604b8c46b2db2373bc24ccf8841aaf3915c7742bc802b17d67c185d9a1dd2cee105caa7921be0c6"
)
WRAPPED_2 = (
    "066e0b5ef4e66a4e5def4ed21d8bce9edf2352ff5d655f63fc7d8e634781cd5996f224e5b0df0850"
    "b601d2c1a42f8a8174264017eaf6ca141194c09cb4eb616f9a0910873f4e20f731ec01a022a4f0cb"
)

if __name__ == "__main__":
    OUTPUT.write_text(document())
