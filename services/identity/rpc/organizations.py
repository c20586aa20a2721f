"""Organizations' RPCs: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4, uuid5

from recoup.identity.v1 import identity_pb2, organization_service_pb2_grpc
from recoup.identity.v1 import organization_service_pb2 as pb
from services._mesh.context import current
from services._mesh.idempotency import canonical
from services._mesh.uow import Store, UnitOfWork
from services.identity.usecases import own_membership, ownership, platform
from services.identity.wire import invitations as invitation_wire
from services.identity.wire import members as wire

Context = Any


class OrganizationRpc(organization_service_pb2_grpc.OrganizationServiceServicer):
    """recoup.identity.v1.OrganizationService. What has PLATFORM scope writes in the organization that it is about."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Context
    ) -> pb.CreateOrganizationResponse:
        secrets = [""]

        async def decide(work: UnitOfWork) -> pb.CreateOrganizationResponse:
            made, invitation, secrets[0] = await platform.create_organization(work, _tenant(request))
            invited = invitation_wire.invitation(invitation, work.now)
            return pb.CreateOrganizationResponse(organization=wire.organization(made), invitation=invited)

        answer = await self._store.write(request, pb.CreateOrganizationResponse, decide, _new_id(request))
        answer.secret = secrets[0]
        return answer

    async def SuspendOrganization(
        self, request: pb.SuspendOrganizationRequest, context: Context
    ) -> pb.SuspendOrganizationResponse:
        async def decide(work: UnitOfWork) -> pb.SuspendOrganizationResponse:
            changed = await platform.suspend_organization(work, request.reason)
            return pb.SuspendOrganizationResponse(state=_state(changed.state))

        organization_id = UUID(request.organization_id)
        return await self._store.write(request, pb.SuspendOrganizationResponse, decide, organization_id)

    async def ResumeOrganization(
        self, request: pb.ResumeOrganizationRequest, context: Context
    ) -> pb.ResumeOrganizationResponse:
        async def decide(work: UnitOfWork) -> pb.ResumeOrganizationResponse:
            changed = await platform.resume_organization(work, request.reason)
            return pb.ResumeOrganizationResponse(state=_state(changed.state))

        organization_id = UUID(request.organization_id)
        return await self._store.write(request, pb.ResumeOrganizationResponse, decide, organization_id)

    async def ReassignOwnership(
        self, request: pb.ReassignOwnershipRequest, context: Context
    ) -> pb.ReassignOwnershipResponse:
        async def decide(work: UnitOfWork) -> pb.ReassignOwnershipResponse:
            await ownership.reassign_ownership(work, UUID(request.member_id), request.reason)
            return pb.ReassignOwnershipResponse()

        organization_id = UUID(request.organization_id)
        return await self._store.write(request, pb.ReassignOwnershipResponse, decide, organization_id)

    async def TransferOwnership(
        self, request: pb.TransferOwnershipRequest, context: Context
    ) -> pb.TransferOwnershipResponse:
        async def decide(work: UnitOfWork) -> pb.TransferOwnershipResponse:
            changed = await ownership.transfer_ownership(work, UUID(request.member_id))
            return pb.TransferOwnershipResponse(organization=wire.organization(changed))

        return await self._store.write(request, pb.TransferOwnershipResponse, decide)

    async def LeaveOrganization(
        self, request: pb.LeaveOrganizationRequest, context: Context
    ) -> pb.LeaveOrganizationResponse:
        async def decide(work: UnitOfWork) -> pb.LeaveOrganizationResponse:
            await own_membership.leave_organization(work, request.confirm_slug)
            return pb.LeaveOrganizationResponse()

        return await self._store.write(request, pb.LeaveOrganizationResponse, decide)

    async def SetDefaultOrganization(
        self, request: pb.SetDefaultOrganizationRequest, context: Context
    ) -> pb.SetDefaultOrganizationResponse:
        async def decide(work: UnitOfWork) -> pb.SetDefaultOrganizationResponse:
            await own_membership.set_default_organization(work)
            return pb.SetDefaultOrganizationResponse()

        return await self._store.write(request, pb.SetDefaultOrganizationResponse, decide)


def _tenant(request: pb.CreateOrganizationRequest) -> platform.NewTenant:
    return platform.NewTenant(
        request.slug,
        request.display_name,
        request.time_zone,
        request.reporting_currency,
        request.admin_email,
        request.expires_in_hours,
    )


def _new_id(request: pb.CreateOrganizationRequest) -> UUID:
    """The new organization's id: a repeated request has to find what it made before, which lies there."""
    if not request.request_id:
        return uuid4()
    return uuid5(UUID(canonical(request.request_id)), current().actor)


def _state(name: str) -> identity_pb2.OrganizationState.ValueType:
    return identity_pb2.OrganizationState.Value(f"ORGANIZATION_STATE_{name}")
