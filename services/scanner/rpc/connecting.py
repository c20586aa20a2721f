"""What must be known before a cloud is connected: decode, call, encode."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from recoup.scanner.v1 import connecting_service_pb2 as pb
from recoup.scanner.v1 import connecting_service_pb2_grpc
from services._mesh.jobs import Planner
from services._mesh.uow import Store, UnitOfWork
from services.scanner import wire
from services.scanner.model.cloud import Provider
from services.scanner.policies.rendering import PolicyFormat, render, render_reading, require_format
from services.scanner.usecases import connecting, connections
from services.scanner.usecases.connecting import KeyRules, Wanted

Context = Any


class ConnectingRpc(connecting_service_pb2_grpc.ConnectingServiceServicer):
    """recoup.scanner.v1.ConnectingService."""

    def __init__(self, store: Store, planner: Planner, rules: KeyRules) -> None:
        self._store, self._planner, self._rules = store, planner, rules

    async def PlanConnection(self, request: pb.PlanConnectionRequest, context: Context) -> pb.PlanConnectionResponse:
        bill = (request.bill_bucket, request.bill_prefix) if request.bill_bucket or request.bill_prefix else None
        wanted = Wanted(request.principal_arn, tuple(request.action_types), bill, _provider(request.provider))
        style = PolicyFormat.JSON
        if request.format:
            style = PolicyFormat(pb.PolicyFormat.Name(request.format).removeprefix("POLICY_FORMAT_"))
        require_format(wanted.provider, style)

        async def decide(work: UnitOfWork) -> pb.PlanConnectionResponse:
            if wanted.provider is not Provider.AWS:
                await connecting.plan_reading(work, wanted, request.scope_ids)
                name, policy, document = render_reading(wanted.provider, request.scope_ids, style)
                planned = [pb.PlannedRole(name=name, use="scan", policy=policy)]
                return pb.PlanConnectionResponse(roles=planned, document=document)
            external_id, roles = await connecting.plan_connection(work, self._rules, wanted)
            planned = [
                pb.PlannedRole(
                    name=r.name, use=r.use, trust_policy=json.dumps(r.trust_policy), policy=json.dumps(r.policy)
                )
                for r in roles
            ]
            return pb.PlanConnectionResponse(external_id=external_id, roles=planned, document=render(roles, style))

        return await self._store.write(request, pb.PlanConnectionResponse, decide)

    async def CheckConnection(self, request: pb.CheckConnectionRequest, context: Context) -> pb.CheckConnectionResponse:
        async def decide(work: UnitOfWork) -> pb.CheckConnectionResponse:
            found = await connections.check_connection(work, self._planner, UUID(request.connection_id))
            return pb.CheckConnectionResponse(connection=wire.connection(found))

        return await self._store.write(request, pb.CheckConnectionResponse, decide)

    async def ExpireConnection(
        self, request: pb.ExpireConnectionRequest, context: Context
    ) -> pb.ExpireConnectionResponse:
        async with self._store.begin() as work:
            await connections.expire_connection(work, self._planner)
        return pb.ExpireConnectionResponse()

    async def SetStaticKeys(self, request: pb.SetStaticKeysRequest, context: Context) -> pb.SetStaticKeysResponse:
        async def decide(work: UnitOfWork) -> pb.SetStaticKeysResponse:
            allowed = request.static_keys == pb.STATIC_KEYS_ALLOWED
            await connecting.set_static_keys(work, allowed=allowed)
            return pb.SetStaticKeysResponse(static_keys=request.static_keys)

        return await self._store.write(request, pb.SetStaticKeysResponse, decide)


def _provider(value: pb.CloudProvider.ValueType) -> Provider:
    return Provider[pb.CloudProvider.Name(value).removeprefix("CLOUD_PROVIDER_")] if value else Provider.AWS
