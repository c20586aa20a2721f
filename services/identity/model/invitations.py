"""Invitations: their secret, how long they live, and who may accept one. Pure."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import Denied, Reason, WrongState, invalid_field
from services.identity.model.membership import Role, fold_address

# Tells whoever finds one, and whoever scans for leaked secrets, what it is.
PREFIX = "rcp_inv_"
SECRET_BYTES = 32
DEFAULT_PERIOD = timedelta(hours=168)
# Of one organization at a time.
MOST_PENDING = 1000


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation without its secret. `state` is PENDING, ACCEPTED or REVOKED; one that is due is EXPIRED."""

    organization_id: UUID
    invitation_id: UUID
    email: str
    role: Role
    state: str
    inviter: str
    created_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    member_id: UUID | None

    def state_at(self, now: datetime) -> str:
        """Where it stands at a moment."""
        return "EXPIRED" if self.state == "PENDING" and self.expires_at <= now else self.state


def new_secret() -> str:
    """256 random bits, to be shown once."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> bytes:
    """What is kept of a secret. Random bits need no salt, and nothing slower than SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def period(hours: int) -> timedelta:
    """How long an invitation may be accepted; 0 hours means a week."""
    return timedelta(hours=hours) if hours else DEFAULT_PERIOD


def address(email: str, field: str = "email") -> str:
    """An address as it is kept and compared. Raises Invalid for one that isn't ASCII: it would have look-alikes."""
    if not email.isascii():
        raise invalid_field(field, "must be written in ASCII letters, digits and signs")
    return fold_address(email)


def require_invited(invitation: Invitation, verified_address: str) -> None:
    """Raise Denied unless the session's verified address is the invited one. Says nothing of whom else it is for."""
    if not verified_address:
        raise Denied(
            Reason.ERROR_REASON_ADDRESS_UNVERIFIED,
            "Your session doesn't prove an e-mail address. Confirm yours, sign in again, and accept then.",
        )
    if not verified_address.isascii() or fold_address(verified_address) != invitation.email:
        raise Denied(
            Reason.ERROR_REASON_INVITATION_FOR_ANOTHER,
            "This invitation is for another address than the one that you're signed in with.",
        )


_OVER = {
    "EXPIRED": (Reason.ERROR_REASON_INVITATION_EXPIRED, "The invitation has expired. Ask for a new one."),
    "REVOKED": (Reason.ERROR_REASON_INVITATION_REVOKED, "The invitation was taken back. Ask for a new one."),
    "ACCEPTED": (Reason.ERROR_REASON_INVITATION_USED, "The invitation was accepted before."),
}


def require_pending(invitation: Invitation, now: datetime) -> None:
    """Raise WrongState unless the invitation can be accepted now."""
    over = _OVER.get(invitation.state_at(now))
    if over is not None:
        raise WrongState(*over)


def orphaned() -> WrongState:
    """The refusal of an invitation whose inviter could not make it any more."""
    return WrongState(
        Reason.ERROR_REASON_INVITATION_REVOKED,
        "Whoever invited you may not invite anybody to that role any more. Ask for a new invitation.",
    )
