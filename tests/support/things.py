"""A service that only tests have: one state table in the schema of pricing, its calls, its keys.

The mesh's own parts around it (outbox, jobs, roles, policies) are those of every service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import grpc.aio
from joserfc.jwk import OKPKey
from sqlalchemy import text

from services._mesh import schema
from services._mesh.clock import Clock
from services._mesh.context import CallContext, entered
from services._mesh.credentials import CredentialInUse
from services._mesh.errors import DETAILS_KEY, Problem, to_status
from services._mesh.passports import Passport
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from services._mesh.uow import UnitOfWork
from tests.support.postgres import TestDatabase

SERVICE = "pricing"
ACME, GLOBEX, INITECH = UUID(int=1), UUID(int=2), UUID(int=3)


async def install(database: TestDatabase) -> None:
    """Make the service's tables, as its migration would."""
    await database.run_as_owner(
        SERVICE,
        [
            *schema.mesh_tables(SERVICE, jobs=True, worker=True),
            *schema.payload_retention(SERVICE),
            *schema.relaying(SERVICE),
            f"CREATE TABLE {SERVICE}.things (organization_id uuid NOT NULL, thing_id uuid NOT NULL, name text NOT NULL,"
            " PRIMARY KEY (organization_id, thing_id))",
            *schema.tenancy(SERVICE, "things", "state"),
            *schema.allow(SERVICE, "things", api="SELECT, INSERT, UPDATE, DELETE", worker="SELECT, INSERT, UPDATE"),
        ],
    )


def context(organization: UUID | None = ACME, action: str = "", peer: str = "gateway", **more: Any) -> CallContext:
    """The circumstances of a call, as the server would have verified them."""
    facts: dict[str, Any] = {
        "rpc": "test/Write",
        "peer": peer,
        "request_id": "r",
        "trace_id": "",
        "deadline": None,
        "organization_id": organization,
        "actor": "user:1",
        "audit_action": action,
        "authority": f"passport:{uuid4()}",
    }
    return CallContext(**{**facts, **more})


def linked_passport(person: UUID, *others: UUID) -> Passport:
    """The passport of somebody who is other users besides, as far as the service looks at it after the gate."""
    return Passport(
        audience=SERVICE, actor=f"user:{person}", responsible_person=person, organization_id=ACME, role="ADMIN",
        permissions=frozenset(), permissions_version=1, session_id="s", aal=2, auth_time=0, act=(), presenter="",
        jti="j", issued_at=0, expires_at=1, linked=frozenset(others),
    )  # fmt: skip


async def add_thing(work: UnitOfWork, name: str, thing_id: UUID | None = None) -> UUID:
    """Insert a thing; its event is the caller's business."""
    thing = thing_id or uuid4()
    await work.execute(
        text(f"INSERT INTO {SERVICE}.things VALUES (:o, :t, :n)"), {"o": work.organization_id, "t": thing, "n": name}
    )
    return thing


class Unrotated:
    """Stands in for the scanner, where no credential gave way to another."""

    async def in_use(self, organization_id: UUID, credential_id: UUID) -> CredentialInUse:
        """See CredentialKeeper."""
        return CredentialInUse(credential_id, None)


class Uncounted:
    """Stands in for the broker, where it can't be asked what didn't open."""

    async def find(self, organization_id: UUID) -> None:
        """See FailureCounts."""


class MovableClock(Clock):
    """Both clocks, each moved by hand from the moment of its making."""

    def __init__(self) -> None:
        self.ahead, self.wall_ahead = timedelta(), timedelta()
        super().__init__(now=lambda: datetime.now(UTC) + self.ahead, wall=lambda: datetime.now(UTC) + self.wall_ahead)


def keys(folder: Path, issuer: str = SERVICE) -> tuple[SigningKey, TrustStore]:
    """A signing key of `issuer`, and a trust folder that knows it."""
    key = SigningKey(OKPKey.generate_key("Ed25519"), env="local.invalid")
    (folder / f"{issuer}.jwks.json").write_text(json.dumps(key.public_jwks()))
    return key, TrustStore(folder)


def serving(
    add: Callable[[grpc.aio.Server], None], peer: str, facts: Callable[[], dict[str, Any]] = dict
) -> AbstractAsyncContextManager[grpc.aio.Channel]:
    """A real gRPC server on loopback whose calls all come from `peer`, under `facts`; yields a channel to it."""

    def call_of(details: Any) -> CallContext:
        told = {"organization": None, "rpc": details.method, "actor": f"spiffe://recoup/{peer}", **facts()}
        return context(peer=peer, peer_thumbprint="x5t", **told)

    return served(add, call_of)


@asynccontextmanager
async def served(
    add: Callable[[grpc.aio.Server], None], call_of: Callable[[Any], CallContext]
) -> AsyncIterator[grpc.aio.Channel]:
    """A real gRPC server on loopback; `call_of` makes a call's context from its details, or raises Problem.

    It stands in for the mTLS server only, which has tests of its own.
    """
    server = grpc.aio.server(interceptors=[_Entering(call_of)])
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    try:
        yield channel
    finally:
        await channel.close()
        await server.stop(None)


class _Entering(grpc.aio.ServerInterceptor):
    """Gives each call its context, and turns problems into statuses. A stream is left as it is."""

    def __init__(self, call_of: Callable[[Any], CallContext]) -> None:
        self._call_of = call_of

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler.response_streaming:
            return handler

        async def handle(request: Any, wire: Any) -> Any:
            try:
                with entered(self._call_of(details)):
                    return await handler.unary_unary(request, wire)
            except Problem as problem:
                status = to_status(problem).SerializeToString()
                await wire.abort(problem.code, problem.message, ((DETAILS_KEY, status),))

        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )
