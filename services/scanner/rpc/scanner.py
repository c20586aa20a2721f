"""Connections, scans and findings: decode, call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from recoup.scanner.v1 import scanner_service_pb2 as pb
from recoup.scanner.v1 import scanner_service_pb2_grpc
from services._mesh.context import current
from services._mesh.jobs import Planner
from services._mesh.kms.opening import Sealer
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import moment
from services._mesh.uow import Store, UnitOfWork
from services.scanner import wire
from services.scanner.clients.peers import Exceptions
from services.scanner.usecases import connections, findings, scanning
from services.scanner.usecases.connecting import KeyRules

Context = Any


class ScannerRpc(scanner_service_pb2_grpc.ScannerServiceServicer):
    """recoup.scanner.v1.ScannerService."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        sealer: Sealer,
        pages: PageTokens,
        exceptions: Exceptions,
        rules: KeyRules = KeyRules(),
    ) -> None:
        self._store, self._planner, self._sealer, self._pages = store, planner, sealer, pages
        self._exceptions, self._rules = exceptions, rules

    async def CreateConnection(
        self, request: pb.CreateConnectionRequest, context: Context
    ) -> pb.CreateConnectionResponse:
        earlier = await self._store.replayed(request, pb.CreateConnectionResponse)
        if earlier is not None:
            return earlier
        # Sealed before the transaction, like every call to a peer.
        given = await connections.seal_connection(
            self._store, self._sealer, wire.new_connection(request), self._rules.issuer
        )

        async def decide(work: UnitOfWork) -> pb.CreateConnectionResponse:
            made = await connections.create_connection(work, self._planner, self._rules, given)
            return pb.CreateConnectionResponse(connection=wire.connection(made))

        return await self._store.write(request, pb.CreateConnectionResponse, decide)

    async def VerifyConnection(
        self, request: pb.VerifyConnectionRequest, context: Context
    ) -> pb.VerifyConnectionResponse:
        async def decide(work: UnitOfWork) -> pb.VerifyConnectionResponse:
            found = await connections.verify_connection(work, self._planner, UUID(request.connection_id))
            return pb.VerifyConnectionResponse(connection=wire.connection(found))

        return await self._store.write(request, pb.VerifyConnectionResponse, decide)

    async def DisableConnection(
        self, request: pb.DisableConnectionRequest, context: Context
    ) -> pb.DisableConnectionResponse:
        async def decide(work: UnitOfWork) -> pb.DisableConnectionResponse:
            found = await connections.disable_connection(work, self._planner, UUID(request.connection_id), request.etag)
            return pb.DisableConnectionResponse(connection=wire.connection(found))

        return await self._store.write(request, pb.DisableConnectionResponse, decide)

    async def GetConnection(self, request: pb.GetConnectionRequest, context: Context) -> pb.GetConnectionResponse:
        found = await connections.get_connection(self._store, UUID(request.connection_id))
        return pb.GetConnectionResponse(connection=wire.connection(found))

    async def ListConnections(self, request: pb.ListConnectionsRequest, context: Context) -> pb.ListConnectionsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await connections.list_connections(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].connection_id)) if more else ""
        return pb.ListConnectionsResponse(
            connections=[wire.connection(each) for each in found[:limit]], next_page_token=token
        )

    async def StartScan(self, request: pb.StartScanRequest, context: Context) -> pb.StartScanResponse:
        async def decide(work: UnitOfWork) -> pb.StartScanResponse:
            row = await scanning.start_scan(work, self._planner, UUID(request.connection_id))
            return pb.StartScanResponse(scan=wire.scan(row, (), with_coverage=False))

        return await self._store.write(request, pb.StartScanResponse, decide)

    async def GetScan(self, request: pb.GetScanRequest, context: Context) -> pb.GetScanResponse:
        row, units = await scanning.get_scan(self._store, UUID(request.scan_id))
        return pb.GetScanResponse(scan=wire.scan(row, units, with_coverage=True))

    async def WatchScan(self, request: pb.WatchScanRequest, context: Context) -> AsyncIterator[pb.WatchScanResponse]:
        async for row, units in scanning.watch_scan(self._store, UUID(request.scan_id)):
            yield pb.WatchScanResponse(scan=wire.scan(row, units, with_coverage=True))

    async def ListScans(self, request: pb.ListScansRequest, context: Context) -> pb.ListScansResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        connection_id = UUID(request.connection_id) if request.connection_id else None
        found = await scanning.list_scans(self._store, UUID(position) if position else None, limit, connection_id)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1][0].scan_id)) if more else ""
        scans = [wire.scan(row, units, with_coverage=False) for row, units in found[:limit]]
        return pb.ListScansResponse(scans=scans, next_page_token=token)

    async def GetFinding(self, request: pb.GetFindingRequest, context: Context) -> pb.GetFindingResponse:
        row, in_force = await findings.get_finding(self._store, self._exceptions, UUID(request.finding_id))
        return pb.GetFindingResponse(finding=wire.finding(row, in_force))

    async def ListFindings(self, request: pb.ListFindingsRequest, context: Context) -> pb.ListFindingsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        narrowed = wire.finding_filter(request)
        rows, in_force = await findings.list_findings(self._store, self._exceptions, _after(position), limit, narrowed)
        token = ""
        if len(rows) > limit:
            last = rows[limit - 1]
            amount = "-1" if last.saving is None else f"{last.saving:f}"
            token = self._pages.encode(organization_id, request, f"{amount} {last.finding_id}")
        return pb.ListFindingsResponse(
            findings=[wire.finding(row, in_force) for row in rows[:limit]], next_page_token=token
        )

    async def SuppressFinding(self, request: pb.SuppressFindingRequest, context: Context) -> pb.SuppressFindingResponse:
        earlier = await self._store.replayed(request, pb.SuppressFindingResponse)
        if earlier is not None:
            return earlier
        finding_id = UUID(request.finding_id)
        # Made before the transaction, like every call to a peer. Alone it hides nothing.
        exception_id, until = await findings.except_finding(self._store, self._exceptions, wire.suppression(request))

        async def decide(work: UnitOfWork) -> pb.SuppressFindingResponse:
            row = await findings.suppress_finding(work, finding_id, exception_id, until, request.reason)
            return pb.SuppressFindingResponse(finding=wire.finding(row, {exception_id: until}))

        return await self._store.write(request, pb.SuppressFindingResponse, decide)

    async def FetchSealedCredential(
        self, request: pb.FetchSealedCredentialRequest, context: Context
    ) -> pb.FetchSealedCredentialResponse:
        sealed = await connections.fetch_sealed_credential(self._store, UUID(request.credential_id))
        return pb.FetchSealedCredentialResponse(sealed_credential=sealed)

    async def ListEvidenceScans(
        self, request: pb.ListEvidenceScansRequest, context: Context
    ) -> pb.ListEvidenceScansResponse:
        after = UUID(request.after_scan_id) if request.after_scan_id else None
        found = await scanning.list_evidence_scans(
            self._store, moment(request.begins_at), moment(request.ends_at), after
        )
        return pb.ListEvidenceScansResponse(scans=[wire.scan(row, units, with_coverage=True) for row, units in found])

    async def ListEvidenceConnections(
        self, request: pb.ListEvidenceConnectionsRequest, context: Context
    ) -> pb.ListEvidenceConnectionsResponse:
        after = UUID(request.after_connection_id) if request.after_connection_id else None
        found = await connections.list_evidence_connections(self._store, after)
        return pb.ListEvidenceConnectionsResponse(connections=[wire.connection(each) for each in found])


def _after(position: str) -> tuple[Decimal, UUID] | None:
    if not position:
        return None
    amount, _, finding_id = position.partition(" ")
    return Decimal(amount), UUID(finding_id)
