"""Errors as RFC 9457 problem documents: for every answer that isn't a success, also of the edge itself."""

from __future__ import annotations

import json
import re
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
    Reason.ERROR_REASON_REQUEST_ID_REUSED: 422,
    Reason.ERROR_REASON_REQUEST_TOO_SLOW: 408,
    Reason.ERROR_REASON_HEADERS_TOO_LARGE: 431,
}
_SCIM_TYPES = {
    Reason.ERROR_REASON_FIELD_INVALID: "invalidValue",
    Reason.ERROR_REASON_FIELD_UNKNOWN: "invalidSyntax",
    Reason.ERROR_REASON_BODY_MALFORMED: "invalidSyntax",
}
# RFC 6750: printable ASCII without quotation mark and backslash.
_NOT_QUOTABLE = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
_TITLES = {
    400: "The request can't be done as it is",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    412: "Changed in between",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not the request of that key",
    429: "Too many requests",
    431: "Headers too large",
    500: "Something went wrong on our side",
    503: "Not available right now",
    504: "It took too long",
}


def status_of(problem: Problem, *, is_conditional: bool = False) -> int:
    """The HTTP status of a problem; 412 of an etag that came by If-Match."""
    if is_conditional and problem.reason == Reason.ERROR_REASON_ETAG_MISMATCH:
        return 412
    return _BY_REASON.get(problem.reason) or _STATUS.get(problem.code, 500)


def challenge(problem: Problem) -> str:
    """What `WWW-Authenticate` says of a refusal (RFC 6750, section 3; RFC 9470, section 3); empty where another
    credential helps nothing. Where another session of the same person would do, the status stays 403, unlike in RFC
    9470: the one that came is good, and nobody should drop it.
    """
    if problem.reason == Reason.ERROR_REASON_CREDENTIAL_MISSING:
        return _bearer()  # Who sent no credential is told no error of one.
    if problem.reason == Reason.ERROR_REASON_ASSURANCE_TOO_LOW:
        wanted = {"acr_values": f"aal{problem.metadata.get('required_aal', '2')}"}
        return _bearer("insufficient_user_authentication", problem.message, **wanted)
    if problem.reason == Reason.ERROR_REASON_REAUTHENTICATION_REQUIRED:
        most = problem.metadata.get("max_auth_age_seconds", "0")
        return _bearer("insufficient_user_authentication", problem.message, max_age=most)
    if problem.code is grpc.StatusCode.UNAUTHENTICATED:
        return _bearer("invalid_token", problem.message)
    if problem.reason == Reason.ERROR_REASON_PERMISSION_MISSING:
        return _bearer("insufficient_scope", problem.message, scope=problem.metadata.get("permission", ""))
    return ""


def _bearer(error: str = "", description: str = "", **more: str) -> str:
    """A challenge whose texts are cut to what a quoted string of RFC 6750 may hold."""
    given = {"realm": "recoup", "error": error, "error_description": description, **more}
    parts = (f'{name}="{_NOT_QUOTABLE.sub("", value)}"' for name, value in given.items() if value)
    return f"Bearer {', '.join(parts)}"


def retry_after(problem: Problem, status: int) -> str:
    """When it may be asked again, in seconds; empty where that changes nothing."""
    if status in (429, 503) or problem.reason == Reason.ERROR_REASON_REQUEST_IN_FLIGHT:
        given = problem.metadata.get("retry_after_seconds", "")
        return given if given.isascii() and given.isdecimal() else "1"
    return ""


def render(problem: Problem, request_id: str, trace_id: str, *, is_conditional: bool = False) -> tuple[int, bytes]:
    """The status and the document."""
    status = status_of(problem, is_conditional=is_conditional)
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
