"""The typed client for internal teams: gRPC over mTLS under the team's own certificate, with passports.

    async with MeshClient(addresses, certificate, session_token, organization_id) as mesh:
        async for finding in pages(mesh.scanner.ListFindings, ListFindingsRequest(organization_id=…), "findings"):
            ...

Every call has a deadline. Reads are repeated when a part was away; changes are repeated by you, with the same
`request_id`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from recoup.actions.v1 import actions_pb2, actions_service_pb2, actions_service_pb2_grpc
from recoup.audit.v1 import (
    audit_service_pb2_grpc,
    erasure_service_pb2_grpc,
    evidence_service_pb2_grpc,
)
from recoup.identity.v1 import (
    identity_service_pb2,
    identity_service_pb2_grpc,
    role_service_pb2_grpc,
    token_service_pb2_grpc,
)
from recoup.mesh.v1 import access_pb2
from recoup.pricing.v1 import (
    bill_service_pb2_grpc,
    pricing_service_pb2_grpc,
)
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup.services import SERVICES
from recoup_client.errors import SignInNeeded, typed

CALL_SECONDS = 30.0
POLL_SECONDS = 0.5
# Whose passport opens what is about the whole installation, such as the log's checkpoints and tiles.
PLATFORM_ORGANIZATION_ID = "00000000-0000-0000-0000-000000000000"
_MARGIN_SECONDS = 30.0
# Of a passport; the last one where its key is trusted no more.
_STALE = frozenset({"CREDENTIAL_EXPIRED", "CREDENTIAL_REVOKED", "CREDENTIAL_INVALID"})
_OVER = frozenset({scanner_pb2.SCAN_STATE_COMPLETE, scanner_pb2.SCAN_STATE_PARTIAL, scanner_pb2.SCAN_STATE_FAILED})
# Nothing more happens to an action in these but its checkpoints.
_SETTLED = frozenset(
    getattr(actions_pb2, f"ACTION_STATE_{state}")
    for state in ("REJECTED", "CANCELLED", "EXPIRED", "EXECUTED", "STALE", "FAILED", "CLOSED")
)
T = TypeVar("T", bound=Message)


@dataclass(frozen=True)
class Certificate:
    """The team's certificate and key, and the installation's CA, as PEM files."""

    ca: Path
    cert: Path
    key: Path

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials of today's files."""
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())


class MeshClient:
    """Calls the services of one installation for one organization with one session, or an API token.

    `addresses` maps a service to host:port. Calls raise `recoup_client.errors.RecoupError`.
    """

    def __init__(
        self, addresses: Mapping[str, str], certificate: Certificate, session_token: str, organization_id: str
    ) -> None:
        self._addresses, self._certificate = addresses, certificate
        self._session, self._organization_id = session_token, organization_id
        self._channels: list[grpc.aio.Channel] = []
        self._passports: dict[str, tuple[str, float]] = {}
        self._issuer = identity_service_pb2_grpc.IdentityServiceStub(self._open("identity", []))
        identity = self._channel("identity")
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(identity)
        self.roles = role_service_pb2_grpc.RoleServiceStub(identity)
        self.tokens = token_service_pb2_grpc.TokenServiceStub(identity)
        self.scanner = scanner_service_pb2_grpc.ScannerServiceStub(self._channel("scanner"))
        pricing = self._channel("pricing")
        self.pricing = pricing_service_pb2_grpc.PricingServiceStub(pricing)
        self.bills = bill_service_pb2_grpc.BillServiceStub(pricing)
        self.actions = actions_service_pb2_grpc.ActionsServiceStub(self._channel("actions"))
        audit = self._channel("audit")
        self.audit = audit_service_pb2_grpc.AuditServiceStub(audit)
        self.erasures = erasure_service_pb2_grpc.ErasureServiceStub(audit)
        self.evidence = evidence_service_pb2_grpc.EvidenceServiceStub(audit)

    async def passport(self, service: str, *, fresh: bool = False) -> str:
        """A passport for a service, kept until shortly before it ends."""
        known = self._passports.get(service)
        if known is not None and not fresh and known[1] > time.time():
            return known[0]
        request = identity_service_pb2.IssuePassportRequest(
            session_token=self._session, audience=service, organization_id=self._organization_id
        )
        try:
            answer = await self._issuer.IssuePassport(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise typed(error) from None
        self._passports[service] = (answer.passport, answer.expires_at.seconds - _MARGIN_SECONDS)
        return str(answer.passport)

    async def wait_for_scan(
        self, scan_id: str, seconds: float, progress: Callable[[scanner_pb2.Scan], None] | None = None
    ) -> scanner_pb2.Scan:
        """Wait until a scan is over, telling `progress` how far it is. Raises TimeoutError after `seconds`."""
        request = scanner_service_pb2.GetScanRequest(organization_id=self._organization_id, scan_id=scan_id)
        async with asyncio.timeout(seconds):
            while True:
                scan = (await self.scanner.GetScan(request)).scan
                if progress is not None:
                    progress(scan)
                if scan.state in _OVER:
                    return scan
                await asyncio.sleep(POLL_SECONDS)

    async def wait_for_action(
        self, action_id: str, seconds: float, progress: Callable[[actions_pb2.Action], None] | None = None
    ) -> actions_pb2.Action:
        """Wait until an action is executed or over, telling `progress` how far it is. Raises TimeoutError."""
        request = actions_service_pb2.GetActionRequest(organization_id=self._organization_id, action_id=action_id)
        async with asyncio.timeout(seconds):
            while True:
                action = (await self.actions.GetAction(request)).action
                if progress is not None:
                    progress(action)
                if action.state in _SETTLED:
                    return action
                await asyncio.sleep(POLL_SECONDS)

    def _channel(self, service: str) -> grpc.aio.Channel:
        return self._open(service, [_Authorized(self, service)])

    def _open(self, service: str, interceptors: list[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
        channel = grpc.aio.secure_channel(
            self._addresses[service],
            self._certificate.credentials(),
            options=[
                ("grpc.ssl_target_name_override", service),
                ("grpc.service_config", _service_config(SERVICES[service])),
            ],
            interceptors=interceptors,
        )
        self._channels.append(channel)
        return channel

    async def __aenter__(self) -> MeshClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()


class _Authorized(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the passport and a deadline, asks for a new passport once when the old one is void, types errors."""

    def __init__(self, client: MeshClient, service: str) -> None:
        self._client, self._service = client, service

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        try:
            return await self._call(continuation, client_call_details, request, fresh=False)
        except SignInNeeded as error:
            if error.reason not in _STALE:
                raise
        # It was refused before it reached its handler, so calling again is safe.
        return await self._call(continuation, client_call_details, request, fresh=True)

    async def _call(self, continuation: Any, details: Any, request: Any, *, fresh: bool) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        metadata.add("authorization", f"Bearer {await self._client.passport(self._service, fresh=fresh)}")
        timeout = CALL_SECONDS if details.timeout is None else details.timeout
        changed = grpc.aio.ClientCallDetails(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready
        )
        try:
            return await (await continuation(changed, request))
        except grpc.aio.AioRpcError as error:
            raise typed(error) from None


async def pages(call: Callable[[Any], Awaitable[Any]], request: T, items: str) -> AsyncIterator[Any]:
    """Every item of a list, page by page. `items` names the field of the response that holds them."""
    asked = type(request)()
    asked.CopyFrom(request)
    while True:
        answer = await call(asked)
        for item in getattr(answer, items):
            yield item
        if not answer.next_page_token:
            return
        asked.page_token = answer.next_page_token  # type: ignore[attr-defined]


def _service_config(services: tuple[ServiceDescriptor, ...]) -> str:
    """Retries of UNAVAILABLE, and only for RPCs that change nothing."""
    reads = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.GetOptions().Extensions[access_pb2.access].effect == access_pb2.EFFECT_READ
        and not method.server_streaming
    ]
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": reads, "retryPolicy": policy}]})


__all__ = ["PLATFORM_ORGANIZATION_ID", "Certificate", "MeshClient", "pages"]
