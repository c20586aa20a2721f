"""Between the messages of posture and its model."""

from __future__ import annotations

from recoup.identity.v1 import posture_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.posture import Posture
from services.identity.wire.elevations import elevation


def posture(found: Posture) -> pb.Posture:
    """A posture as it is read."""
    return pb.Posture(
        taken_at=stamp(found.taken_at),
        members=found.members,
        admins=found.admins,
        members_without_aal2=[
            pb.Posture.WeakMember(
                member_id=str(each.member_id),
                user_id=str(each.user_id),
                role=each.role,
                last_aal=each.last_aal,
                last_seen_at=stamp(each.last_seen_at),
            )
            for each in found.weak_members
        ],
        members_without_aal2_total=found.weak_members_total,
        stale_tokens=[
            pb.Posture.StaleToken(
                token_id=str(each.token_id),
                display_name=each.display_name,
                last_used_at=stamp(each.last_used_at),
                created_at=stamp(each.created_at),
                expires_at=stamp(each.expires_at),
            )
            for each in found.stale_tokens
        ],
        stale_tokens_total=found.stale_tokens_total,
        unused_roles=[pb.Posture.UnusedRole(role_id=str(each.role_id), name=each.name) for each in found.unused_roles],
        unused_roles_total=found.unused_roles_total,
        sso=pb.SsoEnforcement.Value(f"SSO_ENFORCEMENT_{found.sso}"),
        missing_domains=[
            pb.Posture.MissingDomain(
                domain_id=str(each.domain_id), name=each.name, missing_since=stamp(each.missing_since)
            )
            for each in found.missing_domains
        ],
        scim_tokens=found.scim_tokens,
        scim_seen_at=stamp(found.scim_seen_at),
        scim_synced_at=stamp(found.scim_synced_at),
        elevations_open=[elevation(each, found.taken_at) for each in found.elevations],
        reviews_open=found.reviews_open,
        reviews_overdue=found.reviews_overdue,
        exceptions_in_force=found.exceptions_in_force,
        exceptions_due=found.exceptions_due,
        exceptions_expired=found.exceptions_expired,
        exceptions_overdue=found.exceptions_overdue,
    )
