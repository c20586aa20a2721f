"""What a role holds: in a customer's organization one thing, in the platform organization another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from services._mesh.ids import PLATFORM

# The short name that goes with PLATFORM: nobody else's.
PLATFORM_SLUG = "platform"
Held = Mapping[str, Mapping[str, frozenset[str]]]
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PermissionTable:
    """Process -> role -> permissions of that process, from the protos and from nowhere else."""

    customers: Held
    platform: Held

    def held(self, organization_id: UUID | None, role: str, audience: str) -> frozenset[str]:
        """The permissions for `audience` of a member with `role`; none before an organization is chosen."""
        if organization_id is None:
            return _NONE
        table = self.platform if organization_id == PLATFORM else self.customers
        return table.get(audience, {}).get(role, _NONE)


def require_platform_named(organization_id: UUID, slug: str) -> None:
    """Raise ValueError where the platform's id and its short name don't come together."""
    if (organization_id == PLATFORM) != (slug == PLATFORM_SLUG):
        raise ValueError(f"the organization {slug}: {PLATFORM_SLUG} is the one with the id {PLATFORM}, and no other")
