"""The envelope's own vectors, and the published ones of what it is made of: AES-256-GCM (NIST) and HKDF (RFC 5869)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services._mesh import envelope as envelopes
from services._mesh.envelope import Envelope, assemble, derive_keys, open_envelope, open_with, parse
from services._mesh.kms.interface import Kek, KeyService, SecretContext
from tests.support.kms import CarelessKms, Ring
from tests.vectors.make_envelope_vectors import OUTPUT, document

DOCUMENT = json.loads(OUTPUT.read_text())
CASES = {case["name"]: case for case in DOCUMENT["vectors"]}


def test_the_script_makes_the_vectors_that_are_checked_in() -> None:
    assert document() == OUTPUT.read_text()


def context_of(case: dict[str, Any]) -> SecretContext:
    return SecretContext(UUID(case["organization_id"]), UUID(case["credential_id"]), case["purpose"])


class Knowing(CarelessKms):
    """Knows of the vector what its key service would."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__()
        self._case = case

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Any) -> bytes:
        assert wrapped.hex() == self._case["wrapped"]
        return bytes.fromhex(self._case["material"])


@pytest.mark.parametrize("name", CASES)
async def test_a_vector_opens_and_has_the_parts_it_names(name: str) -> None:
    case, given = CASES[name], bytes.fromhex(CASES[name]["envelope"])
    parts, context = parse(given), context_of(case)
    canonical = context.canonical(parts.version)
    assert (parts.version, parts.commitment.hex(), canonical.decode()) == (
        case["version"],
        case["commitment"],
        case["context"],
    )
    assert (await derive_keys(parts, context, canonical, Knowing(case))).hex() == case["dek"] + case["commitment"]
    assert (await open_envelope(given, context, Knowing(case))).hex() == case["plaintext"]


@pytest.mark.parametrize("name", [name for name in CASES if name != "first"])
def test_a_vector_is_what_we_write(name: str) -> None:
    case, parts = CASES[name], parse(bytes.fromhex(CASES[name]["envelope"]))
    head = parts.header[: 4 + len(parts.kek.reference.encode())]
    plaintext, material, wrapped = (bytes.fromhex(case[part]) for part in ("plaintext", "material", "wrapped"))
    made = assemble(plaintext, case["context"].encode(), head, material, wrapped, parts.nonce)
    assert made.hex() == case["envelope"]


@pytest.mark.parametrize("name", ["file", "first"])
async def test_the_file_kms_opens_what_was_wrapped_before(name: str, tmp_path: Path) -> None:
    ring = Ring(tmp_path, X25519PrivateKey.from_private_bytes(bytes.fromhex(DOCUMENT["ring_private_key"])))
    opened = await open_envelope(bytes.fromhex(CASES[name]["envelope"]), context_of(CASES[name]), ring.whole)
    assert opened.hex() == CASES[name]["plaintext"]


# Key, nonce, plaintext, additional data, ciphertext, tag. The first four are test cases 13 to 16 of GCM's specification
# (McGrew and Viega), the last two are of NIST's CAVP file gcmEncryptExtIV256.rsp.
_KEY, _NONCE = "feffe9928665731c6d6a8f9467308308" * 2, "cafebabefacedbaddecaf888"
_TEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
_CIPHERTEXT = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
GCM = (
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    (
        "00" * 32,
        "00" * 12,
        "00" * 16,
        "",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (_KEY, _NONCE, _TEXT, "", _CIPHERTEXT, "b094dac5d93471bdec1a502270e3cc6c"),
    (
        _KEY,
        _NONCE,
        _TEXT[:120],
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        _CIPHERTEXT[:120],
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
    (
        "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4",
        "516c33929df5a3284ff463d7",
        "",
        "",
        "",
        "bdc1ac884d332457a1d2664f168c76f0",
    ),
    (
        "83688deb4af8007f9b713b47cfa6c73e35ea7a3aa4ecdb414dded03bf7a0fd3a",
        "0b459724904e010a46901cf3",
        "33d893a2114ce06fc15d55e454cf90c3",
        "794a14ccd178c8ebfd1379dc704c5e208f9d8424",
        "cc66bee423e3fcd4c0865715e9586696",
        "0fb291bd3dba94a1dfd8b286cfb97ac5",
    ),
)


@pytest.mark.parametrize("case", range(len(GCM)))
def test_published_aes_gcm(case: int) -> None:
    """As an envelope's payload under keys that are given: what opens it is AES-256-GCM and nothing else."""
    key, nonce, plaintext, aad, ciphertext, tag = (bytes.fromhex(part) for part in GCM[case])
    assert AESGCM(key).encrypt(nonce, plaintext, aad) == ciphertext + tag
    commitment = bytes(32)
    parts = Envelope(2, Kek(KeyService.FILE, "file"), b"", commitment, nonce, ciphertext + tag, b"")
    assert open_with(parts, aad, key + commitment) == plaintext


# RFC 5869, appendix A.1 to A.3: material, salt, info, output.
HKDF_CASES = (
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
        "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
        "cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
)


@pytest.mark.parametrize("case", range(len(HKDF_CASES)))
def test_published_hkdf(case: int) -> None:
    material, salt, info, output = (bytes.fromhex(part) for part in HKDF_CASES[case])
    assert HKDF(hashes.SHA256(), len(output), salt=salt, info=info).derive(material) == output
    if not salt:  # What the envelope uses: no salt, and 64 bytes.
        assert envelopes._derive(material, info)[: len(output)] == output
