"""What actions asks of its peers: findings, baselines, measurements, proofs; and its worker of its own API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import orjson

from recoup.actions.v1 import actions_service_pb2, actions_service_pb2_grpc
from recoup.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from recoup.identity.v1 import identity_pb2, identity_service_pb2, identity_service_pb2_grpc
from recoup.mesh.v1 import resource_pb2
from recoup.pricing.v1 import bill_service_pb2, bill_service_pb2_grpc, pricing_pb2
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from services._mesh.context import current
from services._mesh.errors import NotFound, Reason, Unavailable, from_rpc_error
from services._mesh.exchange import Exchange
from services._mesh.grants import metadata
from services._mesh.resource_limits import ResourceLimits
from services._mesh.times import moment, stamp
from services.actions.model.action import Action
from services.actions.model.plan import Estimate, ResourceKey
from services.actions.model.receipt import Proof
from services.actions.model.request import Finding, FrozenBaseline, Scope
from services.actions.model.standing import Decider, NowStanding, Standings

PEER_SECONDS = 15.0
# A worker waits ten seconds for its lease: that identity doesn't answer must be known, and written, within them.
STANDING_SECONDS = 3.0
# Pricing gives a measurement 60 seconds of a thread's time, and its turn has to come first.
MEASURE_SECONDS = 90.0


class Identity:
    """The identity service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)

    async def is_active(self, organization_id: UUID) -> bool:
        """Whether an organization may have work done. Raises Problem."""
        return bool((await self._check(organization_id)).state == identity_pb2.ORGANIZATION_STATE_ACTIVE)

    async def reporting_currency(self, organization_id: UUID) -> str:
        """The currency that an organization reports in, ISO 4217. Raises Problem."""
        return str((await self._check(organization_id)).reporting_currency)

    async def check_standing(self, organization_id: UUID, deciders: Sequence[Decider]) -> Standings:
        """How those who decided something stand now, one for each. Raises Problem."""
        request = identity_service_pb2.CheckStandingRequest(
            organization_id=str(organization_id),
            decisions=[
                identity_service_pb2.EarlierDecision(
                    actor=each.actor, person_id=str(each.person), permission=each.permission
                )
                for each in deciders
            ],
        )
        try:
            answer = await self._stub.CheckStanding(request, timeout=STANDING_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        is_active = answer.state == identity_pb2.ORGANIZATION_STATE_ACTIVE
        return Standings(is_active, [_standing(each) for each in answer.standings])

    async def _check(self, organization_id: UUID) -> Any:
        request = identity_service_pb2.CheckOrganizationRequest(organization_id=str(organization_id))
        try:
            return await self._stub.CheckOrganization(request, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None


def _standing(message: identity_service_pb2.Standing) -> NowStanding:
    state = identity_service_pb2.StandingState.Name(message.state).removeprefix("STANDING_STATE_")
    connections = tuple(UUID(each) for each in message.limits.connection_ids)
    return NowStanding(state, ResourceLimits(connections, tuple((tag.key, tag.value) for tag in message.limits.tags)))


class Scanner:
    """The scanner, on behalf of the current caller."""

    def __init__(self, channel: grpc.aio.Channel, exchange: Exchange) -> None:
        self._stub, self._exchange = scanner_service_pb2_grpc.ScannerServiceStub(channel), exchange

    async def get_finding(self, finding_id: UUID) -> Finding:
        """A finding of the caller's organization. Raises Problem."""
        request = scanner_service_pb2.GetFindingRequest(
            organization_id=str(current().organization()), finding_id=str(finding_id)
        )
        found = (await self._call(self._stub.GetFinding, request)).finding
        return Finding(
            UUID(found.finding_id),
            UUID(found.connection_id),
            found.detection_id,
            _key(found.resource),
            scanner_pb2.FindingState.Name(found.state).removeprefix("FINDING_STATE_"),
            scanner_pb2.Actionability.Name(found.actionability).removeprefix("ACTIONABILITY_"),
            found.action_type,
            dict(found.evidence),
            Estimate(found.monthly_saving.amount, found.monthly_saving.currency, found.price_version)
            if found.HasField("monthly_saving")
            else None,
            moment(found.last_seen_at),
            dict(found.tags),
        )

    async def get_scope(self, connection_id: UUID, account: str) -> Scope:
        """What a connection lets us do in one of its accounts. Raises Problem."""
        request = scanner_service_pb2.GetConnectionRequest(
            organization_id=str(current().organization()), connection_id=str(connection_id)
        )
        found = (await self._call(self._stub.GetConnection, request)).connection
        state = scanner_pb2.ConnectionState.Name(found.state).removeprefix("CONNECTION_STATE_")
        acts = any(a.account_id == account and a.act_role_arn for a in found.aws_accounts)
        return Scope(UUID(found.credential_id), state, acts)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=await self._exchange.on_behalf("scanner"), timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None


class Bills:
    """The bills: baselines on behalf of the current caller, measurements under a job's grant."""

    def __init__(self, channel: grpc.aio.Channel, exchange: Exchange | None = None) -> None:
        self._stub, self._exchange = bill_service_pb2_grpc.BillServiceStub(channel), exchange

    async def get_baseline(self, resource: ResourceKey, through_day: date) -> FrozenBaseline:
        """The baseline of a resource up to a day. Raises Problem (BASELINE_INSUFFICIENT among others)."""
        assert self._exchange is not None
        request = bill_service_pb2.GetBaselineRequest(
            organization_id=str(current().organization()),
            resource=_message(resource),
            through_day=through_day.isoformat(),
        )
        try:
            authority = await self._exchange.on_behalf("pricing")
            answer = await self._stub.GetBaseline(request, metadata=authority, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "pricing") from None
        document = bytes(answer.baseline.document)
        return FrozenBaseline(document, str(orjson.loads(document)["currency"]))

    async def measure(
        self,
        grant: str,
        action: Action,
        baseline: bytes,
        from_day: date,
        days: int,
        confirmed_at: datetime | None,
        leakage: Sequence[ResourceKey],
    ) -> Measured:
        """The measurement of one window. `confirmed_at`: when the resource was seen gone, None when it is there."""
        request = bill_service_pb2.MeasureSavingsRequest(
            organization_id=str(action.organization_id),
            baseline_document=baseline,
            from_day=from_day.isoformat(),
            days=days,
            plan_hash=action.plan.plan_hash,
            estimate=resource_pb2.Money(amount=action.estimate.amount, currency=action.estimate.currency),
            expected_gone=action.kind.removes_resource,
            confirmed_gone=confirmed_at is not None,
            confirmed_at=stamp(confirmed_at),
            leakage=[_message(each) for each in leakage],
        )
        try:
            answer = await self._stub.MeasureSavings(request, metadata=metadata(grant), timeout=MEASURE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "pricing") from None
        return _measured(answer.measurement)


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement, and the billing periods ("YYYY-MM") behind it that are still open. Amounts may be None."""

    decision: str
    economic: Decimal | None
    cash: Decimal | None
    currency: str
    provisional: bool
    explanation: str
    document: bytes
    digest: str
    open_periods: tuple[str, ...]


def _measured(found: pricing_pb2.Measurement) -> Measured:
    return Measured(
        pricing_pb2.Decision.Name(found.decision).removeprefix("DECISION_"),
        Decimal(found.economic.amount) if found.economic.amount else None,
        Decimal(found.cash.amount) if found.cash.amount else None,
        found.economic.currency,
        found.provisional,
        found.explanation,
        bytes(found.document),
        found.digest,
        tuple(sorted({batch.billing_period for batch in found.batches if not batch.period_closed})),
    )


class Log:
    """The log, on behalf of the current caller."""

    def __init__(self, channel: grpc.aio.Channel, exchange: Exchange) -> None:
        self._stub, self._exchange = audit_service_pb2_grpc.AuditServiceStub(channel), exchange

    async def prove(self, event_ids: Sequence[UUID]) -> tuple[list[Proof], str, str]:
        """Proofs of events in their order, the cosigned checkpoint that they lead to, and the key manifest.

        Raises Unavailable (CHECKPOINT_PENDING) while one of them hasn't reached the log or too few witnesses have
        cosigned, or Problem.
        """
        request = audit_service_pb2.ProveEventsRequest(
            organization_id=str(current().organization()),
            event_ids=[str(event_id) for event_id in event_ids],
            cosigned=True,
        )
        try:
            authority = await self._exchange.on_behalf("audit")
            answer = await self._stub.ProveEvents(request, metadata=authority, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            problem = from_rpc_error(error, "audit")
            raise (_pending() if isinstance(problem, NotFound) else problem) from None
        proofs = [Proof(e.leaf, e.payload, e.salt, e.index, tuple(e.proof), e.checkpoint.note) for e in answer.events]
        return proofs, answer.checkpoint.note, answer.key_manifest


def _pending() -> Unavailable:
    return Unavailable(
        Reason.ERROR_REASON_CHECKPOINT_PENDING,
        "An event of the receipt is on its way into the log. Try again in a moment.",
        {"index": ""},
    )


class OwnApi:
    """The API process of actions, as its worker calls it under a grant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = actions_service_pb2_grpc.ActionsServiceStub(channel)

    async def issue_receipt(self, grant: str, action: Action, days: int) -> str:
        """Have the receipt of a decided checkpoint signed; returns its id. Safe to repeat. Raises Problem."""
        request = actions_service_pb2.IssueReceiptRequest(
            organization_id=str(action.organization_id), action_id=str(action.action_id), days=days
        )
        try:
            answer = await self._stub.IssueReceipt(request, metadata=metadata(grant), timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "actions") from None
        return str(answer.receipt.receipt_id)


def _key(message: resource_pb2.ResourceKey) -> ResourceKey:
    return ResourceKey(message.provider, message.partition, message.account, message.region, message.type, message.id)


def _message(resource: ResourceKey) -> resource_pb2.ResourceKey:
    return resource_pb2.ResourceKey(**_fields(resource))


def _fields(resource: ResourceKey) -> Mapping[str, str]:
    return resource.document()
