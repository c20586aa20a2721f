"""Between identity's messages and its model."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from recoup.identity.v1 import identity_pb2 as pb
from recoup.mesh.v1 import access_pb2
from services._mesh.resource_limits import ResourceLimits
from services._mesh.times import stamp
from services.identity.model.membership import Member, Organization, Role
from services.identity.model.roles import APPROVER_WAIT, is_fresh


def organization(found: Organization) -> pb.Organization:
    """An organization as it is read."""
    return pb.Organization(
        organization_id=str(found.organization_id),
        slug=found.slug,
        display_name=found.display_name,
        time_zone=found.time_zone,
        reporting_currency=found.reporting_currency,
        state=pb.OrganizationState.Value(f"ORGANIZATION_STATE_{found.state}"),
        etag=found.etag,
        created_at=stamp(found.created_at),
        owner_member_id=str(found.owner_member_id or ""),
    )


def member(found: Member, now: datetime) -> pb.Member:
    """A member as it is read; `now` is the injected clock's."""
    fresh = is_fresh(found, now)
    known = fresh and found.approver_since is not None and found.approver_for == found.role_key
    return pb.Member(
        member_id=str(found.member_id),
        organization_id=str(found.organization_id),
        user_id=str(found.user_id),
        email=found.email,
        role=role_message(found.role),
        state=pb.MemberState.Value(f"MEMBER_STATE_{found.state}"),
        etag=found.etag,
        created_at=stamp(found.created_at),
        person_id=str(found.person_id or found.user_id),
        custom_role_id=str(found.custom_role_id) if found.custom_role_id else "",
        custom_role_name=found.custom_role.name if found.custom_role else "",
        limits=limits(found.limits) if found.limits else None,
        approver_state=pb.APPROVER_STATE_FRESH if fresh else pb.APPROVER_STATE_SETTLED,
        approves_from=stamp(found.approver_since + APPROVER_WAIT) if known and found.approver_since else None,
    )


def limits(found: ResourceLimits) -> pb.ResourceLimits:
    """What a role is limited to."""
    return pb.ResourceLimits(
        connection_ids=[str(each) for each in found.connection_ids],
        tags=[pb.ResourceTag(key=key, value=value) for key, value in found.tags],
    )


def role(message: access_pb2.Role.ValueType) -> Role:
    """A role from the wire."""
    return Role(access_pb2.Role.Name(message).removeprefix("ROLE_"))


def role_message(found: Role) -> access_pb2.Role.ValueType:
    """A role for the wire."""
    return access_pb2.Role.Value(f"ROLE_{found.value}")


def revocation(row: Any, *, knows_resealed: bool) -> pb.Revocation:
    """An entry of the feed; who doesn't know RESEALED has one in its place that takes nothing from anybody."""
    kind, key = row.kind, row.key
    if kind == "RESEALED" and not knows_resealed:
        kind, key = "TOKEN", f"resealed/{key}"
    return pb.Revocation(
        seq=row.seq, kind=pb.RevocationKind.Value(f"REVOCATION_KIND_{kind}"), key=key, revoked_at=stamp(row.revoked_at)
    )
