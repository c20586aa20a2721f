"""What the log holds of an event: the leaf, and the payload that it commits to.

A leaf names no person and no content: it holds a salted commitment to the payload, and chains the organization's
events to each other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
import rfc8785

from services.audit.model.canonical import is_canonical
from services.audit.model.digests import Digest, plain_digest

LEAF_VERSION = 1
SALT_LENGTH = 32
MAX_PAYLOAD = 65536
_REQUIRED = ("action", "target", "result", "role", "occurred_at", "actor", "authority")
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# A passport, or the elevation (break-glass) that a passport was issued under.
_PASSPORT = re.compile(rf"passport:{_UUID}|elevation:{_UUID}\.{_UUID}")
# The id of a grant: job, fence, number.
_GRANT = re.compile(rf"grant:{_UUID}\.[0-9]{{1,19}}\.[0-9]{{1,19}}")
# An answer of an organization's identity provider, by which a person signs in before there is any passport.
_SIGN_IN = re.compile(rf"saml:{_UUID}")
# A directory's token; it is the actor, too.
_DIRECTORY = re.compile(rf"scim:{_UUID}")
PROCESSES = ("process:", "spiffe:")


class PayloadInvalid(Exception):
    """The payload isn't the canonical document that its envelope says it is."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload's bytes, its actor, and the parts of it that hold nothing personal and can be searched."""

    raw: bytes
    digest: bytes
    actor: str
    action: str
    target: str
    result: str
    role: str
    occurred_at: datetime
    request_id: str
    trace_id: str

    @property
    def subject(self) -> str:
        """The person whose data this is: the actor, or nobody where a process acts for itself."""
        return "" if self.actor.startswith(PROCESSES) else self.actor

    def is_that_of(self, digest: bytes) -> bool:
        """Whether a digest that the log has is this payload's, also one from before digests were keyed."""
        return digest in (self.digest, plain_digest(self.raw))


def parse_payload(raw: bytes, event_id: UUID, organization_id: UUID, digest: Digest = plain_digest) -> Payload:
    """Read a payload and hold it against its envelope; `digest` is what it will be told by. Raises PayloadInvalid."""
    try:
        content = orjson.loads(raw)
        if not isinstance(content, dict) or not is_canonical(content, raw):
            raise PayloadInvalid("the payload isn't RFC 8785 JSON")
        if content.get("event_id") != str(event_id) or content.get("organization_id") != str(organization_id):
            raise PayloadInvalid("the payload is of another event or organization")
        if not all(isinstance(content.get(name), str) for name in _REQUIRED):
            raise PayloadInvalid(f"the payload must have the texts {', '.join(_REQUIRED)}")
        _check_authority(content["authority"], content["actor"])
        return Payload(
            raw,
            digest(raw),
            content["actor"],
            content["action"],
            content["target"],
            content["result"],
            content["role"],
            datetime.fromisoformat(content["occurred_at"]),
            str(content.get("request_id", "")),
            str(content.get("trace_id", "")),
        )
    except (orjson.JSONDecodeError, ValueError, rfc8785.CanonicalizationError) as error:
        raise PayloadInvalid("the payload can't be read") from error


def _check_authority(authority: str, actor: str) -> None:
    """What an event rests on: a person's passport or sign-in, a directory's token, a process's grant or itself."""
    if _PASSPORT.fullmatch(authority) or (_DIRECTORY.fullmatch(authority) and authority == actor):
        return
    if _SIGN_IN.fullmatch(authority) and actor.startswith("user:"):
        return
    if not actor.startswith(PROCESSES):
        raise PayloadInvalid(
            f"authority must be the passport that {actor[:80]} acted with: passport:<id> or elevation:<id>.<id>"
        )
    if authority != "system" and not _GRANT.fullmatch(authority):
        raise PayloadInvalid("authority must be passport:<id>, grant:<job>.<fence>.<number> or system")


def commitment(payload: bytes, salt: bytes) -> str:
    """SHA-256(salt ‖ payload), hexadecimal."""
    return hashlib.sha256(salt + payload).hexdigest()


@dataclass(frozen=True, slots=True)
class Leaf:
    """The content of one leaf. `previous` is the hash of the organization's previous leaf, empty for its first."""

    event_id: UUID
    organization_id: UUID
    organization_seq: int
    previous: bytes
    producer: str
    producer_counter: int
    appended_at: datetime
    payload_commitment: str

    def encode(self) -> bytes:
        """The leaf as RFC 8785 JSON: its text is ASCII, its numbers are whole, and its keys stand here in order."""
        return orjson.dumps(
            {
                "appended_at": self.appended_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                "event_id": str(self.event_id),
                "org_seq": self.organization_seq,
                "organization_id": str(self.organization_id),
                "payload_commitment": self.payload_commitment,
                "prev_leaf": self.previous.hex(),
                "producer": self.producer,
                "producer_counter": self.producer_counter,
                "v": LEAF_VERSION,
            },
            option=orjson.OPT_STRICT_INTEGER,
        )
