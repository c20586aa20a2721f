"""The published cases of how requests are written as HTTP: each arrives as the message that it was."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.gateway import transcode
from services.gateway.routes import Route, Router
from services.gateway.shapes import Shapes
from tests.support.transcoding import descriptors

SHARED = Path(os.environ.get("RECOUP_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
SUITE = SHARED / "rest" / "compliance_suite.json"
PROTO = descriptors("compliance.proto")
ROUTER = Router([("test", PROTO.services_by_name["Compliance"])])


def cases() -> Iterator[tuple[str, str, Message]]:
    """The name of a case, the RPC, the request."""
    suite: Any = GetMessageClass(PROTO.message_types_by_name["Suite"])()
    json_format.ParseDict(json.loads(SUITE.read_text()), suite)
    for group in suite.group:
        for rpc in group.rpcs:
            for request in group.requests:
                yield f"{rpc}: {request.name}", rpc.rpartition(".")[2], request


def test_published_cases_arrive_as_they_were_sent() -> None:
    if not SUITE.exists():
        pytest.skip(f"no shared data at {SUITE}")
    count = 0
    for name, rpc, request in cases():
        route = binding(rpc, request)
        path, query, body = sent(route, request)
        found = ROUTER.find(route.http_method, path)
        assert isinstance(found, tuple), (name, path)
        assert found[0] is route, (name, path)
        arrived = transcode.build_request(*found, transcode.parse_query(query.encode()), body, 32)
        assert arrived == request, name
        answered: Any = GetMessageClass(PROTO.message_types_by_name["RepeatResponse"])(request=request)
        document = json.loads(transcode.render(route, answered))
        Shapes().check_object(document, answered.DESCRIPTOR)  # Rounds floats as protobuf's own parser won't.
        assert json_format.ParseDict(document, type(answered)()) == answered, name
        count += 1
    assert count == 53


def binding(rpc: str, request: Any) -> Route:
    """The binding that a client takes: the one that is asked for, else the first whose path the request fits."""
    routes = [route for route in ROUTER.routes if route.rule.method == rpc]
    if request.intended_binding_uri:
        return next(route for route in routes if route.template == request.intended_binding_uri)
    return routes[0]


def sent(route: Route, request: Message) -> tuple[str, str, bytes]:
    """Path, query and body, as a client that knows the binding writes them."""
    document: dict[str, Any] = json_format.MessageToDict(
        request, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    path = route.template
    for variable in route.pattern.variables:
        value = taken(document, variable.path.split("."))
        safe = "" if variable.is_single else "/"
        path = re.sub(rf"{{{re.escape(variable.path)}(=[^{{}}]*)?}}", lambda _, v=value, s=safe: quote(v, s), path)
    body = b""
    if route.body == "*":
        body, document = json.dumps(document).encode(), {}
    elif route.body:
        body = json.dumps(document.pop(route.body)).encode()
    return path, urlencode(list(flat(document, ""))), body


def taken(document: dict[str, Any], path: list[str]) -> str:
    for parent in path[:-1]:
        document = document[parent]
    return written(document.pop(path[-1]))


def flat(document: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, written(value)


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
