"""The mesh's errors as typed exceptions, with the documented reason and its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "recoup"


class RecoupError(Exception):
    """A call failed. `reason` is a name of `recoup.errors.v1.ErrorReason` without its prefix, or empty; `request_id` is
    what the call is named by in the services' logs and traces, for whoever looks into it.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str],
        fields: Mapping[str, str],
        request_id: str = "",
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code, self.reason, self.message = code, reason, message
        self.metadata, self.fields, self.request_id = dict(metadata), dict(fields), request_id


class NotFound(RecoupError):
    """Nothing with this id exists, as far as your organization can know."""


class Denied(RecoupError):
    """You may not do this."""


class SignInNeeded(RecoupError):
    """The session isn't accepted (any more)."""


class InvalidRequest(RecoupError):
    """The request itself is wrong; `fields` says which field breaks which rule."""


class WrongState(RecoupError):
    """The resource isn't in a state that allows this."""


class Conflict(RecoupError):
    """Somebody else was faster, or it exists already: read again, then repeat."""


class NotAvailable(RecoupError):
    """A part of the mesh is down, busy or too slow: the same call may succeed later."""


_CLASSES: Mapping[grpc.StatusCode, type[RecoupError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNAUTHENTICATED: SignInNeeded,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: WrongState,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.UNAVAILABLE: NotAvailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: NotAvailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: NotAvailable,
}


def typed(error: grpc.RpcError, request_id: str = "") -> RecoupError:
    """The typed exception behind a failed call, asynchronous or blocking."""
    call: Any = error  # Whatever a call raises is one too.
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info) or detail.Unpack(bad)
    reason = info.reason if info.domain == _DOMAIN else ""
    fields = {violation.field: violation.description for violation in bad.field_violations}
    kind = _CLASSES.get(call.code(), RecoupError)
    return kind(call.code(), reason, call.details() or "", dict(info.metadata), fields, request_id)
