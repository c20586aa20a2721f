"""Whoever shows a credential, of whatever kind: what a passport is made from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services._mesh.passports import Kind
from services._mesh.resource_limits import ResourceLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a credential stands for. Times are whole seconds of wall time.

    `actor` names who acts, `user_id` the user whose membership and role it has, who is responsible for it. A credential
    that is bound to one organization is good for no other. `ceiling` holds the permissions, of all services, that the
    credential never goes beyond; `limits` the resources that it keeps to. None where the role alone decides.
    `organization_hint`, which a session's claims name, only chooses among memberships. `provider_id` is the identity
    provider that the session is of, if any. `email` is an address that the credential proves to be theirs; empty where
    it proves none. `browser` is the key of the browser session, if the credential is one.
    """

    actor: str
    user_id: UUID
    session_id: str
    kind: Kind
    aal: int
    auth_time: int
    ends_at: int
    organization_id: UUID | None = None
    ceiling: frozenset[str] | None = None
    organization_hint: UUID | None = None
    limits: ResourceLimits | None = None
    email: str = ""
    provider_id: UUID | None = None
    browser: str = ""
