"""What decides whether a credential opens an organization now. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.identity.model.membership import Member


@dataclass(frozen=True, slots=True)
class Admission:
    """A membership as it is at this moment, who the user is as a person, and what was ended.

    `demanded_provider`: which identity provider a session of theirs must be one of, if any. `all_ended_at`: until when
    all sessions of the actor that began were ended, everywhere or in this organization. `linked` are the other users
    that the person is. `provider_changed_at`: when the identity provider that made the session changed what it vouches
    for, and nobody else has confirmed that. `is_awaited`: the directory has a user with the session's address, and
    nobody is that user yet. `revocations_seen`: the last entry of the revocation feed that all of this
    takes into account.
    """

    member: Member
    organization_state: str
    person_id: UUID
    session_over: bool
    all_ended_at: datetime | None
    demanded_provider: UUID | None = None
    linked: frozenset[UUID] = frozenset()
    provider_changed_at: datetime | None = None
    is_awaited: bool = False
    revocations_seen: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the organization is there for the member."""
        return self.member.state == "ACTIVE" and self.organization_state == "ACTIVE"

    def has_ended(self, auth_time: int) -> bool:
        """Whether a session is over whose person proved who they are at `auth_time`, in whole seconds.

        One of the same second counts as begun before: it fails closed.
        """
        return self.session_over or (self.all_ended_at is not None and auth_time <= self.all_ended_at.timestamp())
