"""The RPCs of evidence: decode, call, encode."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from recoup.audit.v1 import evidence_service_pb2 as pb
from recoup.audit.v1 import evidence_service_pb2_grpc
from services._mesh.context import current
from services._mesh.errors import invalid_field
from services._mesh.jobs import Planner
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import moment
from services._mesh.uow import Store, UnitOfWork
from services.audit import bundling, exports, wire, wire_evidence
from services.audit.checkpointer import Checkpointer
from services.audit.cosigners import Cosigners
from services.audit.evidence_files import EvidenceFolder
from services.audit.evidence_key import EvidenceKey
from services.audit.opener import Opener
from services.audit.proving import Quorum, prove_events, require_payloads

Context = Any
Manifest = Callable[[], Awaitable[str]]


class EvidenceRpc(evidence_service_pb2_grpc.EvidenceServiceServicer):
    """recoup.audit.v1.EvidenceService."""

    def __init__(
        self,
        store: Store,
        opener: Opener,
        planner: Planner,
        pages: PageTokens,
        checkpointer: Checkpointer,
        manifest: Manifest,
        key: EvidenceKey,
        folder: EvidenceFolder,
        log: str,
        cosigners: Cosigners | None = None,
    ) -> None:
        self._store, self._opener, self._planner = store, opener, planner
        self._pages, self._checkpointer = pages, checkpointer
        self._manifest, self._key, self._folder, self._log = manifest, key, folder, log
        self._cosigners = cosigners

    async def StartEvidenceExport(
        self, request: pb.StartEvidenceExportRequest, context: Context
    ) -> pb.StartEvidenceExportResponse:
        async def decide(work: UnitOfWork) -> pb.StartEvidenceExportResponse:
            made = await exports.start_evidence_export(
                work,
                self._planner,
                wire_evidence.scope(request.scope),
                moment(request.begins_at),
                moment(request.ends_at),
            )
            return pb.StartEvidenceExportResponse(export=wire_evidence.export(made))

        return await self._store.write(request, pb.StartEvidenceExportResponse, decide)

    async def GetEvidenceExport(
        self, request: pb.GetEvidenceExportRequest, context: Context
    ) -> pb.GetEvidenceExportResponse:
        found = await exports.get_evidence_export(self._store, UUID(request.export_id))
        return pb.GetEvidenceExportResponse(export=wire_evidence.export(found))

    async def ListEvidenceExports(
        self, request: pb.ListEvidenceExportsRequest, context: Context
    ) -> pb.ListEvidenceExportsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await exports.list_evidence_exports(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].export_id)) if more else ""
        listed = [wire_evidence.export(each) for each in found[:limit]]
        return pb.ListEvidenceExportsResponse(exports=listed, next_page_token=token)

    async def DownloadEvidence(
        self, request: pb.DownloadEvidenceRequest, context: Context
    ) -> pb.DownloadEvidenceResponse:
        found = await exports.get_downloadable(self._store, UUID(request.export_id))
        piece = await self._folder.read(found.organization_id, found.export_id, request.offset)
        return pb.DownloadEvidenceResponse(body=HttpBody(content_type="application/octet-stream", data=piece))

    async def BeginEvidence(self, request: pb.BeginEvidenceRequest, context: Context) -> pb.BeginEvidenceResponse:
        found = await bundling.begin_evidence(self._store, self._opener, self._checkpointer)
        return wire_evidence.beginning(found, self._log, await self._manifest())

    async def ReadEvidenceEvents(
        self, request: pb.ReadEvidenceEventsRequest, context: Context
    ) -> pb.ReadEvidenceEventsResponse:
        found = await bundling.read_evidence_events(self._store, self._opener, request.after_seq, request.through_seq)
        return pb.ReadEvidenceEventsResponse(events=[wire_evidence.chain_event(each) for each in found])

    async def HashEvidenceRanges(
        self, request: pb.HashEvidenceRangesRequest, context: Context
    ) -> pb.HashEvidenceRangesResponse:
        if len(request.begins) != len(request.ends):
            raise invalid_field("ends", "must be as many as begins")
        ranges = list(zip(request.begins, request.ends, strict=True))
        hashes = await bundling.hash_evidence_ranges(self._store, request.shard, ranges)
        return pb.HashEvidenceRangesResponse(hashes=hashes)

    async def ProveEvidenceEvents(
        self, request: pb.ProveEvidenceEventsRequest, context: Context
    ) -> pb.ProveEvidenceEventsResponse:
        await bundling.granted(self._store)
        ids = [UUID(event_id) for event_id in request.event_ids]
        manifest = await self._manifest()
        # They are a receipt's, which is final only when it is cosigned.
        quorum = Quorum.of(manifest, self._cosigners) if self._cosigners else None
        found, head = await prove_events(self._store, self._opener, self._checkpointer, ids, quorum=quorum)
        require_payloads([each.event for each in found])
        return pb.ProveEvidenceEventsResponse(
            events=[wire.proven(each) for each in found],
            checkpoint=wire.checkpoint(head),
            key_manifest=manifest,
        )

    async def SealEvidence(self, request: pb.SealEvidenceRequest, context: Context) -> pb.SealEvidenceResponse:
        digests = {file.name: file.sha256.hex() for file in request.files}
        if len(digests) != len(request.files):
            raise invalid_field("files", "must name each file once")

        async def decide(work: UnitOfWork) -> pb.SealEvidenceResponse:
            manifest = await bundling.seal_evidence(
                work,
                self._key,
                self._log,
                digests,
                wire_evidence.heads(request),
                (request.chain_seq, request.chain_leaf),
                wire_evidence.counts(request),
            )
            return pb.SealEvidenceResponse(manifest=manifest)

        return await self._store.write(request, pb.SealEvidenceResponse, decide)

    async def ReadEvidenceSeal(
        self, request: pb.ReadEvidenceSealRequest, context: Context
    ) -> pb.ReadEvidenceSealResponse:
        found = await bundling.read_evidence_seal(
            self._store, self._opener, self._checkpointer, request.shard, request.size
        )
        return wire_evidence.sealed(found, await self._manifest())
