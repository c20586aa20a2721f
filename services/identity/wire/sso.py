"""Between the messages of single sign-on and its model."""

from __future__ import annotations

from uuid import UUID

from recoup.identity.v1 import sso_service_pb2 as pb
from recoup.mesh.v1 import access_pb2
from services._mesh.errors import invalid_field
from services._mesh.times import stamp
from services.identity.model.membership import Role
from services.identity.model.saml.certificates import expires_at, fingerprint
from services.identity.model.sso import Domain, GroupRole, Provider, ServiceProvider
from services.identity.model.sso_logins import SsoSession, TestLogin
from services.identity.wire.members import role, role_message


def provider(found: Provider, sp: ServiceProvider) -> pb.IdentityProvider:
    """A provider as it is read, with our own addresses for it."""
    where = (found.organization_id, found.provider_id)
    allowed = pb.PROVIDER_INITIATED_ALLOWED if found.provider_initiated else pb.PROVIDER_INITIATED_REFUSED
    return pb.IdentityProvider(
        provider_id=str(found.provider_id),
        organization_id=str(found.organization_id),
        display_name=found.display_name,
        state=pb.ProviderState.Value(f"PROVIDER_STATE_{found.state.value}"),
        entity_id=found.entity_id,
        sso_url=found.sso_url,
        certificates=[
            pb.SigningCertificate(fingerprint_sha256=fingerprint(each), expires_at=stamp(expires_at(each)))
            for each in found.certificates
        ],
        metadata_url=found.metadata_url,
        provider_initiated=allowed,
        email_attribute=found.email_attribute,
        groups_attribute=found.groups_attribute,
        mfa_contexts=found.mfa_contexts,
        default_role=role_message(found.default_role) if found.default_role else access_pb2.ROLE_UNSPECIFIED,
        session_minutes=found.session_minutes,
        group_roles=[_group_role(each) for each in found.group_roles],
        enforcement=pb.ENFORCEMENT_ON if found.enforced else pb.ENFORCEMENT_OFF,
        break_glass_member_id=str(found.break_glass_member_id or ""),
        is_tested=found.is_tested,
        sp_entity_id=sp.url(*where, "metadata"),
        acs_url=sp.url(*where, "acs"),
        login_url=sp.url(*where, "login"),
        etag=found.etag,
        created_at=stamp(found.created_at),
        approves_from=stamp(found.approves_from) if found.approves_from else None,
    )


def _group_role(found: GroupRole) -> pb.GroupRole:
    if found.custom_role_id is not None:
        return pb.GroupRole(group=found.group, custom_role_id=str(found.custom_role_id))
    return pb.GroupRole(group=found.group, role=role_message(found.role))


def group_role(message: pb.GroupRole, granted_by: UUID | None) -> GroupRole:
    """A group's role from the wire, as the caller says it. Raises Invalid unless it says one role."""
    if bool(message.role) == bool(message.custom_role_id):
        raise invalid_field("group_roles", "say either role or custom_role_id for each group")
    custom = UUID(message.custom_role_id) if message.custom_role_id else None
    return GroupRole(message.group, Role.CUSTOM if custom else role(message.role), custom, granted_by)


def default_role(message: access_pb2.Role.ValueType) -> Role | None:
    """A role from the wire; none where it isn't set."""
    return role(message) if message else None


def domain(found: Domain) -> pb.Domain:
    """A domain as it is read."""
    verified_at = None if found.verified_at is None else stamp(found.verified_at)
    return pb.Domain(
        domain_id=str(found.domain_id),
        name=found.name,
        state=pb.DomainState.Value(f"DOMAIN_STATE_{found.state}"),
        record_name=found.record_name,
        record_value=found.record_value,
        verified_at=verified_at,
        created_at=stamp(found.created_at),
        missing_since=stamp(found.missing_since) if found.missing_since else None,
        joins_until=stamp(found.joins_until) if found.joins_until else None,
    )


def test_login(found: TestLogin) -> pb.TestLogin:
    """A test as it is read."""
    return pb.TestLogin(
        test_id=str(found.test_id),
        provider_id=str(found.provider_id),
        state=pb.TestState.Value(f"TEST_STATE_{found.state}"),
        problem=found.problem,
        name_id=found.name_id,
        email=found.email,
        role=role_message(Role(found.role)) if found.role else access_pb2.ROLE_UNSPECIFIED,
        aal=found.aal,
        attribute_names=found.attribute_names,
        expires_at=stamp(found.expires_at),
    )


def session(found: SsoSession) -> pb.SsoSession:
    """A session as its owner is told."""
    return pb.SsoSession(
        session_id=str(found.session_id),
        for_organization=str(found.organization_id),
        user_id=str(found.user_id),
        aal=found.aal,
    )
