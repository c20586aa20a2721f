"""Repeated requests (AIP-155): the answer to a `request_id` is kept with its transaction, and given again.

Keyed by organization, actor, RPC and request id, with a digest of the body. It must not decide what may be repeated:
a request without `request_id` simply runs.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.context import CallContext
from services._mesh.errors import AlreadyExists, Conflict, Reason
from services._mesh.ids import UUID_TEXT

R = TypeVar("R", bound=Message)

KEPT_FOR = timedelta(days=7)
# Old answers are swept by one write in a hundred: often enough to bound the table, seldom enough not to be felt.
_SWEEP_SHARE = 0.01

_KEY = "organization_id = :organization_id AND actor = :actor AND rpc = :rpc AND request_id = :request_id"
_FIND = f"SELECT body_sha256, response FROM {{schema}}.idempotency WHERE {_KEY}"
_INSERT = """
INSERT INTO {schema}.idempotency (organization_id, actor, rpc, request_id, body_sha256, response, created_at)
VALUES (:organization_id, :actor, :rpc, :request_id, :body_sha256, :response, :now)
"""
_SWEEP = "DELETE FROM {schema}.idempotency WHERE organization_id = :organization_id AND created_at < :before"
# Held to the end of the transaction; a second caller is told at once instead of waiting for the first.
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"


@dataclass(frozen=True, slots=True)
class Repeatable:
    """One request as it is recognized when it comes again. `digest` covers all of the body."""

    schema: str
    organization_id: UUID
    actor: str
    rpc: str
    request_id: str
    digest: bytes

    def _key(self) -> dict[str, Any]:
        return {
            "organization_id": self.organization_id,
            "actor": self.actor,
            "rpc": self.rpc,
            "request_id": self.request_id,
        }

    async def lock(self, connection: AsyncConnection) -> None:
        """Keep others out that make the same request now. Raises Conflict (REQUEST_IN_FLIGHT)."""
        name = f"{self.organization_id}/{self.actor}/{self.rpc}/{self.request_id}"
        if not (await connection.execute(text(_LOCK), {"name": name})).scalar():
            raise Conflict(
                Reason.ERROR_REASON_REQUEST_IN_FLIGHT,
                "The same request is being worked on. Ask again for its answer.",
                {"request_id": self.request_id},
            )

    async def find(self, connection: AsyncConnection, response: type[R]) -> R | None:
        """The answer it got before, or None. Raises AlreadyExists (REQUEST_ID_REUSED) if the body was another."""
        found = (await connection.execute(text(_FIND.format(schema=self.schema)), self._key())).one_or_none()
        if found is None:
            return None
        if bytes(found.body_sha256) != self.digest:
            raise AlreadyExists(
                Reason.ERROR_REASON_REQUEST_ID_REUSED,
                "request_id was used before with another body. Use a new one.",
                {"request_id": self.request_id},
            )
        return response.FromString(bytes(found.response))

    async def remember(self, connection: AsyncConnection, answer: Message, wall_now: datetime) -> None:
        """Keep the answer; now and then, forget those of this organization that are too old."""
        if random.random() < _SWEEP_SHARE:
            old = {"organization_id": self.organization_id, "before": wall_now - KEPT_FOR}
            await connection.execute(text(_SWEEP.format(schema=self.schema)), old)
        kept = {"body_sha256": self.digest, "response": answer.SerializeToString(), "now": wall_now}
        await connection.execute(text(_INSERT.format(schema=self.schema)), {**self._key(), **kept})


def repeatable(schema: str, organization_id: UUID, context: CallContext, request: Message) -> Repeatable | None:
    """The request as something that can come again; None where it has no `request_id`."""
    given = str(getattr(request, "request_id", ""))
    if not given:
        return None
    request_id = canonical(given)
    if request_id != given:  # The digest must not tell two spellings of one id apart either.
        copy = type(request)()
        copy.CopyFrom(request)
        copy.request_id = request_id  # type: ignore[attr-defined]
        request = copy
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return Repeatable(schema, organization_id, context.actor, context.rpc, request_id, digest)


def canonical(request_id: str) -> str:
    """A UUID as RFC 9562 writes it, in lower case; any other id as it is."""
    return request_id.lower() if UUID_TEXT.fullmatch(request_id) else request_id
