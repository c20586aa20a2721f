"""Reads from the descriptors which HTTP requests the gateway hands on as they are, and what is wrong with such a rule.

A rule is refused when the process starts, at the gateway and at the service that serves the RPC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, MethodDescriptor

from recoup.mesh.v1 import access_pb2, forward_pb2

_PREFIX = re.compile(r"(/[a-z0-9._-]+)+")
_COOKIE = re.compile(r"__Host-[a-z0-9-]+")
_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH"})
# As HttpRequest limits it.
_MOST_BODY_BYTES = 2 * 1024 * 1024
_NEVER_IN = frozenset({"authorization", "cookie", "content-length", "host", "connection", "transfer-encoding"})
# What the edge says itself, or what would change how the connection or the browser treats all that follows.
_NEVER_OUT = frozenset(
    {
        *("content-type", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"),
        *("strict-transport-security", "content-security-policy", "x-content-type-options", "referrer-policy"),
        *("set-cookie", "cache-control", "x-request-id", "traceresponse", "www-authenticate", "server", "te"),
    }
)


@dataclass(frozen=True)
class ForwardRule:
    """What an RPC takes of HTTP. `scim_errors`: errors have SCIM's schema, else they are problem documents."""

    prefix: str
    methods: frozenset[str]
    media_types: frozenset[str]
    max_body_bytes: int
    scim_errors: bool
    needs_bearer: bool
    request_headers: tuple[str, ...]
    response_headers: frozenset[str]
    cookie: str


def forward_rule(method: MethodDescriptor) -> ForwardRule | None:
    """The rule of an RPC, or None where nothing is handed to it."""
    options = method.GetOptions()
    if not options.HasExtension(forward_pb2.forward):
        return None
    said = options.Extensions[forward_pb2.forward]
    return ForwardRule(
        said.prefix,
        frozenset(said.methods),
        frozenset(said.media_types),
        said.max_body_bytes,
        said.errors == forward_pb2.FORWARD_ERRORS_SCIM,
        said.credential == forward_pb2.FORWARD_CREDENTIAL_BEARER,
        tuple(said.request_headers),
        frozenset(said.response_headers),
        said.cookie,
    )


def forward_faults(method: MethodDescriptor) -> Iterator[str]:
    """What is wrong with the rule of an RPC, as ends of sentences that start with the RPC's name."""
    rule = forward_rule(method)
    if rule is None:
        return
    said = method.GetOptions().Extensions[forward_pb2.forward]
    if method.GetOptions().Extensions[access_pb2.access].scope != access_pb2.SCOPE_PEER:
        yield "is handed HTTP as it is, which only PEER scope may"
    if (_held(method.input_type), _held(method.output_type)) != _TYPES:
        yield "is handed HTTP as it is, but doesn't take `HttpRequest http` and answer `HttpResponse http`"
    if not _PREFIX.fullmatch(rule.prefix):
        yield f"has the prefix {rule.prefix!r}, which isn't a path of lower case without a last slash"
    if not rule.methods or not rule.methods <= _METHODS:
        yield f"must name HTTP methods of {', '.join(sorted(_METHODS))}"
    if not 0 <= rule.max_body_bytes <= _MOST_BODY_BYTES or bool(rule.max_body_bytes) != bool(rule.media_types):
        yield f"must limit bodies to at most {_MOST_BODY_BYTES} bytes and name their media types, or neither"
    if not said.errors or not said.credential:
        yield "must say how errors are written and which credential is shown"
    if rule.cookie and not _COOKIE.fullmatch(rule.cookie):
        yield f"has the cookie {rule.cookie!r}, whose name doesn't begin with __Host-"
    for name in sorted(_NEVER_IN & set(rule.request_headers) | _NEVER_OUT & rule.response_headers):
        yield f"may not hand on the header {name}"


def _held(message: Descriptor) -> str:
    """The type of a message's field `http`, and of nothing else in it."""
    (name, field) = next(iter(message.fields_by_name.items()), ("", None))
    held = field.message_type if field is not None and name == "http" and len(message.fields) == 1 else None
    return held.full_name if held is not None else ""


_TYPES = (forward_pb2.HttpRequest.DESCRIPTOR.full_name, forward_pb2.HttpResponse.DESCRIPTOR.full_name)
