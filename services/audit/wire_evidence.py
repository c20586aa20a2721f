"""Between the messages of evidence and their model."""

from __future__ import annotations

from uuid import UUID

from recoup.audit.v1 import evidence_service_pb2 as pb
from services._mesh.times import stamp
from services.audit import wire
from services.audit.bundling import Beginning, ChainEvent, Sealed
from services.audit.model.evidence.documents import Counts, Head, Scope
from services.audit.model.evidence.export import Export


def scope(message: pb.EvidenceScope) -> Scope:
    """What is to be disclosed."""
    return Scope(tuple(UUID(each) for each in message.action_ids), tuple(message.target_prefixes))


def export(made: Export) -> pb.EvidenceExport:
    """An export as it is read."""
    return pb.EvidenceExport(
        export_id=str(made.export_id),
        organization_id=str(made.organization_id),
        state=pb.EvidenceState.Value(f"EVIDENCE_STATE_{made.state.value}"),
        scope=pb.EvidenceScope(
            action_ids=[str(each) for each in made.scope.actions], target_prefixes=made.scope.targets
        ),
        begins_at=stamp(made.begins_at),
        ends_at=stamp(made.ends_at),
        requested_by=made.requested_by,
        created_at=stamp(made.created_at),
        expires_at=stamp(made.expires_at),
        finished_at=stamp(made.finished_at),
        phase=made.phase,
        done=made.done,
        total=made.total,
        size_bytes=made.size_bytes,
        sha256=made.sha256,
        problem=made.problem,
    )


def beginning(found: Beginning, log: str, key_manifest: str) -> pb.BeginEvidenceResponse:
    """The heads of a bundle."""
    shards = [
        pb.EvidenceShard(
            shard=part.checkpoint.shard,
            checkpoint=wire.checkpoint(part.checkpoint),
            opening=None if part.opening is None else wire.proven(part.opening),
        )
        for part in found.shards
    ]
    answer = pb.BeginEvidenceResponse(log=log, shards=shards, chain_seq=found.chain_seq, key_manifest=key_manifest)
    if found.head is not None:
        published, publication = found.head
        answer.head_entry, answer.head_position = published.entry, published.position
        answer.head_path.extend(published.path)
        answer.head_event.CopyFrom(wire.proven(publication))
        answer.head_shard = publication.event.shard
    return answer


def chain_event(found: ChainEvent) -> pb.EvidenceEvent:
    """A leaf, with what is disclosed of it."""
    event = found.event
    return pb.EvidenceEvent(
        shard=found.shard,
        index=found.index,
        leaf=found.leaf,
        payload=b"" if event is None else event.payload,
        salt=b"" if event is None else event.salt,
        erased=found.erased,
    )


def heads(request: pb.SealEvidenceRequest) -> list[Head]:
    """The heads that a worker says its bundle has."""
    return [Head(each.shard, each.size) for each in request.heads]


def counts(request: pb.SealEvidenceRequest) -> Counts:
    """How much a worker says its bundle holds."""
    return Counts(
        events=request.chain_seq, disclosed=request.disclosed, erased=request.erased, receipts=request.receipts
    )


def sealed(found: Sealed, key_manifest: str) -> pb.ReadEvidenceSealResponse:
    """A bundle's seal."""
    return pb.ReadEvidenceSealResponse(
        event=wire.proven(found.proven),
        checkpoint=wire.checkpoint(found.checkpoint),
        consistency=list(found.consistency),
        key_manifest=key_manifest,
    )
