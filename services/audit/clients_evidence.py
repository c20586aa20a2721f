"""What evidence asks of peers: the API of identity; its worker of the log, of actions and of scanner under a grant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import grpc.aio

from recoup.actions.v1 import actions_service_pb2, actions_service_pb2_grpc
from recoup.audit.v1 import audit_pb2, evidence_service_pb2, evidence_service_pb2_grpc
from recoup.identity.v1 import identity_pb2, identity_service_pb2, identity_service_pb2_grpc
from recoup.pricing.v1 import pricing_pb2
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.grants import metadata
from services._mesh.times import moment, stamp
from services.audit.model.evidence.documents import Head, ProvenLeaf
from services.audit.model.evidence.documents import moment as spelled
from services.audit.model.evidence.export import Export
from services.audit.model.evidence.gathered import Beginning, ChainLeaf, Grant, ReceiptLine, Seal, ShardHead, Totals

CALL_SECONDS = 30.0


async def _call(peer: str, method: Any, request: Any, grant: Grant | None) -> Any:
    authority = metadata(grant()) if grant is not None else ()
    try:
        return await method(request, metadata=authority, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from None


class Identity:
    """The identity service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)

    async def is_active(self, organization_id: UUID) -> bool:
        """Whether an organization may have work done. Raises Problem."""
        request = identity_service_pb2.CheckOrganizationRequest(organization_id=str(organization_id))
        answer = await _call("identity", self._stub.CheckOrganization, request, None)
        return bool(answer.state == identity_pb2.ORGANIZATION_STATE_ACTIVE)


class Log:
    """The log's own API, as its worker calls it under an export's grant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = evidence_service_pb2_grpc.EvidenceServiceStub(channel)

    async def begin(self, grant: Grant, export: Export) -> Beginning:
        """What the bundle goes up to. Raises Problem (CHECKPOINT_PENDING among others)."""
        request = evidence_service_pb2.BeginEvidenceRequest(organization_id=str(export.organization_id))
        answer = await _call("audit", self._stub.BeginEvidence, request, grant)
        shards = tuple(
            ShardHead(
                part.shard,
                part.checkpoint.size,
                bytes(part.checkpoint.root),
                part.checkpoint.note,
                _leaf(part.opening, part.checkpoint.note) if part.HasField("opening") else None,
            )
            for part in answer.shards
        )
        head = None
        if answer.head_entry:
            note = next(each.note for each in shards if each.shard == answer.head_shard)
            head = {
                "entry": answer.head_entry.decode(),
                "path": list(answer.head_path),
                "position": answer.head_position,
                "shard": answer.head_shard,
                "event": _leaf(answer.head_event, note),
            }
        return Beginning(answer.log, shards, answer.chain_seq, head, answer.key_manifest)

    async def events(self, grant: Grant, export: Export, after: int, through: int) -> list[ChainLeaf]:
        """A page of the organization's chain. Raises Problem."""
        request = evidence_service_pb2.ReadEvidenceEventsRequest(
            organization_id=str(export.organization_id), after_seq=after, through_seq=through
        )
        answer = await _call("audit", self._stub.ReadEvidenceEvents, request, grant)
        return [
            ChainLeaf(e.shard, e.index, e.leaf, (e.payload, e.salt) if e.payload else None, e.erased)
            for e in answer.events
        ]

    async def hashes(
        self, grant: Grant, export: Export, shard: int, ranges: Sequence[tuple[int, int]]
    ) -> Sequence[bytes]:
        """The hashes of ranges of a shard's leaves. Raises Problem."""
        request = evidence_service_pb2.HashEvidenceRangesRequest(
            organization_id=str(export.organization_id),
            shard=shard,
            begins=[begin for begin, _ in ranges],
            ends=[end for _, end in ranges],
        )
        return list((await _call("audit", self._stub.HashEvidenceRanges, request, grant)).hashes)

    async def prove(self, grant: Grant, export: Export, event_ids: Sequence[str]) -> tuple[Sequence[Any], str, str]:
        """Events as the log proves them, the checkpoint that the proofs lead to, and the key manifest."""
        request = evidence_service_pb2.ProveEvidenceEventsRequest(
            organization_id=str(export.organization_id), event_ids=event_ids
        )
        answer = await _call("audit", self._stub.ProveEvidenceEvents, request, grant)
        return answer.events, answer.checkpoint.note, answer.key_manifest

    async def seal(
        self,
        grant: Grant,
        export: Export,
        request_id: str,
        digests: Mapping[str, bytes],
        heads: Sequence[Head],
        totals: Totals,
    ) -> bytes:
        """Have the statement over the files signed; manifest.json. Raises Problem."""
        request = evidence_service_pb2.SealEvidenceRequest(
            organization_id=str(export.organization_id),
            request_id=request_id,
            files=[evidence_service_pb2.EvidenceFile(name=n, sha256=digests[n]) for n in sorted(digests)],
            heads=[evidence_service_pb2.EvidenceHead(shard=head.shard, size=head.size) for head in heads],
            chain_seq=totals.chain_seq,
            chain_leaf=totals.chain_leaf,
            disclosed=totals.disclosed,
            erased=totals.erased,
            receipts=totals.receipts,
        )
        return bytes((await _call("audit", self._stub.SealEvidence, request, grant)).manifest)

    async def read_seal(self, grant: Grant, export: Export, newest: Head) -> Seal:
        """The seal's event, proven. Raises Problem (CHECKPOINT_PENDING while it is on its way)."""
        request = evidence_service_pb2.ReadEvidenceSealRequest(
            organization_id=str(export.organization_id), shard=newest.shard, size=newest.size
        )
        answer = await _call("audit", self._stub.ReadEvidenceSeal, request, grant)
        return Seal(_leaf(answer.event, answer.checkpoint.note), list(answer.consistency), answer.key_manifest)


def _leaf(event: audit_pb2.ProvenEvent, note: str) -> ProvenLeaf:
    return ProvenLeaf(event.leaf, event.payload, event.salt, event.index, list(event.proof), note)


class Actions:
    """Receipts, under an export's grant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = actions_service_pb2_grpc.ActionsServiceStub(channel)

    async def receipts(self, grant: Grant, export: Export) -> AsyncIterator[ReceiptLine]:
        """The receipts of the period, oldest first. Raises Problem."""
        after = ""
        while True:
            request = actions_service_pb2.ListEvidenceReceiptsRequest(
                organization_id=str(export.organization_id),
                begins_at=stamp(export.begins_at),
                ends_at=stamp(export.ends_at),
                # With targets, too, what is about them can't be told from here.
                action_ids=[] if export.scope.targets else [str(each) for each in export.scope.actions],
                after_receipt_id=after,
            )
            page = (await _call("actions", self._stub.ListEvidenceReceipts, request, grant)).receipts
            for each in page:
                yield _receipt(each)
            if not page:
                return
            after = page[-1].receipt.receipt_id

    async def bundle(
        self, grant: Grant, export: Export, receipt_id: str, proofs: Sequence[Any], checkpoint: str, manifest: str
    ) -> bytes:
        """A receipt's bundle around proofs from the log. Raises Problem."""
        request = actions_service_pb2.BundleEvidenceReceiptRequest(
            organization_id=str(export.organization_id),
            receipt_id=receipt_id,
            proofs=[
                actions_service_pb2.EvidenceProof(
                    leaf=each.leaf,
                    payload=each.payload,
                    salt=each.salt,
                    index=each.index,
                    hashes=each.proof,
                    checkpoint=each.checkpoint.note,
                )
                for each in proofs
            ],
            checkpoint=checkpoint,
            key_manifest=manifest,
        )
        return str((await _call("actions", self._stub.BundleEvidenceReceipt, request, grant)).bundle).encode()


def _receipt(message: actions_service_pb2.EvidenceReceipt) -> ReceiptLine:
    said = message.receipt
    return ReceiptLine(
        {
            "receipt_id": said.receipt_id,
            "action_id": said.action_id,
            "days": str(said.days),
            "decision": pricing_pb2.Decision.Name(said.decision).removeprefix("DECISION_"),
            "economic": said.economic.amount,
            "cash": said.cash.amount,
            "currency": said.economic.currency or said.cash.currency,
            "provisional": said.provisional,
            "superseded_by": said.superseded_by,
        },
        tuple(message.event_ids),
    )


class Scanner:
    """Scans and connections, under an export's grant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = scanner_service_pb2_grpc.ScannerServiceStub(channel)

    async def scans(self, grant: Grant, export: Export) -> AsyncIterator[dict[str, Any]]:
        """The period's scans with what they missed, oldest first. Raises Problem."""
        after = ""
        while True:
            request = scanner_service_pb2.ListEvidenceScansRequest(
                organization_id=str(export.organization_id),
                begins_at=stamp(export.begins_at),
                ends_at=stamp(export.ends_at),
                after_scan_id=after,
            )
            page = (await _call("scanner", self._stub.ListEvidenceScans, request, grant)).scans
            for each in page:
                yield _scan(each)
            if not page:
                return
            after = page[-1].scan_id

    async def connections(self, grant: Grant, export: Export) -> AsyncIterator[dict[str, Any]]:
        """Connections with how their keys stand, by id. Raises Problem."""
        after = ""
        while True:
            request = scanner_service_pb2.ListEvidenceConnectionsRequest(
                organization_id=str(export.organization_id), after_connection_id=after
            )
            page = (await _call("scanner", self._stub.ListEvidenceConnections, request, grant)).connections
            for each in page:
                yield _connection(each)
            if not page:
                return
            after = page[-1].connection_id


def _scan(message: scanner_pb2.Scan) -> dict[str, Any]:
    missed = [
        {name: getattr(unit, name) for name in ("account", "region", "api", "outcome", "error_code")}
        for unit in message.coverage
        if unit.outcome != "COMPLETE"
    ]
    state = scanner_pb2.ScanState.Name(message.state).removeprefix("SCAN_STATE_")
    return {
        "scan_id": message.scan_id,
        "connection_id": message.connection_id,
        "state": state,
        "created_at": spelled(moment(message.created_at)),
        "finished_at": spelled(moment(message.finished_at)) if message.HasField("finished_at") else "",
        "units_done": str(message.units_done),
        "units_total": str(message.units_total),
        "resources_seen": str(message.resources_seen),
        "complete": "yes" if state == "COMPLETE" and not missed else "no",
        "problem": message.problem,
        "missed": missed,
    }


def _connection(message: scanner_pb2.Connection) -> dict[str, Any]:
    refused = [c.without_external_id == c.with_wrong_external_id == "REFUSED" for c in message.role_checks]
    return {
        "kind": "connection",
        "id": message.access_key_id,
        "connection_id": message.connection_id,
        "name": message.display_name,
        "state": scanner_pb2.ConnectionState.Name(message.state).removeprefix("CONNECTION_STATE_"),
        "created_at": spelled(moment(message.created_at)),
        "verified_at": spelled(moment(message.verified_at)) if message.HasField("verified_at") else "",
        "external_id_enforced": ("yes" if all(refused) else "no") if refused else "not checked",
        "problem": message.problem,
    }


@dataclass(frozen=True)
class Peers:
    """Whom the worker asks."""

    log: Log
    actions: Actions
    scanner: Scanner
