"""Between the messages of roles and identity's model."""

from __future__ import annotations

from uuid import UUID

from recoup.identity.v1 import identity_pb2, role_service_pb2
from services._mesh.resource_limits import ResourceLimits
from services._mesh.times import stamp
from services.identity.model.membership import CustomRole, Role
from services.identity.model.permissions import PermissionTable
from services.identity.wire import members


def custom_role(found: CustomRole, holders: int) -> role_service_pb2.CustomRole:
    """A custom role as it is read."""
    return role_service_pb2.CustomRole(
        role_id=str(found.role_id),
        organization_id=str(found.organization_id),
        name=found.name,
        description=found.description,
        permissions=sorted(found.permissions),
        holders=holders,
        etag=found.etag,
        created_at=stamp(found.created_at),
    )


def built_in(table: PermissionTable, organization_id: UUID) -> list[role_service_pb2.BuiltInRole]:
    """The seven roles, with what they hold in an organization."""
    return [
        role_service_pb2.BuiltInRole(
            role=members.role_message(role),
            permissions=sorted(table.everywhere(organization_id, role.value, frozenset())),
        )
        for role in Role
        if role is not Role.CUSTOM
    ]


def limits(message: identity_pb2.ResourceLimits) -> ResourceLimits:
    """What a role is limited to, from the wire."""
    return ResourceLimits(
        tuple(UUID(each) for each in message.connection_ids), tuple((tag.key, tag.value) for tag in message.tags)
    )
