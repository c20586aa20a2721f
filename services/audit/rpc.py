"""The log's RPCs: decode, call, encode."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from recoup.audit.v1 import audit_service_pb2 as pb
from recoup.audit.v1 import audit_service_pb2_grpc
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import moment
from services._mesh.uow import Store
from services.audit import proving, usecases, wire
from services.audit.checkpointer import Checkpointer
from services.audit.cosigners import Cosigners
from services.audit.erased import ErasedEvents
from services.audit.model.actors import ActorHash
from services.audit.model.alarms import Note, only_log
from services.audit.model.visibility import view_of
from services.audit.opener import Opener
from services.audit.sequencer import Sequencer

Context = Any
Manifest = Callable[[], Awaitable[str]]


class AuditRpc(audit_service_pb2_grpc.AuditServiceServicer):
    """recoup.audit.v1.AuditService."""

    def __init__(
        self,
        reader: Store,
        opener: Opener,
        sequencer: Sequencer,
        checkpointer: Checkpointer,
        pages: PageTokens,
        manifest: Manifest,
        hashed: ActorHash,
        note: Note = only_log,
        cosigners: Cosigners | None = None,
        erased: ErasedEvents | None = None,
    ) -> None:
        self._reader, self._opener = reader, opener
        self._sequencer, self._checkpointer = sequencer, checkpointer
        self._pages, self._manifest, self._hashed, self._note = pages, manifest, hashed, note
        self._cosigners, self._erased = cosigners, erased

    async def AppendEvents(self, request: pb.AppendEventsRequest, context: Context) -> pb.AppendEventsResponse:
        events = [wire.produced(event) for event in request.events]
        places = await usecases.append_events(self._sequencer, current().peer, events, self._note)
        return pb.AppendEventsResponse(indexes=places)

    async def SummarizeProducer(
        self, request: pb.SummarizeProducerRequest, context: Context
    ) -> pb.SummarizeProducerResponse:
        ids, digest, before = await usecases.summarize_producer(
            self._reader,
            UUID(request.organization_id),
            current().peer,
            request.from_counter,
            request.to_counter,
        )
        named = [str(event_id) for event_id in ids] if request.include_event_ids else []
        return pb.SummarizeProducerResponse(count=len(ids), digest=digest, event_ids=named, detached_before=before)

    async def FindErasedEvents(
        self, request: pb.FindErasedEventsRequest, context: Context
    ) -> pb.FindErasedEventsResponse:
        assert self._erased is not None
        since, after = moment(request.erased_after), wire.erased_after(request)
        return wire.erased_events(await self._erased.find(current().peer, since, after))

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        organization_id, limit = current().organization(), size_of(request)
        after, chosen = wire.position(self._pages.decode(organization_id, request)), wire.event_filter(request)
        rows = await usecases.list_events(self._reader, self._opener, chosen, self._hashed, _view(), after, limit)
        more = len(rows) > limit
        token = self._pages.encode(organization_id, request, wire.token_of(rows[limit - 1])) if more else ""
        return pb.ListEventsResponse(events=[wire.event(row) for row in rows[:limit]], next_page_token=token)

    async def GetEvent(self, request: pb.GetEventRequest, context: Context) -> pb.GetEventResponse:
        found = await usecases.get_event(self._reader, self._opener, UUID(request.event_id), _view())
        return pb.GetEventResponse(event=wire.event(found))

    async def GetEventProof(self, request: pb.GetEventProofRequest, context: Context) -> pb.GetEventProofResponse:
        ids, view = [UUID(request.event_id)], _view()
        (found,), head = await proving.prove_events(self._reader, self._opener, self._checkpointer, ids, view=view)
        return pb.GetEventProofResponse(event=wire.proven(found), checkpoint=wire.checkpoint(head))

    async def ProveEvents(self, request: pb.ProveEventsRequest, context: Context) -> pb.ProveEventsResponse:
        ids = [UUID(event_id) for event_id in request.event_ids]
        manifest = await self._manifest()
        quorum = None
        if request.cosigned:
            assert self._cosigners is not None
            quorum = proving.Quorum.of(manifest, self._cosigners)
        found, head = await proving.prove_events(self._reader, self._opener, self._checkpointer, ids, quorum=quorum)
        proving.require_payloads([each.event for each in found])
        return pb.ProveEventsResponse(
            events=[wire.proven(each) for each in found],
            checkpoint=wire.checkpoint(head),
            key_manifest=manifest,
        )

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Context) -> pb.GetCheckpointResponse:
        found = await usecases.get_checkpoint(self._reader, wire.shard(request))
        return pb.GetCheckpointResponse(checkpoint=wire.checkpoint(found), key_manifest=await self._manifest())

    async def GetOrganizationHead(
        self, request: pb.GetOrganizationHeadRequest, context: Context
    ) -> pb.GetOrganizationHeadResponse:
        return wire.organization_head(
            *await proving.get_organization_head(self._reader, self._opener, self._checkpointer)
        )

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.GetConsistencyProofResponse:
        proof = await usecases.get_consistency_proof(
            self._reader, request.from_size, request.to_size, wire.shard(request)
        )
        return pb.GetConsistencyProofResponse(proof=proof)

    async def GetLogCheckpoint(
        self, request: pb.GetLogCheckpointRequest, context: Context
    ) -> pb.GetLogCheckpointResponse:
        found = await usecases.get_log_checkpoint(self._reader, wire.shard(request))
        return pb.GetLogCheckpointResponse(body=wire.text_body(found.note))

    async def GetLogTile(self, request: pb.GetLogTileRequest, context: Context) -> pb.GetLogTileResponse:
        octets = await usecases.get_log_tile(self._reader, wire.shard(request), request.tile)
        return pb.GetLogTileResponse(body=wire.octets_body(octets))


def _view() -> tuple[str, ...]:
    """The events that the caller's passport lets it see."""
    passport = current().passport
    return () if passport is None else view_of(passport.permissions)
