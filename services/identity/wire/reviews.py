"""Between the messages of reviews and their model."""

from __future__ import annotations

from datetime import datetime

from recoup.identity.v1 import review_service_pb2 as pb
from services._mesh.times import moment, stamp
from services.identity.model.reviews import Decision, Review, Verdict


def review(found: Review, now: datetime) -> pb.Review:
    """A review as it is read."""
    return pb.Review(
        review_id=str(found.review_id),
        organization_id=str(found.organization_id),
        target=found.target,
        subject_person=str(found.subject_person),
        state=pb.ReviewState.Value(f"REVIEW_STATE_{found.state(now)}"),
        opened_at=stamp(found.opened_at),
        due_at=stamp(found.due_at),
        verdict=pb.ReviewVerdict.Value(f"REVIEW_VERDICT_{found.verdict.value if found.verdict else 'UNSPECIFIED'}"),
        note=found.note,
        reviewer=found.reviewer,
        decided_at=stamp(found.decided_at),
        renewed_until=stamp(found.renewed_until),
    )


def state(message: pb.ReviewState.ValueType) -> str:
    """A state to list; empty for all."""
    return pb.ReviewState.Name(message).removeprefix("REVIEW_STATE_") if message else ""


def decision(request: pb.DecideReviewRequest) -> Decision:
    """What a reviewer says."""
    return Decision(
        Verdict(pb.ReviewVerdict.Name(request.verdict).removeprefix("REVIEW_VERDICT_")),
        request.note,
        moment(request.renewed_until) if request.HasField("renewed_until") else None,
    )
