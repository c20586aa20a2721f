"""Writes AWS error answers in the shape and with the code that each protocol's real service uses.

It decides nothing; it only knows how a refusal looks on the wire.
"""

from __future__ import annotations

import json
from uuid import uuid4
from xml.sax.saxutils import escape

from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.wire import Answer


def error_answer(call: Call, status: int, code: str, message: str) -> Answer:
    """An error of the given HTTP status, AWS error code and message, in the call's protocol."""
    request_id = str(uuid4())
    if call.protocol == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code>"
            f"<Message>{escape(message)}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        )
    elif call.protocol == "query":
        fault = "Receiver" if status >= 500 else "Sender"
        body = (
            f"<ErrorResponse><Error><Type>{fault}</Type><Code>{code}</Code>"
            f"<Message>{escape(message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    elif call.protocol == "cbor":
        headers = (("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor"))
        return Answer(status, _cbor_error(code, message), headers)
    elif call.service == "s3":
        body = (
            f"<Error><Code>{code}</Code><Message>{escape(message)}</Message><RequestId>{request_id}</RequestId></Error>"
        )
    else:
        text = json.dumps({"__type": code, "message": message}).encode("utf-8")
        return Answer(status, text, (("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)))
    document = '<?xml version="1.0" encoding="UTF-8"?>\n' + body
    return Answer(status, document.encode("utf-8"), (("Content-Type", "text/xml;charset=UTF-8"),))


def denied(call: Call, arn: str, reason: str) -> Answer:
    """The service's own word for "not authorized": EC2 says UnauthorizedOperation, the others AccessDenied."""
    if call.protocol == "ec2":
        message = "You are not authorized to perform this operation. "
        message += f"User: {arn} is not authorized to perform: {call.name} {reason}"
        return error_answer(call, 403, "UnauthorizedOperation", message)
    code = "AccessDeniedException" if call.protocol in ("json", "cbor") else "AccessDenied"
    return error_answer(call, 403, code, f"User: {arn} is not authorized to perform: {call.name} {reason}")


def unknown_key(call: Call) -> Answer:
    """The access key id exists nowhere."""
    if call.protocol == "ec2":
        return _auth_failure(call)
    if call.service == "s3":
        message = "The AWS Access Key Id you provided does not exist in our records."
        return error_answer(call, 403, "InvalidAccessKeyId", message)
    message = "The security token included in the request is invalid."
    code = "UnrecognizedClientException" if call.protocol in ("json", "cbor", "rest") else "InvalidClientTokenId"
    return error_answer(call, 400 if code.startswith("Un") else 403, code, message)


def wrong_signature(call: Call) -> Answer:
    """The key is known but the signature isn't made with its secret (or the clock is off by 15 minutes)."""
    if call.protocol == "ec2":
        return _auth_failure(call)
    message = "The request signature we calculated does not match the signature you provided."
    return error_answer(call, 403, "SignatureDoesNotMatch", message)


def expired(call: Call) -> Answer:
    """The session's credentials have expired: EC2 says RequestExpired, the others ExpiredToken."""
    if call.protocol == "ec2":
        return error_answer(call, 400, "RequestExpired", "Request has expired.")
    code = "ExpiredTokenException" if call.protocol in ("json", "cbor") else "ExpiredToken"
    message = "The security token included in the request is expired"
    return error_answer(call, 400 if call.service == "s3" else 403, code, message)


def throttled(call: Call, status: int | None = None) -> Answer:
    """The protocol's own throttling answer; `status` overrides the HTTP status (e.g. 429)."""
    if call.protocol == "ec2":
        return error_answer(call, status or 503, "RequestLimitExceeded", "Request limit exceeded.")
    if call.service == "s3":
        return error_answer(call, status or 503, "SlowDown", "Please reduce your request rate.")
    code = "Throttling" if call.protocol == "query" else "ThrottlingException"
    return error_answer(call, status or 400, code, "Rate exceeded")


def internal_error(call: Call, status: int) -> Answer:
    """A failure on the provider's side."""
    return error_answer(call, status, "InternalError", "An internal error has occurred")


def _auth_failure(call: Call) -> Answer:
    message = "AWS was not able to validate the provided access credentials"
    return error_answer(call, 401, "AuthFailure", message)


def _cbor_error(code: str, message: str) -> bytes:
    def text(value: str) -> bytes:
        raw = value.encode("utf-8")[:65535]
        return b"\x79" + len(raw).to_bytes(2, "big") + raw

    return b"\xa2" + text("__type") + text(code) + text("message") + text(message)
