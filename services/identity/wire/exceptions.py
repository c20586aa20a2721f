"""Between the messages of exceptions and their model."""

from __future__ import annotations

from datetime import datetime

from recoup.identity.v1 import exception_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.exceptions import ExceptionKind, Granted


def exception(found: Granted, now: datetime) -> pb.Exception:
    """An exception as it is read."""
    return pb.Exception(
        exception_id=str(found.exception_id),
        organization_id=str(found.organization_id),
        kind=pb.ExceptionKind.Value(f"EXCEPTION_KIND_{found.kind.value}"),
        target=found.about,
        reason=found.reason,
        owner=found.owner,
        owner_person=str(found.owner_person),
        reviewers=[str(each) for each in found.reviewers],
        state=pb.ExceptionState.Value(f"EXCEPTION_STATE_{found.state(now)}"),
        created_at=stamp(found.created_at),
        expires_at=stamp(found.expires_at),
        ended_at=stamp(found.ended_at),
        ended_by=found.ended_by,
    )


def in_force(found: Granted) -> pb.CheckExceptionsResponse.InForce:
    """An exception as its rule's service sees it."""
    return pb.CheckExceptionsResponse.InForce(
        exception_id=str(found.exception_id), target=found.about, expires_at=stamp(found.expires_at)
    )


def kind(message: pb.ExceptionKind.ValueType) -> ExceptionKind:
    """A kind from the wire."""
    return ExceptionKind(pb.ExceptionKind.Name(message).removeprefix("EXCEPTION_KIND_"))


def state(message: pb.ExceptionState.ValueType) -> str:
    """A state to list; empty for all."""
    return pb.ExceptionState.Name(message).removeprefix("EXCEPTION_STATE_") if message else ""
