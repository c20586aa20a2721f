"""The one error type of the mesh, `Problem`, with one subclass per gRPC status that services raise.

It maps to and from `google.rpc.Status` with one `ErrorInfo` (domain "recoup") and, for bad fields, one
`BadRequest`. Services raise these and nothing else on purpose; whatever else escapes becomes a bare
INTERNAL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2

from recoup.errors.v1.error_reason_pb2 import ErrorReason

Reason = ErrorReason  # What usecases and models import, so that generated code stays out of their imports.

DOMAIN = "recoup"
DETAILS_KEY = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
# gRPC peers drop metadata over 16 KiB and many proxies stop at 4 KiB: an error must arrive, so its details
# stay small.
_MAX_MESSAGE = 500
_MAX_VIOLATIONS = 10
_MAX_METADATA_VALUE = 200
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class FieldViolation:
    """One field that breaks a rule: its path in the request, such as "filter.regions[0]", and the rule as a
    sentence.
    """

    field: str
    description: str


class Problem(Exception):
    """A failure that the caller may know about, with a documented reason.

    `message` is for people and must hold no secret; `metadata` has the keys that error_reason.proto
    documents.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.field_violations = tuple(field_violations)

    @property
    def reason_name(self) -> str:
        """The reason as it goes on the wire, such as "STATE_WRONG"."""
        return ErrorReason.Name(self.reason).removeprefix(_PREFIX)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason_name}, {self.message!r})"


class Invalid(Problem):
    """The request itself is wrong, whatever the state of the world (INVALID_ARGUMENT)."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(Problem):
    """Nobody that we trust says who is asking (UNAUTHENTICATED)."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Denied(Problem):
    """We know who is asking, and they may not (PERMISSION_DENIED)."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(Problem):
    """Nothing with this id exists, as far as the caller's organization can know (NOT_FOUND)."""

    code = grpc.StatusCode.NOT_FOUND

    def __init__(
        self,
        resource: str = "resource",
        message: str = "",
        reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            reason,
            message or f"No such {resource}.",
            metadata if metadata is not None else {"resource": resource},
        )


class AlreadyExists(Problem):
    """Something with this identity exists already (ALREADY_EXISTS)."""

    code = grpc.StatusCode.ALREADY_EXISTS


class WrongState(Problem):
    """The resource isn't in a state that allows this; repeating won't help (FAILED_PRECONDITION)."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Conflict(Problem):
    """Somebody else was faster: read again, then repeat (ABORTED)."""

    code = grpc.StatusCode.ABORTED


class Exhausted(Problem):
    """A limit is reached (RESOURCE_EXHAUSTED)."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(Problem):
    """A part that is needed is down or stale: the same call may succeed later (UNAVAILABLE)."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlinePassed(Problem):
    """The time that the caller gave is too short or over (DEADLINE_EXCEEDED)."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


# Somebody was away or slow. That says nothing of what was asked for: the same call may succeed later.
PASSING = (Unavailable, DeadlinePassed)


class Internal(Problem):
    """Something that we didn't foresee; carries the trace id and nothing else (INTERNAL)."""

    code = grpc.StatusCode.INTERNAL

    def __init__(self, trace_id: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_INTERNAL, "Something went wrong on our side.", {"trace_id": trace_id})


_BY_CODE: dict[grpc.StatusCode, type[Problem]] = {
    cls.code: cls
    for cls in (
        Invalid,
        Unauthenticated,
        Denied,
        AlreadyExists,
        WrongState,
        Conflict,
        Exhausted,
        Unavailable,
        DeadlinePassed,
    )
}


def invalid_field(field: str, description: str) -> Invalid:
    """The Invalid of one field, for rules that the proto can't state."""
    return Invalid(
        ErrorReason.ERROR_REASON_FIELD_INVALID,
        f"{field}: {description}",
        field_violations=[FieldViolation(field, description)],
    )


def dependency_down(name: str) -> Unavailable:
    """The Unavailable of a part of the mesh that doesn't answer, such as "database"."""
    return Unavailable(
        ErrorReason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, f"The {name} can't be reached.", {"dependency": name}
    )


def to_status(problem: Problem) -> status_pb2.Status:
    """The problem as google.rpc.Status, cut to a size that survives as metadata."""
    status = status_pb2.Status(code=problem.code.value[0], message=problem.message[:_MAX_MESSAGE])
    info = error_details_pb2.ErrorInfo(reason=problem.reason_name, domain=DOMAIN)
    for key, value in problem.metadata.items():
        info.metadata[key] = str(value)[:_MAX_METADATA_VALUE]
    status.details.add().Pack(info)
    if problem.field_violations:
        bad = error_details_pb2.BadRequest()
        for violation in problem.field_violations[:_MAX_VIOLATIONS]:
            bad.field_violations.add(
                field=violation.field[:_MAX_METADATA_VALUE],
                description=violation.description[:_MAX_METADATA_VALUE],
            )
        status.details.add().Pack(bad)
    return status


def from_status(status: status_pb2.Status) -> Problem:
    """The problem that a peer's google.rpc.Status stands for; a foreign or bare status keeps its code."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad)
    violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    reason = _reason_of(info)
    return _build(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        reason,
        status.message,
        dict(info.metadata),
        violations,
    )


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str) -> Problem:
    """The problem behind a failed call to `peer`; a failure below our own protocol is a dependency that is
    down.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    # Our own cancellation is no such error: the peer is going down, and gRPC gave up what came just then.
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return dependency_down(peer)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlinePassed(ErrorReason.ERROR_REASON_DEADLINE_TOO_SHORT, f"{peer} didn't answer in time.")
    reason = ErrorReason.ERROR_REASON_UNSPECIFIED
    return _build(error.code(), reason, error.details() or f"{peer} failed.", {}, ())


def _reason_of(info: error_details_pb2.ErrorInfo) -> ErrorReason.ValueType:
    if info.domain != DOMAIN:
        return ErrorReason.ERROR_REASON_UNSPECIFIED
    try:
        return ErrorReason.Value(_PREFIX + info.reason)
    except ValueError:  # A newer peer may know reasons that we don't.
        return ErrorReason.ERROR_REASON_UNSPECIFIED


def _build(
    code: grpc.StatusCode,
    reason: ErrorReason.ValueType,
    message: str,
    metadata: dict[str, str],
    violations: Sequence[FieldViolation],
) -> Problem:
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(message=message, reason=reason, metadata=metadata)
    if code is grpc.StatusCode.INTERNAL and reason == ErrorReason.ERROR_REASON_INTERNAL:
        return Internal(metadata.get("trace_id", ""))
    if code in _BY_CODE:
        return _BY_CODE[code](reason, message, metadata, violations)
    problem = Problem(reason, message, metadata, violations)
    problem.code = code
    return problem
