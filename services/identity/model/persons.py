"""One human being and their logins. Pure.

A *user* is what sessions name (`user:<uuid>`). A *person* is a human being: the users that are linked in an
organization are one person, named by one of their ids. Separation of duties compares persons.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


class LoginKind(enum.StrEnum):
    """Who vouches for a login: an identity provider, or a directory."""

    SAML = "SAML"
    SCIM = "SCIM"


@dataclass(frozen=True, slots=True)
class Login:
    """What an identity provider or a directory calls a user: (idp, NameID), or (directory, its user's id)."""

    kind: LoginKind
    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class LinkedIdentity:
    """A login and the user that it is. `state` is ACTIVE or REMOVED."""

    organization_id: UUID
    identity_id: UUID
    login: Login
    user_id: UUID
    state: str
    created_at: datetime


def after_split(users: Collection[UUID], person_id: UUID, leaving: UUID) -> UUID | None:
    """The id that the others of a person's users go on under when `leaving` leaves; None where nobody is left."""
    others = sorted(set(users) - {leaving})
    if not others:
        return None
    return others[0] if person_id == leaving else person_id
