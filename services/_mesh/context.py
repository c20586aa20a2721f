"""Says on whose behalf the current call runs. Set by the server for each call, and by job runners for each
job.

It carries verified facts only; nobody builds one from a request's fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from services._mesh.clock import monotonic
from services._mesh.errors import Denied, Reason

if TYPE_CHECKING:
    from services._mesh.grants import Grant
    from services._mesh.passports import Passport


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """The verified circumstances of one call.

    `organization_id` is None for PUBLIC, SESSION and PEER calls without a grant. `actor` is the passport's
    subject ("user:<uuid>"), or the peer's SPIFFE id where a process acts for itself. `deadline` is in
    seconds of `clock.monotonic()`, with our own reserve already taken off. `authority` is what the audit
    log names: "passport:<jti>", "elevation:<id>.<jti>" (break-glass), "grant:<jti>" or "system".
    """

    rpc: str
    peer: str
    peer_thumbprint: str = ""
    request_id: str
    trace_id: str
    deadline: float | None
    organization_id: UUID | None = None
    actor: str
    responsible_person: UUID | None = None
    role: str = ""
    aal: int = 0
    session_id: str = ""
    authority: str = "system"
    passport_token: str = ""
    passport: Passport | None = None
    grant: Grant | None = None
    audit_action: str = ""

    def organization(self) -> UUID:
        """The organization, where the access rule guarantees one. Raises RuntimeError where it doesn't."""
        if self.organization_id is None:
            raise RuntimeError(f"{self.rpc} runs without an organization")
        return self.organization_id

    def persons(self) -> frozenset[UUID]:
        """All users that the caller is as a human being: who is among those recorded earlier is the caller."""
        mine = frozenset() if self.responsible_person is None else frozenset({self.responsible_person})
        return mine | self.passport.linked if self.passport is not None else mine

    def user_behind(self) -> UUID | None:
        """The user by whose membership the call is made: a person's own login, or that of who made the token."""
        rests_on = self.passport.rests_on[:1] if self.passport is not None else ()
        for kind, _, identifier in (actor.partition(":") for actor in (self.actor, *rests_on)):
            if kind == "user":
                return UUID(identifier)
        return None

    def is_caller(self, actor: str) -> bool:
        """Whether an actor recorded earlier is the caller by one of their logins, be it unlinked since."""
        return actor == self.actor or actor in {f"user:{each}" for each in self.persons()}

    def require_human(self, permission: str) -> None:
        """Raise Denied unless a person acts, and no token or service account of theirs."""
        if not self.actor.startswith("user:") or self.responsible_person is None:
            raise Denied(
                Reason.ERROR_REASON_HUMAN_SESSION_REQUIRED,
                "This is for people: no API token or service account may do it. Sign in, and repeat it.",
                {"session": "human", "permission": permission},
            )

    def require_whole_connections(self) -> None:
        """Raise Denied (ROLE_LIMITED) where the caller's role is limited to resources with some tags."""
        if self.passport is not None and self.passport.limits is not None and self.passport.limits.tags:
            raise Denied(
                Reason.ERROR_REASON_ROLE_LIMITED,
                "Your role is limited to resources with some tags, and this is about a whole connection. Ask somebody"
                " whose role isn't.",
            )

    def remaining_seconds(self) -> float | None:
        """Seconds that are left for this call; None where it has no deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def __repr__(self) -> str:  # Tokens never reach a log by way of a repr.
        return f"CallContext(rpc={self.rpc!r}, actor={self.actor!r}, organization_id={self.organization_id})"


_current: ContextVar[CallContext | None] = ContextVar("recoup_call", default=None)


def current() -> CallContext:
    """The context of the call that runs now. Raises RuntimeError outside of one."""
    found = _current.get()
    if found is None:
        raise RuntimeError("no call is running here")
    return found


def find_current() -> CallContext | None:
    """The context of the call that runs now, or None in a background task."""
    return _current.get()


@contextmanager
def entered(context: CallContext) -> Iterator[CallContext]:
    """Makes `context` the current one within the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
