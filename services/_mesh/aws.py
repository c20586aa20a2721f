"""Makes AWS clients with deadlines and says what a failed call means.

The only place that knows botocore's exceptions. It must not retry a call that may have changed something: whether a
lost answer means a lost change is for the caller to find out by reading.
"""

from __future__ import annotations

import enum
import functools
import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
)
from opentelemetry.trace import SpanKind, StatusCode

from services._mesh import telemetry
from services._mesh.aws_settings import AwsCredentials, AwsSettings

# The SDK gives up well before the deadline of the thread that it runs in (see threads.py).
CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 20
CALL_DEADLINE_SECONDS = 60.0

_SPAN = "recoup_span"
_MAX_CODE = 64

_THROTTLES = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "EC2ThrottledException",
    }
)
_DENIALS = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "OptInRequired"})


class Failure(enum.StrEnum):
    """What a failed call means for the caller."""

    DENIED = "DENIED"  # Not allowed; asking again won't help.
    THROTTLED = "THROTTLED"  # Refused for its rate; certainly not applied.
    REFUSED = "REFUSED"  # Refused for another reason; certainly not applied.
    UNREACHABLE = "UNREACHABLE"  # Never sent; certainly not applied.
    AMBIGUOUS = "AMBIGUOUS"  # Sent, and the answer is lost or is a server error: perhaps applied.


def classify(error: Exception) -> tuple[Failure, str]:
    """What a botocore exception means, and the cloud's error code (or the exception's name where there is none)."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", "Unknown"))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _THROTTLES or status == 429:
            return Failure.THROTTLED, code
        if code in _DENIALS:
            return Failure.DENIED, code
        return (Failure.AMBIGUOUS if status >= 500 else Failure.REFUSED), code
    name = type(error).__name__
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):
        return Failure.UNREACHABLE, name
    if isinstance(error, ParamValidationError):
        return Failure.REFUSED, name
    if isinstance(error, (BotoCoreError, TimeoutError, OSError)):
        return Failure.AMBIGUOUS, name
    raise error


def client(
    service: str, region: str, settings: AwsSettings, credentials: AwsCredentials | None, *, changes_state: bool = False
) -> Any:
    """A boto3 client. One that changes state never retries; one that reads retries four times, adaptively.

    Without credentials, and only so, the SDK looks for the machine's own: for the operator's storage, and to assume a
    tenant's roles, with its external id, where it gave no key.

    Untyped because botocore builds its classes at run time; callers narrow what comes back.
    """
    retries: Any = {"total_max_attempts": 1} if changes_state else {"total_max_attempts": 5, "mode": "adaptive"}
    with _making_a_client:
        made = _models().client(
            service,  # type: ignore[call-overload]  # The name isn't a literal here.
            region_name=region,
            endpoint_url=settings.endpoint_url or None,
            aws_access_key_id=credentials.access_key_id if credentials else None,
            aws_secret_access_key=credentials.secret_access_key if credentials else None,
            aws_session_token=(credentials.session_token or None) if credentials else None,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=READ_TIMEOUT_SECONDS,
                retries=retries,
                max_pool_connections=8,
                # The emulator serves buckets under its own address only; AWS accepts both styles.
                s3={"addressing_style": "path"} if settings.endpoint_url else None,
            ),
        )
    for event, note in (("before-call", _began), ("after-call", _answered), ("after-call-error", _unanswered)):
        made.meta.events.register(event, note)
    return made


def _began(model: Any, context: dict[str, Any], **_: Any) -> None:
    """The span of a call, with its retries. Its parameters are a tenant's, so that nothing is said of them."""
    service = str(model.service_model.service_id)
    context[_SPAN] = telemetry.active().start_span(
        f"{service} {model.name}",
        kind=SpanKind.CLIENT,
        attributes={"rpc.system": "aws-api", "rpc.service": service, "rpc.method": model.name},
    )


def _answered(http_response: Any, parsed: Any, context: dict[str, Any], **_: Any) -> None:
    code = str(parsed.get("Error", {}).get("Code", "Unknown"))[:_MAX_CODE] if http_response.status_code >= 400 else ""
    # That there is no such thing is what is asked for after a deletion.
    _end(context, "" if code.endswith(".NotFound") else code)


def _unanswered(exception: Exception, context: dict[str, Any], **_: Any) -> None:
    _end(context, type(exception).__name__)


def _end(context: dict[str, Any], failure: str) -> None:
    span = context.pop(_SPAN, None)
    if span is not None:
        if failure:
            span.set_status(StatusCode.ERROR, failure)
        span.end()


# Making clients isn't thread-safe (boto3, "Multithreading or multiprocessing with sessions"); using them is.
_making_a_client = threading.Lock()


@functools.cache
def _models() -> boto3.session.Session:
    """One session for the process, which reads each service's model once; it holds no credential, clients do."""
    return boto3.session.Session()
