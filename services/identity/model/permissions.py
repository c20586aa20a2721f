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
# What every member holds, whatever their role: it is about nothing but their own membership.
OWN = frozenset({"identity.membership.update"})


@dataclass(frozen=True, slots=True)
class PermissionTable:
    """Process -> role -> permissions of that process, from the protos and from nowhere else."""

    customers: Held
    platform: Held
    # Those with which one decides about what somebody else asked for.
    approvals: frozenset[str] = _NONE
    # Those that no machine can use, since all that they open is for a person's own session.
    for_people: frozenset[str] = _NONE
    # Those with which one asks for what another person decides, or says who is who.
    personal: frozenset[str] = _NONE

    def held(self, organization_id: UUID | None, role: str, audience: str) -> frozenset[str]:
        """The permissions for `audience` of a member with `role`; none before an organization is chosen."""
        if organization_id is None:
            return _NONE
        table = self.platform if organization_id == PLATFORM else self.customers
        return table.get(audience, {}).get(role, _NONE)

    @property
    def names(self) -> frozenset[str]:
        """All that roles of customers' organizations hold."""
        return frozenset().union(*(held for roles in self.customers.values() for held in roles.values()))

    @property
    def known(self) -> frozenset[str]:
        """All that any role of any organization holds, the platform's too."""
        return self.names.union(*(held for roles in self.platform.values() for held in roles.values()))

    def of(self, organization_id: UUID | None, role: str, custom: frozenset[str], audience: str) -> frozenset[str]:
        """The same for a member who may have a custom role: `custom` is what that one holds, of all services."""
        if not custom or organization_id in (None, PLATFORM):
            return self.held(organization_id, role, audience)
        return (custom | OWN).intersection(frozenset().union(*self.customers.get(audience, {}).values()))

    def everywhere(self, organization_id: UUID, role: str, custom: frozenset[str]) -> frozenset[str]:
        """The same, of all services together."""
        return frozenset().union(*(self.of(organization_id, role, custom, each) for each in self.customers))


def require_platform_named(organization_id: UUID, slug: str) -> None:
    """Raise ValueError where the platform's id and its short name don't come together."""
    if (organization_id == PLATFORM) != (slug == PLATFORM_SLUG):
        raise ValueError(f"the organization {slug}: {PLATFORM_SLUG} is the one with the id {PLATFORM}, and no other")
