"""Browser sessions, between protobuf and model."""

from __future__ import annotations

from recoup.identity.v1 import browser_service_pb2 as pb
from recoup.mesh.v1 import forward_pb2
from services._mesh.times import stamp
from services.identity.model.browser_sessions import LIFETIME, Shown


def session(shown: Shown) -> pb.BrowserSession:
    """The message of a session."""
    found = shown.session
    return pb.BrowserSession(
        session_id=str(found.session_id),
        made_in=str(found.organization_id),
        user_id=str(found.user_id),
        aal=found.aal,
        authenticated_at=stamp(found.authenticated_at),
        created_at=stamp(found.created_at),
        used_at=stamp(shown.used_at),
        idle_ends_at=stamp(shown.idle_ends_at),
        expires_at=stamp(found.expires_at),
    )


def cookie(token: str) -> forward_pb2.HttpCookie:
    """What the browser keeps, no longer than the longest session."""
    return forward_pb2.HttpCookie(value=token, max_age_seconds=int(LIFETIME.total_seconds()))


def no_cookie() -> forward_pb2.HttpCookie:
    """What makes the browser forget it."""
    return forward_pb2.HttpCookie()
