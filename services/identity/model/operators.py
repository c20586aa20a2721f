"""An operator's access to a customer's organization, and the token that hands over a new installation. Pure."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import Conflict, Denied, Reason, Unauthenticated, WrongState
from services.identity.model.membership import Role

# Nobody reads a request's reason weeks later and remembers what it was about.
UNDECIDED_HOURS = 72
# Who comes into a customer's organization has shown a second factor.
OPERATOR_AAL = 2
INIT_TOKEN_PREFIX = "rcpi_"  # noqa: S105 - what such tokens begin with, so that scanners of secrets know them
INIT_TOKEN_PERIOD = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class OperatorAccess:
    """What an operator asked a customer's organization for, and how that one decided.

    `decided_by` is the person who decided, `decided_as` the login by which they did, `deciders` all of theirs then.
    """

    organization_id: UUID
    access_id: UUID
    operator_id: UUID
    role: Role
    reason: str
    hours: int
    state: str
    requested_at: datetime
    decided_at: datetime | None
    decided_by: UUID | None
    expires_at: datetime
    decided_as: str = ""
    deciders: frozenset[UUID] = frozenset()

    @property
    def actor(self) -> str:
        """How passports and events name the operator there: never as one of the organization's own people."""
        return operator_actor(self.operator_id)


def operator_actor(person: UUID) -> str:
    """The actor under which an operator is in a customer's organization."""
    return f"operator:{person}"


def is_operator(actor: str) -> bool:
    """Whether an actor is an operator in a customer's organization."""
    return actor.startswith("operator:")


def state_at(access: OperatorAccess, now: datetime) -> str:
    """Where it stands: what nobody decided and what was granted end by themselves."""
    open_ended = access.state in ("REQUESTED", "GRANTED")
    return "EXPIRED" if open_ended and access.expires_at <= now else access.state


def require_undecided(access: OperatorAccess, now: datetime) -> None:
    """Raise WrongState unless it waits for a decision."""
    _require(access, now, "REQUESTED")


def require_granted(access: OperatorAccess, now: datetime) -> None:
    """Raise WrongState unless it is in force."""
    _require(access, now, "GRANTED")


def _require(access: OperatorAccess, now: datetime, wanted: str) -> None:
    state = state_at(access, now)
    if state != wanted:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The operator's access is {state.lower()}, not {wanted.lower()}.",
            {"state": state, "allowed": wanted},
        )


def granted_hours(asked: int, given: int) -> int:
    """For how long: as asked, or less. Raises WrongState for more than was asked for."""
    if given > asked:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The operator asked for {asked} hours: grant as many, or fewer.",
            {"state": str(given), "allowed": f"1 to {asked}"},
        )
    return given or asked


def require_somebody_else(operator: UUID, deciders: Collection[UUID]) -> None:
    """Raise Denied where the operator would let themselves in, as a member of the customer's organization.

    `deciders` are all users that whoever decides is.
    """
    if not deciders or operator in deciders:
        raise Denied(
            Reason.ERROR_REASON_REQUESTER_IS_APPROVER,
            "An operator can't let themselves in. Somebody else of the organization decides.",
        )


def new_init_token() -> str:
    """A single-use token: 256 random bits under a prefix."""
    return INIT_TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_sha256(token: str) -> bytes:
    """What is kept of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def already_claimed() -> Conflict:
    """For whoever comes after the first Admin."""
    return Conflict(
        Reason.ERROR_REASON_STATE_WRONG,
        "This installation has its first Admin already. Ask them to invite you.",
        {"state": "CLAIMED", "allowed": "UNCLAIMED"},
    )


def refused_init_token() -> Unauthenticated:
    """For a token that isn't the newest one, or is too old; it isn't said which."""
    return Unauthenticated(
        Reason.ERROR_REASON_CREDENTIAL_INVALID,
        "The token isn't good: it holds for 15 minutes, and only the newest one. Have the operator make another.",
    )
