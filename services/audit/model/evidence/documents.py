"""The documents of an evidence bundle: its statement and envelope, the seal, the lines of events. Pure.

All of them are RFC 8785 JSON. Where a line holds nothing but texts and small whole numbers, orjson writes the bytes
that RFC 8785 asks for, thirty times as fast; a test holds it to that.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import rfc8785

EVIDENCE_VERSION = 1
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://recoup.invalid/evidence/v1"
MANIFEST, SEAL = "manifest.json", "seal.json"


def moment(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as events spell moments."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a bundle discloses: events about some actions, or about targets that begin with something. Empty: all."""

    actions: tuple[UUID, ...] = ()
    targets: tuple[str, ...] = ()

    def text(self) -> str:
        """As the statement says it: "organization", or its parts, sorted, with commas between them."""
        parts = [*(f"actions/{each}" for each in self.actions), *(f"target:{each}" for each in self.targets)]
        return ",".join(sorted(parts)) or "organization"

    def covers_payload(self, raw: bytes) -> bool:
        """Whether an event is to be disclosed, by its payload's bytes."""
        return not (self.actions or self.targets) or self.covers(orjson.loads(raw))

    def covers(self, payload: Mapping[str, Any]) -> bool:
        """Whether an event is to be disclosed, by its payload."""
        if not self.actions and not self.targets:
            return True
        target = str(payload.get("target", ""))
        metadata = payload.get("metadata")
        named = metadata.get("action_id") if isinstance(metadata, dict) else None
        about = {named, target.removeprefix("actions/")}
        return any(str(each) in about for each in self.actions) or any(target.startswith(t) for t in self.targets)


@dataclass(frozen=True, slots=True)
class Head:
    """A shard's head in a bundle: the size of its tree in the checkpoint that is enclosed."""

    shard: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much a bundle holds."""

    events: int
    disclosed: int
    erased: int
    receipts: int

    def document(self) -> dict[str, int]:
        """As the statement says it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a statement says of a bundle. `chain_seq` and `chain_leaf` (a leaf's hash): where the organization's chain
    ends in it. `digests` are the SHA-256 of its files by name, hexadecimal.
    """

    bundle_id: UUID
    organization_id: UUID
    scope: Scope
    begins_at: datetime
    ends_at: datetime
    created_at: datetime
    log: str
    heads: Sequence[Head]
    chain_seq: int
    chain_leaf: bytes
    counts: Counts
    digests: Mapping[str, str]


def statement(contents: Contents) -> bytes:
    """The in-toto statement over a bundle's files."""
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": contents.digests[name]}} for name in sorted(contents.digests)
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "v": EVIDENCE_VERSION,
                "bundle_id": str(contents.bundle_id),
                "organization_id": str(contents.organization_id),
                "scope": contents.scope.text(),
                "period": {"from": moment(contents.begins_at), "to": moment(contents.ends_at)},
                "created_at": moment(contents.created_at),
                "log": contents.log,
                "heads": [{"shard": head.shard, "size": head.size} for head in contents.heads],
                "chain": {"org_seq": contents.chain_seq, "leaf": contents.chain_leaf.hex()},
                "counts": contents.counts.document(),
            },
        }
    )


def pre_authentication(payload: bytes) -> bytes:
    """What DSSE v1 signs."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, key_id: str, signature: bytes) -> bytes:
    """The DSSE envelope."""
    return rfc8785.dumps(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": encode(payload),
            "signatures": [{"keyid": key_id, "sig": encode(signature)}],
        }
    )


def encode(raw: bytes) -> str:
    """Base64, RFC 4648, with padding."""
    return base64.b64encode(raw).decode()


def digest(document: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(document).hexdigest()


def event_line(shard: int, index: int, leaf: bytes, disclosed: tuple[bytes, bytes] | None, *, erased: bool) -> bytes:
    """A line of events.jsonl. `disclosed` is payload and salt, where the event is shown."""
    line: dict[str, Any] = {"index": index, "leaf": leaf.decode(), "shard": shard}
    if erased:
        line["erased"] = True
    elif disclosed is not None:
        line |= {"payload": disclosed[0].decode(), "salt": encode(disclosed[1])}
    return orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n"


@dataclass(frozen=True, slots=True)
class ProvenLeaf:
    """A leaf with its payload, and its way to a signed checkpoint."""

    leaf: bytes
    payload: bytes
    salt: bytes
    index: int
    hashes: Sequence[bytes]
    checkpoint: str

    def tlog_proof(self) -> str:
        """The C2SP tlog-proof."""
        hashes = "".join(f"{encode(each)}\n" for each in self.hashes)
        return f"c2sp.org/tlog-proof@v1\nindex {self.index}\n{hashes}\n{self.checkpoint}"

    def document(self) -> dict[str, str]:
        """Leaf, payload, salt and proof, as seals, openings and heads spell them."""
        return {
            "leaf": self.leaf.decode(),
            "payload": self.payload.decode(),
            "salt": encode(self.salt),
            "proof": self.tlog_proof(),
        }


def seal(sealed: ProvenLeaf, consistency: Sequence[bytes], key_manifest: str) -> bytes:
    """The seal: the event that names the statement, proven under a later head that continues the bundle's."""
    return rfc8785.dumps(
        {
            "v": EVIDENCE_VERSION,
            **sealed.document(),
            "consistency": [encode(each) for each in consistency],
            "key_manifest": key_manifest,
        }
    )
