"""Between identity's messages and its model."""

from __future__ import annotations

from typing import Any

from recoup.identity.v1 import identity_pb2 as pb
from recoup.mesh.v1 import access_pb2
from services._mesh.times import stamp
from services.identity.model.membership import Member, Organization, Role


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
    )


def member(found: Member) -> pb.Member:
    """A member as it is read."""
    return pb.Member(
        member_id=str(found.member_id),
        organization_id=str(found.organization_id),
        user_id=str(found.user_id),
        email=found.email,
        role=role_message(found.role),
        state=pb.MemberState.Value(f"MEMBER_STATE_{found.state}"),
        etag=found.etag,
        created_at=stamp(found.created_at),
    )


def role(message: access_pb2.Role.ValueType) -> Role:
    """A role from the wire."""
    return Role(access_pb2.Role.Name(message).removeprefix("ROLE_"))


def role_message(found: Role) -> access_pb2.Role.ValueType:
    """A role for the wire."""
    return access_pb2.Role.Value(f"ROLE_{found.value}")


def revocation(row: Any) -> pb.Revocation:
    """An entry of the feed."""
    return pb.Revocation(
        seq=row.seq,
        kind=pb.RevocationKind.Value(f"REVOCATION_KIND_{row.kind}"),
        key=row.key,
        revoked_at=stamp(row.revoked_at),
    )
