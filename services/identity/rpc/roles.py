"""The RPCs of roles: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import role_service_pb2 as pb
from recoup.identity.v1 import role_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.permissions import PermissionTable
from services.identity.usecases import roles
from services.identity.wire import members as members_wire
from services.identity.wire import roles as wire

Context = Any


class RoleRpc(role_service_pb2_grpc.RoleServiceServicer):
    """recoup.identity.v1.RoleService."""

    def __init__(self, store: Store, table: PermissionTable, clock: Clock, pages: PageTokens) -> None:
        self._store, self._table, self._clock, self._pages = store, table, clock, pages

    async def CreateRole(self, request: pb.CreateRoleRequest, context: Context) -> pb.CreateRoleResponse:
        async def decide(work: UnitOfWork) -> pb.CreateRoleResponse:
            made = await roles.create_role(work, self._table, request.name, request.description, request.permissions)
            return pb.CreateRoleResponse(role=wire.custom_role(made, 0))

        return await self._store.write(request, pb.CreateRoleResponse, decide)

    async def UpdateRole(self, request: pb.UpdateRoleRequest, context: Context) -> pb.UpdateRoleResponse:
        async def decide(work: UnitOfWork) -> pb.UpdateRoleResponse:
            role_id = UUID(request.role_id)
            changed, holders = await roles.update_role(
                work, self._table, role_id, request.description, request.permissions, request.etag
            )
            return pb.UpdateRoleResponse(role=wire.custom_role(changed, holders))

        return await self._store.write(request, pb.UpdateRoleResponse, decide)

    async def DeleteRole(self, request: pb.DeleteRoleRequest, context: Context) -> pb.DeleteRoleResponse:
        async def decide(work: UnitOfWork) -> pb.DeleteRoleResponse:
            await roles.delete_role(work, UUID(request.role_id))
            return pb.DeleteRoleResponse()

        return await self._store.write(request, pb.DeleteRoleResponse, decide)

    async def GetRole(self, request: pb.GetRoleRequest, context: Context) -> pb.GetRoleResponse:
        found, holders = await roles.get_role(self._store, UUID(request.role_id))
        return pb.GetRoleResponse(role=wire.custom_role(found, holders))

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await roles.list_roles(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1][0].role_id)) if more else ""
        return pb.ListRolesResponse(
            roles=[wire.custom_role(role, holders) for role, holders in found[:limit]],
            next_page_token=token,
            built_in_roles=wire.built_in(self._table, organization_id),
        )

    async def AssignRole(self, request: pb.AssignRoleRequest, context: Context) -> pb.AssignRoleResponse:
        given = roles.Assignment(
            UUID(request.member_id),
            members_wire.role(request.role) if request.role else None,
            UUID(request.custom_role_id) if request.custom_role_id else None,
            wire.limits(request.limits),
            request.etag,
        )

        async def decide(work: UnitOfWork) -> pb.AssignRoleResponse:
            changed = await roles.assign_role(work, self._table, given)
            return pb.AssignRoleResponse(member=members_wire.member(changed, work.now))

        return await self._store.write(request, pb.AssignRoleResponse, decide)

    async def ConfirmApprover(self, request: pb.ConfirmApproverRequest, context: Context) -> pb.ConfirmApproverResponse:
        async def decide(work: UnitOfWork) -> pb.ConfirmApproverResponse:
            changed = await roles.confirm_approver(work, UUID(request.member_id), request.etag)
            return pb.ConfirmApproverResponse(member=members_wire.member(changed, work.now))

        return await self._store.write(request, pb.ConfirmApproverResponse, decide)
