"""Errors as RFC 9457 problem documents: for every answer that isn't a success, also of the edge itself."""

from __future__ import annotations

import json
from typing import Any

import grpc

from services._mesh.errors import Problem, Reason

MEDIA_TYPE = "application/problem+json"
SCIM_MEDIA_TYPE = "application/scim+json"
_SCIM_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_BY_REASON = {
    Reason.ERROR_REASON_METHOD_NOT_ALLOWED: 405,
    Reason.ERROR_REASON_TOO_LARGE: 413,
    Reason.ERROR_REASON_MEDIA_TYPE_UNSUPPORTED: 415,
}
_SCIM_TYPES = {
    Reason.ERROR_REASON_FIELD_INVALID: "invalidValue",
    Reason.ERROR_REASON_FIELD_UNKNOWN: "invalidSyntax",
    Reason.ERROR_REASON_BODY_MALFORMED: "invalidSyntax",
}
_TITLES = {
    400: "The request can't be done as it is",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Something went wrong on our side",
    503: "Not available right now",
    504: "It took too long",
}


def status_of(problem: Problem) -> int:
    """The HTTP status of a problem."""
    return _BY_REASON.get(problem.reason) or _STATUS.get(problem.code, 500)


def render(problem: Problem, request_id: str, trace_id: str) -> tuple[int, bytes]:
    """The status and the document."""
    status = status_of(problem)
    document: dict[str, Any] = {
        "type": f"urn:recoup:error:{problem.reason_name.lower().replace('_', '-')}",
        "title": _TITLES.get(status, "Something went wrong"),
        "status": status,
        "detail": problem.message,
        "reason": problem.reason_name,
        "metadata": dict(problem.metadata),
        "requestId": request_id,
        "traceId": trace_id,
    }
    if problem.field_violations:
        document["violations"] = [
            {"field": each.field, "description": each.description} for each in problem.field_violations
        ]
    # A surrogate of a caller's text that got this far is written as JSON's own escape for it.
    return status, json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")


def render_scim(problem: Problem) -> tuple[int, str, bytes]:
    """Status, media type and document by the error schema of SCIM 2.0 (RFC 7644, 3.12).

    A reason that belongs to SCIM alone says its `scim_type` in its metadata.
    """
    status = status_of(problem)
    document = {"schemas": [_SCIM_ERROR], "status": str(status), "detail": problem.message}
    kind = problem.metadata.get("scim_type", _SCIM_TYPES.get(problem.reason, ""))
    if kind and status == 400:
        document["scimType"] = kind
    return status, SCIM_MEDIA_TYPE, json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")


def step_up(problem: Problem) -> list[tuple[bytes, bytes]]:
    """The challenge of RFC 9470 where another session of the same person could do it; else nothing.

    The status stays 403, unlike there: the session itself is good, and nobody should drop it.
    """
    if problem.reason == Reason.ERROR_REASON_ASSURANCE_TOO_LOW:
        wanted = f'acr_values="aal{problem.metadata.get("required_aal", "2")}"'
    elif problem.reason == Reason.ERROR_REASON_REAUTHENTICATION_REQUIRED:
        wanted = f'max_age="{problem.metadata.get("max_auth_age_seconds", "0")}"'
    else:
        return []
    return [(b"www-authenticate", f'Bearer error="insufficient_user_authentication", {wanted}'.encode())]
