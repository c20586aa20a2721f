"""The typed client for internal teams: gRPC over mTLS under the team's own certificate, with passports.

    async with MeshClient(addresses, certificate, session_token, organization_id) as mesh:
        request = ListFindingsRequest(organization_id=organization_id)
        async for finding in pages(mesh.scanner.ListFindings, request).items(lambda page: page.findings):
            ...
        scan = await mesh.scan(scan_id)

Every call has a deadline. Within it, reads and changes with a `request_id` are repeated when a part was away; without
an answer in the end, you may repeat a change yourself, with the same `request_id`. `recoup_client.blocking` has the
same for programs without an event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar, cast

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
from recoup_client.attempts import Attempts
from recoup_client.calling import (
    CALL_SECONDS,
    PLATFORM_ORGANIZATION_ID,
    STREAM_SECONDS,
    Certificate,
    Passports,
    Token,
    action_is_over,
    channel_options,
    export_is_over,
    named,
    process_of,
    require_addresses,
    scan_is_over,
)
from recoup_client.errors import RecoupError, typed
from recoup_client.operations import Operation
from recoup_client.paging import pages
from recoup_client.renewing import CertificateWatch, KeptChannel

S = TypeVar("S")


class MeshClient:
    """Calls the services of one installation for one organization with one session, or an API token.

    `addresses` maps a service to host:port, identity among them. Calls, and what is read of a stream, raise
    `recoup_client.errors.RecoupError`. For a session that is renewed while the client lives, give what reads it.
    The certificate is renewed by putting other files in the place of its files.
    """

    def __init__(
        self, addresses: Mapping[str, str], certificate: Certificate, session_token: Token, organization_id: str
    ) -> None:
        """Raises ValueError where `addresses` can't be used, OSError where a file of the certificate can't be read."""
        require_addresses(addresses)
        self._addresses, self._certificate = addresses, certificate
        self._session, self._organization_id = session_token, organization_id
        self._watch = CertificateWatch(certificate)
        self._opened = self._open()
        self._closing: set[asyncio.Task[None]] = set()

    def stub(self, kind: Callable[[grpc.aio.Channel], S]) -> S:
        """Calls to any service, by its generated stub: `mesh.stub(SsoServiceStub)`. Raises ValueError."""
        kept = KeptChannel(self._current, process_of(kind, self._addresses))
        return kind(cast(grpc.aio.Channel, kept))

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
        return await self._current().passport(service, fresh=fresh)

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

    def _current(self) -> _Opened:
        """The channels of the certificate that is there now. Calls over those before have as long as a stream has."""
        if self._watch.has_changed():
            old, self._opened = self._opened, self._open()
            task = asyncio.get_running_loop().create_task(old.close(STREAM_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self._opened

    def _open(self) -> _Opened:
        passports = Passports(self._session, self._organization_id, {})
        return _Opened(self._addresses, self._certificate.credentials(), passports)

    async def __aenter__(self) -> MeshClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._opened.close(None)


class _Opened:
    """Channels under one certificate, and the passports that are bound to it."""

    def __init__(
        self, addresses: Mapping[str, str], credentials: grpc.ChannelCredentials, passports: Passports
    ) -> None:
        self._addresses, self._credentials, self.passports = addresses, credentials, passports
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._bare = self._to("identity", [])
        self._issuer = identity_service_pb2_grpc.IdentityServiceStub(self._bare)

    def channel(self, process: str) -> grpc.aio.Channel:
        """The channel to a process, with passports."""
        if process not in self._channels:
            self._channels[process] = self._to(process, [_Authorized(self, process), _AuthorizedStreams(self, process)])
        return self._channels[process]

    async def passport(self, service: str, *, fresh: bool = False, request_id: str = "") -> str:
        """A passport for a service. `request_id` names the call that it is for."""
        known = None if fresh else self.passports.find(service, time.time())
        if known is not None:
            return known
        try:
            answer = await self._issuer.IssuePassport(
                self.passports.request(service), timeout=CALL_SECONDS, metadata=named(request_id)
            )
        except grpc.aio.AioRpcError as error:
            raise typed(error, request_id) from None
        return self.passports.keep(service, answer)

    async def close(self, grace: float | None) -> None:
        """Let running calls end within `grace` seconds."""
        await asyncio.gather(*(channel.close(grace) for channel in (self._bare, *self._channels.values())))

    def _to(self, service: str, interceptors: list[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            self._addresses[service], self._credentials, options=channel_options(service), interceptors=interceptors
        )


class _Called:
    """What a call gets under this client: a passport, and the seconds that are left."""

    def __init__(self, opened: _Opened, service: str) -> None:
        self._opened, self._service = opened, service

    async def _details(self, given: Any, attempts: Attempts) -> grpc.aio.ClientCallDetails:
        request_id = attempts.request_id
        passport = await self._opened.passport(self._service, fresh=attempts.is_fresh, request_id=request_id)
        authorized = ("authorization", f"Bearer {passport}")
        metadata = grpc.aio.Metadata(*(given.metadata or ()), *named(request_id), authorized)
        return grpc.aio.ClientCallDetails(
            given.method, attempts.left, metadata, given.credentials, given.wait_for_ready
        )


class _Authorized(_Called, grpc.aio.UnaryUnaryClientInterceptor):
    """Repeats a call that may be, under a new passport where the old one is void. Types errors."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        attempts = Attempts(request, client_call_details.timeout or CALL_SECONDS)
        while True:
            try:
                return await self._answer(continuation, client_call_details, request, attempts)
            except RecoupError as error:
                pause = attempts.pause(error)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _answer(self, continuation: Any, details: Any, request: Any, attempts: Attempts) -> Any:
        try:
            return await (await continuation(await self._details(details, attempts), request))
        except grpc.aio.AioRpcError as error:
            raise typed(error, attempts.request_id) from None


class _AuthorizedStreams(_Called, grpc.aio.UnaryStreamClientInterceptor):
    """The same for streams, of which one that has begun isn't opened again: whoever reads it knows what they have."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        attempts = Attempts(request, client_call_details.timeout or STREAM_SECONDS, is_stream=True)
        call = await continuation(await self._details(client_call_details, attempts), request)
        return self._answers(call, continuation, client_call_details, request, attempts)

    async def _answers(
        self, call: Any, continuation: Any, details: Any, request: Any, attempts: Attempts
    ) -> AsyncIterator[Any]:
        has_begun = False
        while True:
            try:
                async for answer in call:
                    has_begun = True
                    yield answer
                return
            except grpc.aio.AioRpcError as error:
                found = typed(error, attempts.request_id)
                pause = None if has_begun else attempts.pause(found)
                if pause is None:
                    raise found from None
            finally:
                call.cancel()
            await asyncio.sleep(pause)
            call = await continuation(await self._details(details, attempts), request)


__all__ = ["PLATFORM_ORGANIZATION_ID", "Certificate", "MeshClient", "pages"]
