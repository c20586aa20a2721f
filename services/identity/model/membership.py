"""Organizations, members and roles: their shapes and the rules about them. Pure."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services._mesh.errors import Conflict, NotFound, Reason, WrongState, invalid_field
from services._mesh.resource_limits import UNLIMITED, ResourceLimits

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Role(enum.StrEnum):
    """A role within an organization; the names are those of `recoup.mesh.v1.Role`."""

    ADMIN = "ADMIN"
    FINOPS = "FINOPS"
    SECURITY = "SECURITY"
    APPROVER = "APPROVER"
    FINANCE = "FINANCE"
    AUDITOR = "AUDITOR"
    VIEWER = "VIEWER"
    CUSTOM = "CUSTOM"


@dataclass(frozen=True, slots=True)
class Organization:
    """A customer: the unit of tenancy."""

    organization_id: UUID
    slug: str
    display_name: str
    time_zone: str
    reporting_currency: str
    state: str
    version: int
    created_at: datetime
    owner_member_id: UUID | None = None

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return etag(self.organization_id, self.version)


@dataclass(frozen=True, slots=True)
class CustomRole:
    """A role that an organization made itself."""

    organization_id: UUID
    role_id: UUID
    name: str
    description: str
    permissions: tuple[str, ...]
    version: int
    created_at: datetime

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return etag(self.role_id, self.version)


@dataclass(frozen=True, slots=True)
class Member:
    """A person's membership of an organization.

    `approver_for` is the `role_key` that the other words about approving are about: since when, who gave the role
    (None: the operator, or a directory), and who confirmed it.
    """

    organization_id: UUID
    member_id: UUID
    user_id: UUID
    email: str
    role: Role
    state: str
    version: int
    created_at: datetime
    custom_role_id: UUID | None = None
    custom_role: CustomRole | None = None
    limits: ResourceLimits = UNLIMITED
    approver_for: str | None = None
    approver_since: datetime | None = None
    approver_by: UUID | None = None
    confirmed_by: UUID | None = None
    person_id: UUID | None = None

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return etag(self.member_id, self.version)

    @property
    def role_name(self) -> str:
        """The role as events and passports name it."""
        return self.custom_role.name if self.custom_role else self.role.value

    @property
    def role_key(self) -> str:
        """Which role it is, in which version: changes with everything that the role may be given."""
        return role_key(self.role, self.custom_role)

    @property
    def custom_permissions(self) -> frozenset[str]:
        """What their custom role holds; nothing where they have none."""
        return frozenset(self.custom_role.permissions if self.custom_role else ())

    @property
    def actor(self) -> str:
        """How tokens and events name the person."""
        return f"user:{self.user_id}"


def role_key(role: Role, custom: CustomRole | None) -> str:
    """Which role it is, in which version."""
    return f"{custom.role_id}/{custom.version}" if custom else role.value


def own_user_id(actor: str) -> UUID:
    """The user that an actor is. Raises NotFound for a token or a service account: neither is anybody's membership."""
    kind, _, identifier = actor.partition(":")
    if kind != "user":
        raise NotFound("member")
    return UUID(identifier)


def etag(identifier: UUID, version: int) -> str:
    """An opaque text that changes with every edit."""
    return hashlib.sha256(f"{identifier}/{version}".encode()).hexdigest()[:16]


def require_etag(given: str, current: str) -> None:
    """Raise Conflict (ETAG_MISMATCH) unless the caller saw the newest state."""
    if given != current:
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Somebody changed it in between. Read it again, then repeat.")


def require_another_admin(member: Member, admins: int) -> None:
    """Raise WrongState when the organization's last Admin would go."""
    if member.role is Role.ADMIN and member.state == "ACTIVE" and admins <= 1:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The last Admin stays. Make somebody else an Admin first.",
            {"state": "LAST_ADMIN", "allowed": "more than one Admin"},
        )


def fold_address(email: str) -> str:
    """An e-mail address as it is compared: its ASCII letters in lower case, and nothing else changed.

    Providers don't tell `Ada@` from `ada@`. Folding more than ASCII would make one address of two (the Kelvin sign
    is a `k` in lower case), and dropping dots or tags would too.
    """
    return email.translate(_ASCII_LOWER)


def require_time_zone(name: str) -> None:
    """Raise Invalid unless the name is an IANA time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise invalid_field("time_zone", "must be an IANA time zone, such as Europe/Berlin") from error
