"""What a backup's manifest says, and how it is sealed and signed.

    line 1      RFC 8785 JSON: the format, the backup's id, when it was begun, the wrapped data keys; in the clear
    the rest    nonce (12) ‖ AES-256-GCM of the compressed JSON of `Manifest`, AAD = line 1 ‖ signature (64, Ed25519)

The signature is over all before it: where wrapping needs no secret (a public key of RSA or X25519), anybody could seal
a manifest of their own.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.backup.model.parts import derive

FORMAT = 1
PURPOSE = "backup.data_key"
MAIN, KEYS = "main", "keys"
_NONCE, _SIGNATURE = 12, 64
_MAX_BODY = 256 * 1024 * 1024
# Names begin with the newest: a listing gives the first in the order of octets.
_LATEST = 1 << 43  # In milliseconds: thirteen digits until the year 2248.


class ManifestBroken(Exception):
    """The manifest can't be trusted or read; says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a backup before its keys are. `keys` are the envelopes of the data key of each database."""

    backup_id: UUID
    begun_at: datetime
    source: str
    keys: Mapping[str, bytes]

    def line(self) -> bytes:
        """The first line."""
        keys = {name: base64.b64encode(envelope).decode() for name, envelope in sorted(self.keys.items())}
        content = {
            "backup_id": str(self.backup_id),
            "begun_at": self.begun_at.isoformat(),
            "format": FORMAT,
            "keys": keys,
            "source": self.source,
        }
        return json.dumps(content, separators=(",", ":"), sort_keys=True).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Header:
        """A header from its line. Raises ManifestBroken."""
        try:
            content = json.loads(line)
            if content["format"] != FORMAT:
                raise ManifestBroken(f"it is of format {content['format']}, which this version doesn't read")
            keys = {str(name): base64.b64decode(text, validate=True) for name, text in content["keys"].items()}
            begun_at = datetime.fromisoformat(content["begun_at"])
            return cls(UUID(content["backup_id"]), begun_at, str(content["source"]), keys)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestBroken("its first line isn't a backup's") from error

    @property
    def name(self) -> str:
        """What the backup's manifest and its beginning are stored as."""
        return f"{_LATEST - int(self.begun_at.timestamp() * 1000):013d}-{self.backup_id}"

    @staticmethod
    def of_name(name: str) -> tuple[str, datetime]:
        """The id of the backup of such a name, and when it was begun, to the millisecond."""
        place, _, backup_id = name.partition("-")
        return backup_id, datetime.fromtimestamp((_LATEST - int(place)) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Table:
    """One table's rows, as COPY's text in the order of its key: how many, their digest, and those of its parts."""

    name: str
    columns: Sequence[str]
    order: Sequence[str]
    rows: int
    size_bytes: int
    sha256: str
    parts: Sequence[str]


@dataclass(frozen=True, slots=True)
class DatabaseCopy:
    """One database in one snapshot. `partitions` are those that were attached, by their parent."""

    name: str
    system_identifier: str
    server_version: str
    lsn: str
    taken_at: str
    revisions: Mapping[str, str]
    partitions: Mapping[str, Sequence[str]]
    tables: Sequence[Table]


@dataclass(frozen=True, slots=True)
class KekUse:
    """How many secrets of an organization are sealed under a version of a KEK; `service` is the envelope's number."""

    organization_id: str
    service: int
    kek: str
    secrets: int


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far the log was: its place (shard << 40 | size), its root, and the newest checkpoint that was signed."""

    place: int
    checkpoint_place: int
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a backup holds."""

    backup_id: str
    databases: Mapping[str, DatabaseCopy]
    keks: Sequence[KekUse]
    log: LogHead
    taken_at: str = field(default="")

    def as_json(self) -> bytes:
        """The manifest as it is sealed."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """A manifest. Raises ManifestBroken."""
        try:
            given = json.loads(content)
            databases = {name: _database(each) for name, each in given.pop("databases").items()}
            keks = [KekUse(**each) for each in given.pop("keks")]
            return cls(databases=databases, keks=keks, log=LogHead(**given.pop("log")), **given)
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestBroken("it isn't a manifest of this version") from error


def _database(given: dict[str, Any]) -> DatabaseCopy:
    tables = [Table(**each) for each in given.pop("tables")]
    return DatabaseCopy(tables=tables, **given)


def seal_manifest(manifest: Manifest, header: Header, data_key: bytes, signer: Ed25519PrivateKey) -> bytes:
    """The object that makes a backup whole."""
    line, nonce = header.line(), os.urandom(_NONCE)
    body = AESGCM(derive(data_key, b"manifest")).encrypt(nonce, zlib.compress(manifest.as_json()), line)
    content = line + nonce + body
    return content + signer.sign(content)


def signed_line(header: Header, signer: Ed25519PrivateKey) -> bytes:
    """What notes that a backup was begun. Signed: nobody has one made under keys of theirs."""
    line = header.line()
    return line + signer.sign(line)


def split_manifest(content: bytes, verifiers: Sequence[bytes]) -> tuple[Header, bytes]:
    """A header and the sealed body after it, once its signature is one of a verifier's. Raises ManifestBroken."""
    signed, signature = content[:-_SIGNATURE], content[-_SIGNATURE:]
    for public in verifiers:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
            break
        except InvalidSignature:
            continue
    else:
        raise ManifestBroken("no key of [manifest] verifiers signed it: it was changed, or isn't ours")
    line, found, body = signed.partition(b"\n")
    return Header.read(line + found), body


def open_manifest(header: Header, body: bytes, data_key: bytes) -> Manifest:
    """What a manifest says. Raises ManifestBroken."""
    try:
        key = derive(data_key, b"manifest")
        compressed = AESGCM(key).decrypt(body[:_NONCE], body[_NONCE:], header.line())
        opening = zlib.decompressobj()
        content = opening.decompress(compressed, _MAX_BODY)
    except (InvalidTag, ValueError, zlib.error):
        raise ManifestBroken("it doesn't open under its own key") from None
    manifest = Manifest.from_json(content)
    if manifest.backup_id != str(header.backup_id):
        raise ManifestBroken("it is of another backup than its first line says")
    return manifest
