"""The RPCs of rotations of credentials: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.scanner.v1 import rotation_service_pb2 as pb
from recoup.scanner.v1 import rotation_service_pb2_grpc
from services._mesh.jobs import Planner
from services._mesh.kms.opening import Sealer
from services._mesh.times import stamp
from services._mesh.uow import Store, UnitOfWork
from services.scanner import wire
from services.scanner.model.given import NewSecret
from services.scanner.model.rotation import Rotation
from services.scanner.usecases import rotating, rotation_rules
from services.scanner.usecases.connecting import KeyRules

Context = Any


class RotationRpc(rotation_service_pb2_grpc.RotationServiceServicer):
    """recoup.scanner.v1.RotationService."""

    def __init__(self, store: Store, planner: Planner, sealer: Sealer, rules: KeyRules) -> None:
        self._store, self._planner, self._sealer, self._rules = store, planner, sealer, rules

    async def RotateCredential(
        self, request: pb.RotateCredentialRequest, context: Context
    ) -> pb.RotateCredentialResponse:
        earlier = await self._store.replayed(request, pb.RotateCredentialResponse)
        if earlier is not None:
            return earlier
        secret = NewSecret(
            request.aws_access_key_id,
            request.aws_secret_access_key,
            request.azure_client_secret,
            request.azure_certificate,
            request.gcp_service_account_key,
        )
        # Sealed before the transaction, like every call to a peer.
        given = await rotating.seal_candidate(self._store, self._sealer, UUID(request.connection_id), secret)

        async def decide(work: UnitOfWork) -> pb.RotateCredentialResponse:
            begun = await rotating.rotate_credential(work, self._planner, self._rules, given)
            return pb.RotateCredentialResponse(rotation=_rotation(begun))

        return await self._store.write(request, pb.RotateCredentialResponse, decide)

    async def CancelRotation(self, request: pb.CancelRotationRequest, context: Context) -> pb.CancelRotationResponse:
        async def decide(work: UnitOfWork) -> pb.CancelRotationResponse:
            cancelled = await rotating.cancel_rotation(work, UUID(request.connection_id))
            return pb.CancelRotationResponse(rotation=_rotation(cancelled))

        return await self._store.write(request, pb.CancelRotationResponse, decide)

    async def GetRotation(self, request: pb.GetRotationRequest, context: Context) -> pb.GetRotationResponse:
        found = await rotating.get_rotation(self._store, UUID(request.connection_id))
        return pb.GetRotationResponse(rotation=_rotation(found))

    async def ResolveCredential(
        self, request: pb.ResolveCredentialRequest, context: Context
    ) -> pb.ResolveCredentialResponse:
        found, refused_from = await rotating.resolve_credential(
            self._store, UUID(request.organization_id), UUID(request.credential_id)
        )
        return pb.ResolveCredentialResponse(credential_id=str(found), refused_from=stamp(refused_from))

    async def SetRotationRules(
        self, request: pb.SetRotationRulesRequest, context: Context
    ) -> pb.SetRotationRulesResponse:
        async def decide(work: UnitOfWork) -> pb.SetRotationRulesResponse:
            given = (request.remind_after_days, request.rotate_within_days)
            rules, late = await rotation_rules.set_rotation_rules(work, *given)
            return pb.SetRotationRulesResponse(rules=wire.rotation_rules(rules), connections_too_old=late)

        return await self._store.write(request, pb.SetRotationRulesResponse, decide)

    async def GetRotationRules(
        self, request: pb.GetRotationRulesRequest, context: Context
    ) -> pb.GetRotationRulesResponse:
        return pb.GetRotationRulesResponse(
            rules=wire.rotation_rules(await rotation_rules.get_rotation_rules(self._store))
        )


def _rotation(found: Rotation) -> pb.Rotation:
    return pb.Rotation(
        rotation_id=str(found.rotation_id),
        connection_id=str(found.connection_id),
        state=pb.RotationState.Value(f"ROTATION_STATE_{found.state.value}"),
        credential_id=str(found.candidate_id),
        replaced_credential_id=str(found.replaced_id),
        access_key_id=found.access_key_id,
        replaced_access_key_id=found.replaced_access_key_id,
        problem=found.problem,
        advice=found.advice,
        role_checks=wire.role_checks(found.role_checks),
        permission_checks=wire.permission_checks(found.permission_checks),
        started_at=stamp(found.started_at),
        promoted_at=stamp(found.promoted_at),
        ended_at=stamp(found.ended_at),
    )
