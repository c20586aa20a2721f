"""Which role the groups of a directory give to their members. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from services._mesh.errors import invalid_field
from services.identity.model.membership import CustomRole, Role
from services.identity.model.scim.users import comparable


@dataclass(frozen=True, slots=True)
class GivenRole:
    """A role that members of a group have: one of the seven, or a custom one."""

    role: Role
    custom: CustomRole | None = None

    @property
    def custom_id(self) -> UUID | None:
        """The custom role's id."""
        return self.custom.role_id if self.custom else None


# Who is in none of the groups that stand for something.
DEFAULT_ROLE = GivenRole(Role.VIEWER)


@dataclass(frozen=True, slots=True)
class GroupRole:
    """What a group stands for, by its name. A custom role that was deleted since stands for nothing."""

    group: str
    role: Role
    custom_role_id: UUID | None = None
    custom: CustomRole | None = None

    @property
    def key(self) -> str:
        """The name as names are compared."""
        return comparable(self.group)

    @property
    def given(self) -> GivenRole | None:
        """The role, if there still is one."""
        if self.role is Role.CUSTOM:
            return GivenRole(self.role, self.custom) if self.custom else None
        return GivenRole(self.role)


def require_sound(roles: Sequence[GroupRole]) -> None:
    """Raise Invalid where a group stands in the list twice, or a role isn't named as it must be."""
    seen: set[str] = set()
    for place, each in enumerate(roles):
        if each.key in seen:
            raise invalid_field(f"roles[{place}].group", "must be in the list once.")
        if (each.role is Role.CUSTOM) != (each.custom_role_id is not None):
            raise invalid_field(f"roles[{place}].custom_role_id", "must be given with ROLE_CUSTOM, and with no other.")
        seen.add(each.key)


def role_of(groups: Collection[str], roles: Sequence[GroupRole]) -> GivenRole | None:
    """The role of who is in these groups (by key): that of the first in the list, or None where none counts."""
    return next((each.given for each in roles if each.key in groups and each.given), None)
