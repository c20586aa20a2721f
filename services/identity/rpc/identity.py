"""Identity's RPCs: decode, call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from recoup.identity.v1 import identity_pb2, identity_service_pb2_grpc
from recoup.identity.v1 import identity_service_pb2 as pb
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import stamp_seconds
from services._mesh.uow import Store, UnitOfWork
from services.identity.usecases import feed, members, organizations, own_membership, passports, roles, standings
from services.identity.usecases.principals import Authority
from services.identity.wire import members as wire
from services.identity.wire import standings as standings_wire

Context = Any
_BEAT_SECONDS = 1.0


class IdentityRpc(identity_service_pb2_grpc.IdentityServiceServicer):
    """recoup.identity.v1.IdentityService."""

    def __init__(self, authority: Authority, store: Store, clock: Clock, pages: PageTokens) -> None:
        self._authority, self._store, self._clock, self._pages = authority, store, clock, pages
        self._beats = feed.Beats(store, clock, _BEAT_SECONDS)

    async def IssuePassport(self, request: pb.IssuePassportRequest, context: Context) -> pb.IssuePassportResponse:
        organization_id = UUID(request.organization_id) if request.organization_id else None
        signed, passport = await passports.issue_passport(
            self._authority,
            request.session_token,
            request.audience,
            organization_id,
            UUID(request.elevation_id) if request.elevation_id else None,
            choose=request.choice == pb.ORGANIZATION_CHOICE_DEFAULT,
        )
        return pb.IssuePassportResponse(
            passport=signed,
            expires_at=stamp_seconds(passport.expires_at),
            organization_id=str(passport.organization_id or ""),
        )

    async def ExchangePassport(
        self, request: pb.ExchangePassportRequest, context: Context
    ) -> pb.ExchangePassportResponse:
        passport, expires_at = await passports.exchange_passport(self._authority, request.passport, request.audience)
        return pb.ExchangePassportResponse(passport=passport, expires_at=stamp_seconds(expires_at))

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        after = request.after_seq
        piece = await feed.read_revocations(self._store, after, self._clock.wall_now())
        while True:
            after = piece.entries[-1].seq if piece.entries else after
            yield pb.WatchRevocationsResponse(
                revocations=[wire.revocation(row, knows_resealed=request.knows_resealed) for row in piece.entries],
                latest_seq=piece.latest_seq,
            )
            if len(piece.entries) < feed.FEED_BATCH:
                piece = await self._beats.after(after)
            else:
                piece = await feed.read_revocations(self._store, after, self._clock.wall_now())

    async def CheckOrganization(
        self, request: pb.CheckOrganizationRequest, context: Context
    ) -> pb.CheckOrganizationResponse:
        found = await organizations.check_organization(self._store, UUID(request.organization_id))
        return pb.CheckOrganizationResponse(
            state=identity_pb2.OrganizationState.Value(f"ORGANIZATION_STATE_{found.state}"),
            time_zone=found.time_zone,
            reporting_currency=found.reporting_currency,
        )

    async def CheckStanding(self, request: pb.CheckStandingRequest, context: Context) -> pb.CheckStandingResponse:
        organization, found = await standings.check_standing(
            self._store,
            self._authority.permissions,
            self._clock,
            UUID(request.organization_id),
            [standings_wire.earlier(each) for each in request.decisions],
        )
        return pb.CheckStandingResponse(
            state=identity_pb2.OrganizationState.Value(f"ORGANIZATION_STATE_{organization.state}"),
            standings=[standings_wire.standing(each) for each in found],
        )

    async def ListMyOrganizations(
        self, request: pb.ListMyOrganizationsRequest, context: Context
    ) -> pb.ListMyOrganizationsResponse:
        default = await own_membership.my_default_organization(self._store)
        answer = pb.ListMyOrganizationsResponse(default_organization=str(default or ""))
        for organization, role in await organizations.list_my_organizations(self._store):
            answer.memberships.add(organization=wire.organization(organization), role=wire.role_message(role))
        return answer

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.GetOrganizationResponse:
        return pb.GetOrganizationResponse(
            organization=wire.organization(await organizations.get_organization(self._store))
        )

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, context: Context
    ) -> pb.UpdateOrganizationResponse:
        change = organizations.OrganizationChange(
            request.display_name, request.time_zone, request.reporting_currency, request.etag
        )

        async def decide(work: UnitOfWork) -> pb.UpdateOrganizationResponse:
            changed = await organizations.update_organization(work, change)
            return pb.UpdateOrganizationResponse(organization=wire.organization(changed))

        return await self._store.write(request, pb.UpdateOrganizationResponse, decide)

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await members.list_members(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].member_id)) if more else ""
        return pb.ListMembersResponse(
            members=[wire.member(each, self._clock.now()) for each in found[:limit]], next_page_token=token
        )

    async def GetMember(self, request: pb.GetMemberRequest, context: Context) -> pb.GetMemberResponse:
        found = await members.get_member(self._store, UUID(request.member_id))
        return pb.GetMemberResponse(member=wire.member(found, self._clock.now()))

    async def AddMember(self, request: pb.AddMemberRequest, context: Context) -> pb.AddMemberResponse:
        async def decide(work: UnitOfWork) -> pb.AddMemberResponse:
            role = wire.role(request.role)
            await roles.require_may_give(work, self._authority.permissions, role)
            added = await members.add_member(work, UUID(request.user_id), request.email, role)
            return pb.AddMemberResponse(member=wire.member(added, work.now))

        return await self._store.write(request, pb.AddMemberResponse, decide)

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Context) -> pb.UpdateMemberResponse:
        async def decide(work: UnitOfWork) -> pb.UpdateMemberResponse:
            role = wire.role(request.role)
            await roles.require_may_give(work, self._authority.permissions, role)
            await roles.require_may_change(work, self._authority.permissions, UUID(request.member_id))
            changed = await members.update_member(work, UUID(request.member_id), role, request.etag)
            return pb.UpdateMemberResponse(member=wire.member(changed, work.now))

        return await self._store.write(request, pb.UpdateMemberResponse, decide)

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        async def decide(work: UnitOfWork) -> pb.RemoveMemberResponse:
            await roles.require_may_change(work, self._authority.permissions, UUID(request.member_id))
            await members.remove_member(work, UUID(request.member_id))
            return pb.RemoveMemberResponse()

        return await self._store.write(request, pb.RemoveMemberResponse, decide)

    async def RevokeMemberSessions(
        self, request: pb.RevokeMemberSessionsRequest, context: Context
    ) -> pb.RevokeMemberSessionsResponse:
        async def decide(work: UnitOfWork) -> pb.RevokeMemberSessionsResponse:
            seq = await members.revoke_member_sessions(work, UUID(request.member_id))
            return pb.RevokeMemberSessionsResponse(seq=seq)

        return await self._store.write(request, pb.RevokeMemberSessionsResponse, decide)
