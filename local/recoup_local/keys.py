"""Makes an installation's signing keys, and hands each to the one process that may hold it.

The public halves go to the trust folder; the KEK's private half only to the broker; the log's key only to the signer;
its root's private half to no process at all.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recoup_local.ca import write_secret
from services._mesh.tokens import SigningKey
from services.audit.model.cosigning import WitnessKey
from services.audit.model.manifest import EVIDENCE, LOG, RECEIPT, ListedKey, Manifest, sign_manifest
from services.audit.model.notes import Signer
from services.audit.signer_memory import SignerMemory


@dataclass(frozen=True)
class LogFolders:
    """Where the log's keys go: to the signer, to who signs receipts and evidence, and away from all of them."""

    signer: Path
    actions: Path
    evidence: Path
    offline: Path


@dataclass(frozen=True)
class LogKeys:
    """The log's name, its verifier key and its root's, the private keys of root, signer and receipts, the manifest."""

    origin: str
    verifier_key: str
    root_verifier_key: str
    root_key: Path
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


@dataclass(frozen=True)
class FileRing:
    """The file KMS: its name, the half that wraps, and the whole of it, which is the broker's alone."""

    name: str
    sealing: Path
    opening: Path


def kek(sealing_folder: Path, broker_folder: Path) -> FileRing:
    """A file KMS: what wraps for who may only seal, what unwraps too for the broker."""
    key = X25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    name = f"file:{hashlib.sha256(public).hexdigest()[:16]}"
    sealing = {"kek_id": name, "public_key": public.hex()}
    opening = {**sealing, "private_key": key.private_bytes_raw().hex()}
    return FileRing(
        name,
        write_secret(sealing_folder / "kek.public.json", json.dumps(sealing)),
        write_secret(broker_folder / "kek.private.json", json.dumps(opening)),
    )


def subject_kek(audit_folder: Path) -> Path:
    """The KEK that the audit process wraps subjects' keys with, in a file that only it can read."""
    key = secrets.token_bytes(32)
    kek_id = f"file:{hashlib.sha256(b'kek' + key).hexdigest()[:16]}"
    return write_secret(audit_folder / "subjects.kek.json", json.dumps({"kek_id": kek_id, "key": key.hex()}))


def log_keys(folders: LogFolders, origin: str, witness: WitnessKeys) -> LogKeys:
    """The log's key for the signer, those that vouch for receipts and evidence, and the manifest that the root signs.

    The root's private half goes to a folder that no process is told of: the machine of it is offline elsewhere.
    """
    root, log, receipt, evidence = (Ed25519PrivateKey.generate() for _ in range(4))
    manifest = Manifest(
        origin,
        Signer(f"{origin}/root", root).verifier_key,
        [ListedKey(use, _public(key)) for use, key in ((LOG, log), (RECEIPT, receipt), (EVIDENCE, evidence))],
        [WitnessKey.parse(witness.verifier_key)],
        quorum=1,
    )
    path = folders.signer / "manifest.txt"
    folders.signer.joinpath("keys").mkdir(exist_ok=True, mode=0o700)
    SignerMemory.begin(folders.signer / "signed.json", datetime.now(UTC).year)
    path.write_text(sign_manifest(manifest, [Signer(f"{origin}/root", root)]))
    write_secret(folders.evidence / "evidence.key", _pem(evidence))
    return LogKeys(
        origin,
        Signer(origin, log).verifier_key.text(),
        manifest.root.text(),
        write_secret(folders.offline / "root.key", _pem(root)),
        write_secret(folders.signer / "log.key", _pem(log)),
        write_secret(folders.actions / "receipt.key", _pem(receipt)),
        path,
    )


def witness_key(folder: Path, name: str) -> WitnessKeys:
    """A witness's key, for the one process that holds it, and its verifier key for everybody else."""
    key = Ed25519PrivateKey.generate()
    path = write_secret(folder / "witness.key", _pem(key))
    return WitnessKeys(name, WitnessKey(name, _public(key)).text(), path)


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
