"""Makes an installation's signing keys, and hands each to the one process that may hold it.

The public halves go to the trust folder; the KEK's private half only to the broker; the log's key only to the signer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recoup_local.ca import write_secret
from services._mesh.tokens import SigningKey

NOTE, COSIGNATURE = b"\x01", b"\x04"


@dataclass(frozen=True)
class LogKeys:
    """The log's origin, its verifier key, the signer's private key, the receipt key, and the manifest."""

    origin: str
    verifier_key: str
    signer_key: Path
    receipt_key: Path
    manifest: Path


@dataclass(frozen=True)
class WitnessKeys:
    """A witness's name, its verifier key and its private key."""

    name: str
    verifier_key: str
    path: Path


def signing_key(folder: Path, process: str, trust: Path) -> Path:
    """An Ed25519 key for what `process` alone may sign; its public half goes to the trust folder."""
    path = write_secret(folder / "signing.key", _pem(Ed25519PrivateKey.generate()))
    jwks = SigningKey.load(path, "local").public_jwks()
    trust.mkdir(parents=True, exist_ok=True)
    (trust / f"{process}.jwks.json").write_text(json.dumps(jwks))
    return path


def kek(sealing_folder: Path, broker_folder: Path) -> tuple[Path, Path]:
    """The file KMS: the sealing half for who may only seal, the opening half for the broker alone."""
    key = X25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    kek_id = f"file:{hashlib.sha256(public).hexdigest()[:16]}"
    sealing = write_secret(
        sealing_folder / "kek.public.json", json.dumps({"kek_id": kek_id, "public_key": public.hex()})
    )
    opening = write_secret(
        broker_folder / "kek.private.json", json.dumps({"kek_id": kek_id, "private_key": key.private_bytes_raw().hex()})
    )
    return sealing, opening


def subject_kek(audit_folder: Path) -> Path:
    """The KEK that the audit process wraps subjects' keys with, in a file that only it can read."""
    key = secrets.token_bytes(32)
    kek_id = f"file:{hashlib.sha256(b'kek' + key).hexdigest()[:16]}"
    return write_secret(audit_folder / "subjects.kek.json", json.dumps({"kek_id": kek_id, "key": key.hex()}))


def log_keys(signer_folder: Path, actions_folder: Path, origin: str) -> LogKeys:
    """The log's key for the signer, the receipt key for actions, and the manifest that binds them."""
    signer, receipt = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = signer.public_key().public_bytes_raw()
    key_id, verifier_key = _key_id(origin, NOTE, public), vkey(origin, NOTE, public)
    body = _manifest(origin, receipt)
    signature = base64.b64encode(key_id + signer.sign(body.encode())).decode()
    manifest = signer_folder / "manifest.txt"
    signer_key = write_secret(signer_folder / "log.key", _pem(signer))
    manifest.write_text(f"{body}\n\u2014 {origin} {signature}\n")
    return LogKeys(
        origin, verifier_key, signer_key, write_secret(actions_folder / "receipt.key", _pem(receipt)), manifest
    )


def witness_key(folder: Path, name: str) -> WitnessKeys:
    """A witness's key, for the one process that holds it, and its verifier key for everybody else."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    path = write_secret(folder / "witness.key", _pem(key))
    return WitnessKeys(name, vkey(name, COSIGNATURE, public), path)


def vkey(name: str, algorithm: bytes, public: bytes) -> str:
    """A verifier key as C2SP signed-note spells it."""
    return f"{name}+{_key_id(name, algorithm, public).hex()}+{base64.b64encode(algorithm + public).decode()}"


def _key_id(name: str, algorithm: bytes, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + algorithm + public).digest()[:4]


def _manifest(origin: str, receipt: Ed25519PrivateKey) -> str:
    """The text of the key manifest (verifier/FORMAT.md): one line for each key, with the tree sizes it is good for."""
    public = base64.b64encode(receipt.public_key().public_bytes_raw()).decode()
    return f"{origin}/keys\nrecoup-keys/v1\nreceipt ed25519 {public} 0 -\n"


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
