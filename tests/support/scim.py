"""SCIM as a directory meets it: the gateway's application before identity's own RPCs, on a real database, in-process.

What isn't here is TLS, HTTP's parser and gRPC's, which have tests of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import httpx2

from recoup.identity.v1 import scim_service_pb2 as pb
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import DETAILS_KEY, Problem, to_status
from services._mesh.metrics import Metrics
from services._mesh.pages import PageTokens
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.routes import Router
from services.identity.__main__ import permission_table
from services.identity.rpc.scim import ScimRpc
from tests.support.identity import ADMIN, GLOBAL_ADMIN, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context

SERVICE = pb.DESCRIPTOR.services_by_name["ScimService"]
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
OWED = {"ReadScim": "", "WriteScim": "identity.scim.provision"}


class _Identity:
    """Identity's RPCs in the place of a channel to them."""

    def __init__(self, rpc: ScimRpc) -> None:
        self._rpc = rpc

    def unary_unary(self, path: str, **_codecs: Any) -> Any:
        name = path.rpartition("/")[2]

        async def call(request: Any, **_options: Any) -> Any:
            told = {"rpc": path, "actor": "spiffe://recoup/gateway", "peer": "gateway"}
            try:
                with entered(context(None, OWED.get(name, ""), **told)):
                    return await getattr(self._rpc, name)(request, None)
            except Problem as problem:
                details = ((DETAILS_KEY, to_status(problem).SerializeToString()),)
                raise grpc.aio.AioRpcError(problem.code, grpc.aio.Metadata(), grpc.aio.Metadata(*details)) from problem

        return call


@dataclass
class Answered:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Directory:
    """A directory with a token of one organization."""

    gateway: Gateway
    token: str
    token_id: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: Any = None, *, expect: int | None = None, **headers: str
    ) -> Answered:
        """One request below /scim/v2; a body that isn't bytes is sent as JSON. `expect` is the status it must have."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/scim+json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        answer = await call(self.gateway, method, f"/scim/v2{path}", raw, {"authorization": self.bearer, **given})
        assert expect in (None, answer.status), (answer.status, answer.body)
        return answer

    @property
    def bearer(self) -> str:
        """The header's value."""
        return f"Bearer {self.token}"

    async def made(self, kind: str, **attributes: Any) -> dict[str, Any]:
        """A new user or group."""
        schema = USER if kind == "Users" else GROUP
        answer = await self.ask("POST", f"/{kind}", {"schemas": [schema], **attributes}, expect=201)
        return answer.document

    async def patch(self, path: str, *operations: Any, expect: int = 200) -> Answered:
        """A PATCH."""
        return await self.ask("PATCH", path, {"schemas": [PATCH], "Operations": operations}, expect=expect)

    async def get(self, path: str, expect: int = 200) -> dict[str, Any]:
        """A GET."""
        return (await self.ask("GET", path, expect=expect)).document


async def call(app: Any, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    """One request at an ASGI application."""
    path, _, query = path.partition("?")
    sent: list[MutableMapping[str, Any]] = []
    named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode("latin-1"), "headers": named}

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app({**scope, "query_string": query.encode("latin-1"), "client": ("192.0.2.1", 1)}, receive, send)
    start, end = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], answered, end["body"])


class ThreadTransport(httpx2.BaseTransport):
    """For clients that wait: each request runs in the loop of the test, while they run in a thread."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._app, self._loop = app, loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.raw_path.decode()
        asked = call(self._app, request.method, path, request.read(), dict(request.headers))
        answer = asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.body)


@dataclass
class Provisioning:
    """Two organizations, each with its directory."""

    registry: Registry
    rpc: ScimRpc
    gateway: Gateway
    acme: Directory
    globex: Directory

    async def told(self, organization: UUID = ACME) -> list[dict[str, Any]]:
        """The events of what directories changed."""
        return await self.registry.events("identity.scim.provision", organization)


async def new_token(rpc: ScimRpc, organization: UUID, user: UUID, **asked: Any) -> pb.CreateScimTokenResponse:
    """A token, as an Admin gets it."""
    told: dict[str, Any] = {"actor": f"user:{user}", "responsible_person": user, "role": "ADMIN", "aal": 2}
    request = pb.CreateScimTokenRequest(organization_id=str(organization), **{"name": "okta", **asked})
    with entered(context(organization, "identity.scim_token.create", **told)):
        return await rpc.CreateScimToken(request, None)


@asynccontextmanager
async def provisioning(database: TestDatabase) -> AsyncIterator[Provisioning]:
    """SCIM on a database that has identity's migrations."""
    async with registry(database) as found:
        yield await provisioned(found)


async def provisioned(found: Registry) -> Provisioning:
    """The same on a registry that is there already."""
    clock: Clock = found.clock
    rpc = ScimRpc(found.store, clock, PageTokens(b"k" * 32), permission_table())
    behind: Any = _Identity(rpc)
    rates = {"reads_a_second": 100_000.0, "writes_a_second": 100_000.0}
    bursts = {"read_burst": 100_000, "write_burst": 100_000, "stranger_burst": 100_000}
    settings = EdgeSettings(listen="127.0.0.1:0", **rates, **bursts)  # type: ignore[arg-type]
    router = Router([("identity", SERVICE)])
    gateway = Gateway(router, behind, lambda _: behind, settings, Metrics(), lambda: True, {})
    tokens = [await new_token(rpc, ACME, ADMIN), await new_token(rpc, GLOBEX, GLOBAL_ADMIN)]
    acme, globex = (Directory(gateway, each.token, each.scim_token.token_id) for each in tokens)
    return Provisioning(found, rpc, gateway, acme, globex)
