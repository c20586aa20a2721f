"""The RPCs of actions: decode, call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from recoup.actions.v1 import actions_service_pb2 as pb
from recoup.actions.v1 import actions_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.jobs import Planner
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import moment
from services._mesh.uow import Store, UnitOfWork
from services.actions import wire
from services.actions.clients.peers import Bills, Identity, Log, Scanner
from services.actions.usecases import evidence, receipts, requests
from services.actions.usecases.receipts import ReceiptKey

Context = Any


@dataclass(frozen=True)
class Peers:
    """Whom the API asks on behalf of its callers."""

    identity: Identity
    scanner: Scanner
    bills: Bills
    log: Log


class ActionsRpc(actions_service_pb2_grpc.ActionsServiceServicer):
    """recoup.actions.v1.ActionsService."""

    def __init__(
        self, store: Store, planner: Planner, peers: Peers, key: ReceiptKey, pages: PageTokens, clock: Clock
    ) -> None:
        self._store, self._planner, self._peers = store, planner, peers
        self._key, self._pages, self._clock = key, pages, clock

    async def RequestAction(self, request: pb.RequestActionRequest, context: Context) -> pb.RequestActionResponse:
        earlier = await self._store.replayed(request, pb.RequestActionResponse)
        if earlier is not None:
            return earlier
        gathered = await requests.gather_request(
            self._peers.scanner, self._peers.bills, UUID(request.finding_id), self._clock.now()
        )

        async def decide(work: UnitOfWork) -> pb.RequestActionResponse:
            made = await requests.request_action(work, self._planner, gathered)
            return pb.RequestActionResponse(action=wire.action(made, with_document=True))

        return await self._store.write(request, pb.RequestActionResponse, decide)

    async def ApproveAction(self, request: pb.ApproveActionRequest, context: Context) -> pb.ApproveActionResponse:
        async def decide(work: UnitOfWork) -> pb.ApproveActionResponse:
            found = await requests.approve_action(
                work, self._planner, UUID(request.action_id), request.plan_hash, request.comment
            )
            return pb.ApproveActionResponse(action=wire.action(found, with_document=True))

        return await self._store.write(request, pb.ApproveActionResponse, decide)

    async def RejectAction(self, request: pb.RejectActionRequest, context: Context) -> pb.RejectActionResponse:
        async def decide(work: UnitOfWork) -> pb.RejectActionResponse:
            found = await requests.reject_action(work, UUID(request.action_id), request.comment)
            return pb.RejectActionResponse(action=wire.action(found, with_document=True))

        return await self._store.write(request, pb.RejectActionResponse, decide)

    async def CancelAction(self, request: pb.CancelActionRequest, context: Context) -> pb.CancelActionResponse:
        async def decide(work: UnitOfWork) -> pb.CancelActionResponse:
            found = await requests.cancel_action(work, UUID(request.action_id), request.comment)
            return pb.CancelActionResponse(action=wire.action(found, with_document=True))

        return await self._store.write(request, pb.CancelActionResponse, decide)

    async def GetAction(self, request: pb.GetActionRequest, context: Context) -> pb.GetActionResponse:
        found = await requests.get_action(self._store, UUID(request.action_id))
        return pb.GetActionResponse(action=wire.action(found, with_document=True))

    async def WatchAction(
        self, request: pb.WatchActionRequest, context: Context
    ) -> AsyncIterator[pb.WatchActionResponse]:
        async for found in requests.watch_action(self._store, UUID(request.action_id)):
            yield pb.WatchActionResponse(action=wire.action(found, with_document=True))

    async def ListActions(self, request: pb.ListActionsRequest, context: Context) -> pb.ListActionsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        before = UUID(position) if position else None
        found = await requests.list_actions(self._store, before, limit, wire.action_filter(request))
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].action.action_id)) if more else ""
        listed = [wire.action(each, with_document=False) for each in found[:limit]]
        return pb.ListActionsResponse(actions=listed, next_page_token=token)

    async def ListReceipts(self, request: pb.ListReceiptsRequest, context: Context) -> pb.ListReceiptsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        action_id = UUID(request.action_id) if request.action_id else None
        before = UUID(position) if position else None
        rows = await receipts.list_receipts(self._store, before, limit, action_id)
        more = len(rows) > limit
        token = self._pages.encode(organization_id, request, str(rows[limit - 1].receipt_id)) if more else ""
        return pb.ListReceiptsResponse(receipts=[wire.receipt(row) for row in rows[:limit]], next_page_token=token)

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Context) -> pb.GetReceiptResponse:
        found = await receipts.get_receipt(self._store, self._peers.log, UUID(request.receipt_id))
        state = pb.RECEIPT_STATE_FINAL if found.is_final else pb.RECEIPT_STATE_ISSUED
        return pb.GetReceiptResponse(
            receipt=wire.receipt(found.row),
            bundle=found.bundle,
            state=state,
            cosigned=found.cosigned,
            quorum=found.quorum,
        )

    async def GetLedger(self, request: pb.GetLedgerRequest, context: Context) -> pb.GetLedgerResponse:
        return wire.ledger(await receipts.get_ledger(self._store, self._peers.identity))

    async def IssueReceipt(self, request: pb.IssueReceiptRequest, context: Context) -> pb.IssueReceiptResponse:
        action_id = UUID(request.action_id)
        issued = await receipts.find_issued(self._store, action_id, request.days)
        if issued is not None:
            return pb.IssueReceiptResponse(receipt=wire.receipt(issued))

        async def decide(work: UnitOfWork) -> pb.IssueReceiptResponse:
            row = await receipts.issue_receipt(work, self._key, action_id, request.days)
            return pb.IssueReceiptResponse(receipt=wire.receipt(row))

        return await self._store.write(request, pb.IssueReceiptResponse, decide)

    async def ListEvidenceReceipts(
        self, request: pb.ListEvidenceReceiptsRequest, context: Context
    ) -> pb.ListEvidenceReceiptsResponse:
        rows = await evidence.list_evidence_receipts(
            self._store,
            moment(request.begins_at),
            moment(request.ends_at),
            [UUID(action_id) for action_id in request.action_ids],
            UUID(request.after_receipt_id) if request.after_receipt_id else None,
        )
        return pb.ListEvidenceReceiptsResponse(receipts=[wire.evidence_receipt(row) for row in rows])

    async def BundleEvidenceReceipt(
        self, request: pb.BundleEvidenceReceiptRequest, context: Context
    ) -> pb.BundleEvidenceReceiptResponse:
        proofs = [wire.proof(each) for each in request.proofs]
        made = await evidence.bundle_evidence_receipt(
            self._store, UUID(request.receipt_id), proofs, request.checkpoint, request.key_manifest
        )
        return pb.BundleEvidenceReceiptResponse(bundle=made)
