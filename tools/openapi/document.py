"""The description itself: paths from the edge's own routes, so that it can't say anything else than what is served."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from recoup.errors.v1.error_reason_pb2 import ErrorReason
from recoup.services import SERVICES
from services._mesh.descriptors import Effect, Scope
from services.gateway import cookies
from services.gateway.bindings import EVERYTHING, Route
from services.gateway.routes import Router
from services.gateway.shapes import find_field, has_text
from tools.openapi.schemas import Schema, Schemas, is_required

_ABOUT = (
    "What Recoup serves over REST, generated from its protos. Numbers of 64 bits are text. An unknown field or"
    " parameter is refused by name. Errors are problem documents (RFC 9457) whose `reason` is one of the list; 429 and"
    " 503 say when to come again (`Retry-After`), and `RateLimit` what is left. In a path `-` stands for the"
    " organization that `Recoup-Organization` names, or for the one that the person is in. Provisioning (SCIM) and"
    " single sign-on (SAML) are served by their own protocols and aren't described here."
)
_SCHEMES: Schema = {
    "session": {"type": "http", "scheme": "bearer", "description": "A session, or an API token."},
    "browserSession": {
        "type": "apiKey",
        "in": "cookie",
        "name": cookies.NAME,
        "description": "A browser's session, made of a session token. A bearer token beside it wins.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "Recoup-Csrf",
        "description": "With the cookie, for a change: what answers to GET say in this header.",
    },
}
_READS: list[Schema] = [{"session": []}, {"browserSession": []}]
_CHANGES: list[Schema] = [{"session": []}, {"browserSession": [], "csrf": []}]
# How deep parameters of messages within messages are listed.
_DEEPEST = 3
_REFUSALS = {
    "400": "What was sent can't be done as it is.",
    "401": "Sign in first.",
    "403": "Not allowed.",
    "404": "There is no such thing, or not for who asks.",
    "409": "Somebody else was faster, it is there already, or the same request is being worked on.",
    "413": "Too large.",
    "415": "Another media type or coding than is taken.",
    "422": "The idempotency key was used for another request.",
    "429": "Too many requests.",
    "500": "Something went wrong on our side.",
    "503": "Not available right now.",
    "504": "It took too long.",
}


def document(comments: Mapping[str, str]) -> Schema:
    """The description as JSON has it."""
    routes = Router([(process, each) for process, services in SERVICES.items() for each in services]).routes
    schemas = Schemas(comments)
    paths: dict[str, Schema] = {}
    tags: dict[str, str] = {}
    counted: dict[str, int] = {}
    for route in routes:
        service = route.rule.descriptor.containing_service
        tags.setdefault(service.name, comments.get(service.full_name, ""))
        name = f"{service.name}_{route.rule.method}"
        counted[name] = counted.get(name, 0) + 1
        operation = _operation(route, schemas, comments)
        operation["operationId"] = name if counted[name] == 1 else f"{name}{counted[name]}"
        paths.setdefault(_path(route), {})[route.http_method.lower()] = operation
    bodies = [each.get("requestBody", {}) for operations in paths.values() for each in operations.values()]
    schemas.require_what_answers_have({"bodies": bodies})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Recoup", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": _READS,
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": _SCHEMES,
            "responses": {
                f"Refused{status}": _answer(text, "application/problem+json", {"$ref": "#/components/schemas/Problem"})
                for status, text in (*_REFUSALS.items(), ("412", "The etag isn't the current one."))
            },
            "schemas": {**dict(sorted(schemas.components.items())), "Problem": _problem()},
        },
    }


def _path(route: Route) -> str:
    return re.sub(r"\{([^{}=]+)=[^{}]*\}", r"{\1}", route.template)


def _operation(route: Route, schemas: Schemas, comments: Mapping[str, str]) -> Schema:
    taken = route.rule.descriptor.input_type
    text = comments.get(f"{route.rule.descriptor.containing_service.full_name}.{route.rule.method}", "")
    summary = re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(".:")
    made: Schema = {"tags": [route.rule.descriptor.containing_service.name], "summary": summary, "description": text}
    parameters = [*_path_parameters(route, schemas), *_header_parameters(route)]
    if route.body != EVERYTHING:
        parameters += _query_parameters(taken, schemas, {*route.variables, route.body}, "", _DEEPEST)
    if parameters:
        made["parameters"] = parameters
    if route.body:
        made["requestBody"] = _body(route, schemas)
    made["responses"] = _responses(route, schemas)
    if route.rule.scope is Scope.PUBLIC:
        made["security"] = []
    elif route.rule.effect is Effect.WRITE or route.http_method != "GET":
        made["security"] = _CHANGES
    if route.rule.permission:
        made["x-recoup-permission"] = route.rule.permission
    if route.notices:
        made["deprecated"] = True
    return made


def _path_parameters(route: Route, schemas: Schemas) -> Iterator[Schema]:
    for name in route.variables:
        schema = schemas.field(_at(route.rule.descriptor.input_type, name))
        if name == "organization_id":
            schema = {"anyOf": [{"type": "string", "format": "uuid"}, {"const": "-"}]}
        elif "minLength" not in schema:
            schema["minLength"] = 1
        yield _parameter(name, "path", schema, is_needed=True)


def _query_parameters(
    descriptor: Descriptor, schemas: Schemas, without: set[str], prefix: str, depth: int
) -> Iterator[Schema]:
    for field in descriptor.fields:
        name = f"{prefix}{field.json_name}"
        if f"{prefix}{field.name}" in without or not depth:
            continue
        if field.message_type is None or has_text(field):
            yield _parameter(name, "query", schemas.field(field), is_needed=is_required(field))
        elif not field.is_repeated:
            yield from _query_parameters(field.message_type, schemas, set(), f"{name}.", depth - 1)


def _header_parameters(route: Route) -> Iterator[Schema]:
    fields = route.rule.descriptor.input_type.fields_by_name
    if "organization_id" in route.variables and route.rule.scope is Scope.ORGANIZATION:
        text = "The organization, where the path has `-`."
        yield _parameter("Recoup-Organization", "header", {"type": "string", "format": "uuid", "description": text})
    if route.rule.effect is Effect.WRITE and "request_id" in fields:
        text = "Makes the call safe to repeat; the same as `requestId`."
        yield _parameter("Idempotency-Key", "header", {"type": "string", "format": "uuid", "description": text})
    if "etag" in fields:
        text = "The `ETag` that was read; instead of `etag`."
        yield _parameter("If-Match", "header", {"type": "string", "pattern": '^"[^"]+"$', "description": text})
    if route.http_method == "GET" and not route.rule.response_streaming:
        text = "The `ETag` of an answer that is there already: 304 while it is good."
        yield _parameter("If-None-Match", "header", {"type": "string", "description": text})


def _parameter(name: str, place: str, schema: Schema, *, is_needed: bool = False) -> Schema:
    text = schema.pop("description", "")
    made: Schema = {"name": name, "in": place, "schema": schema}
    if text:
        made["description"] = text
    return {**made, "required": True} if is_needed else made


def _at(descriptor: Descriptor, path: str) -> FieldDescriptor:
    first, _, rest = path.partition(".")
    field = find_field(descriptor, first)
    assert field is not None
    if not rest:
        return field
    assert field.message_type is not None
    return _at(field.message_type, rest)


def _body(route: Route, schemas: Schemas) -> Schema:
    taken = route.rule.descriptor.input_type
    if route.body == EVERYTHING:
        schema = schemas.object(taken, frozenset(route.variables))
    else:
        schema = schemas.field(taken.fields_by_name[route.body])
    return {"content": {"application/json": {"schema": schema}}, "required": bool(schema.get("required"))}


def _responses(route: Route, schemas: Schemas) -> Schema:
    made = {status: {"$ref": f"#/components/responses/Refused{status}"} for status in _REFUSALS}
    if route.rule.scope is Scope.PUBLIC:
        del made["403"]
    if "etag" in route.rule.descriptor.input_type.fields_by_name:
        made["412"] = {"$ref": "#/components/responses/Refused412"}
    if route.http_method == "GET" and not route.rule.response_streaming:
        made["304"] = {"description": "The caller has it already."}
    return dict(sorted({"200": _success(route, schemas), **made}.items()))


def _success(route: Route, schemas: Schemas) -> Schema:
    answered = route.rule.descriptor.output_type
    if route.response_body:
        field = answered.fields_by_name[route.response_body]
        if field.message_type is not None and field.message_type.full_name == HttpBody.DESCRIPTOR.full_name:
            return {"description": "As it is.", "content": {"application/octet-stream": {}, "text/plain": {}}}
        return _answer("The answer.", "application/json", schemas.field(field))
    schema = schemas.reference(answered)
    if not route.rule.response_streaming:
        return _answer("The answer.", "application/json", schema)
    text = "One answer after the other; what breaks the stream is a last line `error`, or an event `problem`."
    return {"description": text, "content": {name: {"schema": schema} for name in _STREAMS}}


_STREAMS = ("application/x-ndjson", "text/event-stream")


def _answer(text: str, media_type: str, schema: Schema) -> Schema:
    return {"description": text, "content": {media_type: {"schema": schema}}}


def _problem() -> Schema:
    reasons = [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number]
    text: dict[str, Any] = {"type": "string"}
    return {
        "type": "object",
        "description": "Why a request wasn't done (RFC 9457).",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "reason": {**text, "enum": reasons},
            "metadata": {"type": "object", "additionalProperties": text},
            "requestId": text,
            "traceId": text,
            "violations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"field": text, "description": text},
                    "required": ["field", "description"],
                },
            },
        },
        "required": ["type", "title", "status", "detail", "reason", "metadata", "requestId", "traceId"],
    }
