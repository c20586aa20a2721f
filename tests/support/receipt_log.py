"""A log of its own for the verifier's tests: leaves, proofs and signatures, by the services' code and by hand."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.model import merkle
from services.audit.model.leaf import Leaf, commitment
from services.audit.model.notes import Signer, TreeHead
from tests.support.receipt_cases import Document

ORIGIN = "recoup-test.local.invalid/log"
ORGANIZATION = str(UUID(int=1))
_APPENDED = datetime(2026, 6, 1, tzinfo=UTC)
_PAYLOAD_TYPE = "application/vnd.in-toto+json"


def sha256(raw: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def b64(raw: bytes) -> str:
    """Base64 with padding."""
    return base64.b64encode(raw).decode()


@dataclass
class Signatories:
    """The log's key and the receipt key, with the range that the manifest gives to the latter."""

    log: Signer = field(default_factory=lambda: Signer(ORIGIN, Ed25519PrivateKey.generate()))
    receipt: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    valid: str = "0 -"

    @property
    def receipt_public(self) -> bytes:
        """The receipt key's 32 bytes."""
        return self.receipt.public_key().public_bytes_raw()

    def manifest(self) -> str:
        """The key manifest, signed by the log's key."""
        key = f"receipt ed25519 {b64(self.receipt_public)} {self.valid}"
        return self.log.sign(f"{self.log.verifier_key.name}/keys\nrecoup-keys/v1\n{key}\n")


@dataclass
class LoggedEvent:
    """An event on its way into the log. `before` are leaves of others that come before it.

    `number` and `previous` are its place in the organization's chain, where it isn't the honest one.
    """

    payload: Document
    organization_id: str = ORGANIZATION
    producer: str = "actions"
    before: int = 1
    number: int | None = None
    previous: bytes | None = None


def envelope(statement: bytes, signatories: Signatories) -> Document:
    """The DSSE envelope of a statement."""
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(statement), statement)
    signature = {"keyid": sha256(signatories.receipt_public), "sig": b64(signatories.receipt.sign(signed))}
    return {"payloadType": _PAYLOAD_TYPE, "payload": b64(statement), "signatures": [signature]}


def log(events: list[LoggedEvent], signer: Signer, later: tuple[int, Signer] | None = None) -> list[Document]:
    """The events in a log among those of others, with their proofs; two more events follow.

    `later` is the number of the event with which a new shard begins, and who signs that one's heads.
    """
    if later is None:
        return _tree(events, 0, b"", signer)
    before = _tree(events[: later[0]], 0, b"", signer)
    previous = merkle.leaf_hash(before[-1]["leaf"].encode())
    return [*before, *_tree(events[later[0] :], later[0], previous, later[1])]


def _tree(events: list[LoggedEvent], first: int, previous: bytes, signer: Signer) -> list[Document]:
    frontier, nodes, placed = merkle.Frontier(), dict[merkle.Node, bytes](), []
    for number, event in enumerate(events, first):
        leaves = [f"{number}/{other}".encode() for other in range(event.before)]
        payload, salt = rfc8785.dumps(event.payload), hashlib.sha256(b"%d" % number).digest()
        leaf = _leaf(event, number, previous, commitment(payload, salt))
        for each in (*leaves, leaf):
            nodes |= {(h, p): digest for h, p, digest in frontier.append(merkle.leaf_hash(each))}
        placed.append((frontier.size - 1, leaf, payload, salt))
        previous = merkle.leaf_hash(leaf)
    for each in (b"y", b"z"):
        nodes |= {(h, p): digest for h, p, digest in frontier.append(merkle.leaf_hash(each))}
    head = signer.sign(TreeHead(signer.verifier_key.name, frontier.size, frontier.root()).text())
    return [
        {
            "leaf": leaf.decode(),
            "payload": payload.decode(),
            "salt": b64(salt),
            "proof": _proof(index, merkle.hash_ranges(merkle.inclusion_ranges(index, frontier.size), nodes), head),
        }
        for index, leaf, payload, salt in placed
    ]


def _leaf(event: LoggedEvent, number: int, previous: bytes, committed: str) -> bytes:
    event_id, organization = UUID(event.payload["event_id"]), UUID(event.organization_id)
    place = number + 1 if event.number is None else event.number
    chained = previous if event.previous is None else event.previous
    return Leaf(event_id, organization, place, chained, event.producer, number + 1, _APPENDED, committed).encode()


def _proof(index: int, hashes: list[bytes], head: str) -> str:
    lines = "".join(f"{b64(each)}\n" for each in hashes)
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{lines}\n{head}"
