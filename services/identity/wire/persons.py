"""Between the messages about persons and the model."""

from __future__ import annotations

from recoup.identity.v1 import person_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.persons import LinkedIdentity


def linked_identity(found: LinkedIdentity) -> pb.LinkedIdentity:
    """A login as it is read."""
    return pb.LinkedIdentity(
        identity_id=str(found.identity_id),
        kind=pb.LoginKind.Value(f"LOGIN_KIND_{found.login.kind.value}"),
        issuer=found.login.issuer,
        subject=found.login.subject,
        user_id=str(found.user_id),
        created_at=stamp(found.created_at),
    )
