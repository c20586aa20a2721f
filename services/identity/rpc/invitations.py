"""Invitations' RPCs: decode, call, encode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from recoup.identity.v1 import invitation_service_pb2 as pb
from recoup.identity.v1 import invitation_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current, entered
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.permissions import PermissionTable
from services.identity.usecases import invitations, joining, roles
from services.identity.wire import invitations as wire
from services.identity.wire import members as member_wire

Context = Any


class InvitationRpc(invitation_service_pb2_grpc.InvitationServiceServicer):
    """recoup.identity.v1.InvitationService. Secrets are put into answers after those are remembered for repetition."""

    def __init__(self, store: Store, table: PermissionTable, clock: Clock, pages: PageTokens) -> None:
        self._store, self._table, self._clock, self._pages = store, table, clock, pages

    async def CreateInvitation(
        self, request: pb.CreateInvitationRequest, context: Context
    ) -> pb.CreateInvitationResponse:
        secrets = [""]

        async def decide(work: UnitOfWork) -> pb.CreateInvitationResponse:
            role = member_wire.role(request.role)
            await roles.require_may_give(work, self._table, role)
            made, secrets[0] = await invitations.create_invitation(work, request.email, role, request.expires_in_hours)
            return pb.CreateInvitationResponse(invitation=wire.invitation(made, work.now))

        answer = await self._store.write(request, pb.CreateInvitationResponse, decide)
        answer.secret = secrets[0]
        return answer

    async def ListInvitations(self, request: pb.ListInvitationsRequest, context: Context) -> pb.ListInvitationsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await invitations.list_invitations(self._store, UUID(position) if position else None, limit)
        more, now = len(found) > limit, self._clock.now()
        token = self._pages.encode(organization_id, request, str(found[limit - 1].invitation_id)) if more else ""
        shown = [wire.invitation(each, now) for each in found[:limit]]
        return pb.ListInvitationsResponse(invitations=shown, next_page_token=token)

    async def RevokeInvitation(
        self, request: pb.RevokeInvitationRequest, context: Context
    ) -> pb.RevokeInvitationResponse:
        async def decide(work: UnitOfWork) -> pb.RevokeInvitationResponse:
            revoked = await invitations.revoke_invitation(work, UUID(request.invitation_id))
            return pb.RevokeInvitationResponse(invitation=wire.invitation(revoked, work.now))

        return await self._store.write(request, pb.RevokeInvitationResponse, decide)

    async def AcceptInvitation(
        self, request: pb.AcceptInvitationRequest, context: Context
    ) -> pb.AcceptInvitationResponse:
        expected = UUID(request.expected_organization) if request.expected_organization else None
        found = await joining.find_invitation(self._store, request.secret, expected)
        call = current()
        verified_address = call.passport.email if call.passport else ""

        async def decide(work: UnitOfWork) -> pb.AcceptInvitationResponse:
            member = await joining.accept_invitation(work, self._table, found.invitation_id, verified_address)
            return pb.AcceptInvitationResponse(member=member_wire.member(member, work.now))

        # Nothing is written unless they become a member, with this role: so the events name it.
        with entered(replace(call, organization_id=found.organization_id, role=found.role.value)):
            await joining.require_inviter(
                self._store, self._table, found.organization_id, found.invitation_id, verified_address
            )
            return await self._store.write(request, pb.AcceptInvitationResponse, decide, found.organization_id)
