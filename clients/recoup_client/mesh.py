"""The typed client for internal teams: gRPC over mTLS under the team's own certificate, with passports.

    async with MeshClient(addresses, certificate, session_token, organization_id) as mesh:
        request = ListFindingsRequest(organization_id=organization_id)
        async for finding in pages(mesh.scanner.ListFindings, request).items(lambda page: page.findings):
            ...
        scan = await mesh.scan(scan_id)

Every call has a deadline. Reads are repeated when a part was away; changes are repeated by you, with the same
`request_id`. `recoup_client.blocking` has the same for programs without an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio

from recoup.actions.v1 import actions_pb2, actions_service_pb2, actions_service_pb2_grpc
from recoup.audit.v1 import (
    audit_service_pb2_grpc,
    erasure_service_pb2_grpc,
    evidence_service_pb2,
    evidence_service_pb2_grpc,
)
from recoup.identity.v1 import identity_service_pb2_grpc, role_service_pb2_grpc, token_service_pb2_grpc
from recoup.pricing.v1 import bill_service_pb2_grpc, pricing_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup_client.calling import (
    CALL_SECONDS,
    PLATFORM_ORGANIZATION_ID,
    STALE,
    Certificate,
    Passports,
    action_is_over,
    channel_options,
    export_is_over,
    process_of,
    require_addresses,
    scan_is_over,
)
from recoup_client.errors import SignInNeeded, typed
from recoup_client.operations import Operation
from recoup_client.paging import pages

S = TypeVar("S")


class MeshClient:
    """Calls the services of one installation for one organization with one session, or an API token.

    `addresses` maps a service to host:port, identity among them. Calls raise `recoup_client.errors.RecoupError`.
    """

    def __init__(
        self, addresses: Mapping[str, str], certificate: Certificate, session_token: str, organization_id: str
    ) -> None:
        """Raises ValueError where `addresses` can't be used, OSError where a file of the certificate can't be read."""
        require_addresses(addresses)
        self._addresses, self._certificate = addresses, certificate
        self._organization_id = organization_id
        self._passports = Passports(session_token, organization_id, {})
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._bare = self._open("identity", [])
        self._issuer = identity_service_pb2_grpc.IdentityServiceStub(self._bare)

    def stub(self, kind: Callable[[grpc.aio.Channel], S]) -> S:
        """Calls to any service, by its generated stub: `mesh.stub(SsoServiceStub)`. Raises ValueError."""
        process = process_of(kind, self._addresses)
        if process not in self._channels:
            self._channels[process] = self._open(process, [_Authorized(self, process)])
        return kind(self._channels[process])

    @property
    def identity(self) -> identity_service_pb2_grpc.IdentityServiceAsyncStub:
        """Organizations and members."""
        return self.stub(identity_service_pb2_grpc.IdentityServiceStub)

    @property
    def roles(self) -> role_service_pb2_grpc.RoleServiceAsyncStub:
        """Custom roles."""
        return self.stub(role_service_pb2_grpc.RoleServiceStub)

    @property
    def tokens(self) -> token_service_pb2_grpc.TokenServiceAsyncStub:
        """Service accounts and API tokens."""
        return self.stub(token_service_pb2_grpc.TokenServiceStub)

    @property
    def scanner(self) -> scanner_service_pb2_grpc.ScannerServiceAsyncStub:
        """Connections, scans and findings."""
        return self.stub(scanner_service_pb2_grpc.ScannerServiceStub)

    @property
    def pricing(self) -> pricing_service_pb2_grpc.PricingServiceAsyncStub:
        """Prices, costs and baselines."""
        return self.stub(pricing_service_pb2_grpc.PricingServiceStub)

    @property
    def bills(self) -> bill_service_pb2_grpc.BillServiceAsyncStub:
        """Bills and their imports."""
        return self.stub(bill_service_pb2_grpc.BillServiceStub)

    @property
    def actions(self) -> actions_service_pb2_grpc.ActionsServiceAsyncStub:
        """Actions, their approvals and receipts."""
        return self.stub(actions_service_pb2_grpc.ActionsServiceStub)

    @property
    def audit(self) -> audit_service_pb2_grpc.AuditServiceAsyncStub:
        """Events and proofs."""
        return self.stub(audit_service_pb2_grpc.AuditServiceStub)

    @property
    def erasures(self) -> erasure_service_pb2_grpc.ErasureServiceAsyncStub:
        """Erasures and legal holds."""
        return self.stub(erasure_service_pb2_grpc.ErasureServiceStub)

    @property
    def evidence(self) -> evidence_service_pb2_grpc.EvidenceServiceAsyncStub:
        """Bundles of evidence."""
        return self.stub(evidence_service_pb2_grpc.EvidenceServiceStub)

    async def passport(self, service: str, *, fresh: bool = False) -> str:
        """A passport for a service, kept until shortly before it ends."""
        known = None if fresh else self._passports.find(service, time.time())
        if known is not None:
            return known
        try:
            answer = await self._issuer.IssuePassport(self._passports.request(service), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise typed(error) from None
        return self._passports.keep(service, answer)

    def scan(self, scan_id: str) -> Operation[scanner_pb2.Scan]:
        """A scan, until it is over."""
        request = scanner_service_pb2.GetScanRequest(organization_id=self._organization_id, scan_id=scan_id)

        async def read() -> scanner_pb2.Scan:
            return (await self.scanner.GetScan(request)).scan

        return Operation(read, scan_is_over)

    def action(self, action_id: str) -> Operation[actions_pb2.Action]:
        """An action, until it is executed or won't be."""
        request = actions_service_pb2.GetActionRequest(organization_id=self._organization_id, action_id=action_id)

        async def read() -> actions_pb2.Action:
            return (await self.actions.GetAction(request)).action

        return Operation(read, action_is_over)

    def evidence_export(self, export_id: str) -> Operation[evidence_service_pb2.EvidenceExport]:
        """A bundle of evidence, until it is there or can't be made."""
        request = evidence_service_pb2.GetEvidenceExportRequest(
            organization_id=self._organization_id, export_id=export_id
        )

        async def read() -> evidence_service_pb2.EvidenceExport:
            return (await self.evidence.GetEvidenceExport(request)).export

        return Operation(read, export_is_over)

    def _open(self, service: str, interceptors: list[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            self._addresses[service],
            self._certificate.credentials(),
            options=channel_options(service),
            interceptors=interceptors,
        )

    async def __aenter__(self) -> MeshClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in (self._bare, *self._channels.values()):
            await channel.close()


class _Authorized(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the passport and a deadline, asks for a new passport once when the old one is void, types errors."""

    def __init__(self, client: MeshClient, service: str) -> None:
        self._client, self._service = client, service

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        try:
            return await self._call(continuation, client_call_details, request, fresh=False)
        except SignInNeeded as error:
            if error.reason not in STALE:
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


__all__ = ["PLATFORM_ORGANIZATION_ID", "Certificate", "MeshClient", "pages"]
