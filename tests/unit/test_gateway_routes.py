"""Routes are decided at the start: the grammar of templates, what is refused, and what a look-up costs."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from services._mesh.errors import Invalid
from services.gateway import templates, transcode
from services.gateway.routes import RouteError, Router
from tests.support.transcoding import descriptors

PROTO = descriptors("everything.proto")
ECHO, ANSWER = (PROTO.services_by_name[name] for name in ("EchoService", "AnswerService"))
ROUTER = Router([("test", ECHO), ("test", ANSWER)])
Everything, Held = (GetMessageClass(PROTO.message_types_by_name[name]) for name in ("Everything", "Held"))
_made = iter(range(10_000))


def service(
    *routes: dict[str, Any], takes: str = "Everything", answers: str = "Everything", **how: Any
) -> ServiceDescriptor:
    """A service whose RPCs have these bindings."""
    name = f"recoup.routes{next(_made)}.v1"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.dependency.extend([PROTO.name, "google/api/annotations.proto", "google/api/httpbody.proto"])
    full = {
        "Everything": f".{PROTO.package}.Everything",
        "HttpBody": ".google.api.HttpBody",
        "Held": f".{PROTO.package}.Held",
    }
    made = file.service.add(name="RouteService")
    for number, route in enumerate(routes):
        method = made.method.add(name=f"Call{number}", input_type=full[takes], output_type=full[answers], **how)
        method.options.Extensions[annotations_pb2.http].CopyFrom(http_pb2.HttpRule(**route))
    descriptor_pool.Default().Add(file)
    return descriptor_pool.Default().FindFileByName(file.name).services_by_name["RouteService"]


BROKEN = [
    "v1/x",
    "",
    "/",
    "/v1//x",
    "/v1/",
    "/v1/{x",
    "/v1/x}",
    "/v1/a*b",
    "/v1/{text=}",
    "/v1/{Text}",
    "/v1/**/x",
    "/v1/{text=**}/x",
]
BROKEN += [
    "/v1/{text}{own_name}",
    "/v1/x{text}",
    "/v1/{text}/{text}",
    "/v1/x:",
    "/v1/x:a/b",
    "/v1/../x",
    "/v1/a b",
    "/v1/%41",
]


@pytest.mark.parametrize("template", BROKEN)
def test_a_broken_template_is_refused_at_the_start(template: str) -> None:
    with pytest.raises(RouteError):
        Router([("test", service({"get": template}))])


UNSERVABLE: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([{"get": "/v1/{nope}"}], {}, "binds nope"),
    ([{"get": "/v1/{child.nope}"}], {}, "binds child.nope"),
    ([{"get": "/v1/{text.nope}"}], {}, "binds text.nope"),
    ([{"get": "/v1/{children.text}"}], {}, "binds children.text"),
    ([{"get": "/v1/{child}"}], {}, "isn't one plain value"),
    ([{"get": "/v1/{time}"}], {}, "isn't one plain value"),
    ([{"get": "/v1/{texts}"}], {}, "isn't one plain value"),
    ([{"get": "/v1/{by_text}"}], {}, "isn't one plain value"),
    ([{"get": "/v1/x", "body": "*"}], {}, "a body with GET"),
    ([{"post": "/v1/x", "body": "nope"}], {}, "takes the body as nope"),
    ([{"post": "/v1/x", "body": "child.text"}], {}, "takes the body as child.text"),
    ([{"get": "/v1/x", "response_body": "nope"}], {}, "answers nope"),
    ([{"custom": {"kind": "HEAD", "path": "/v1/x"}}], {}, "only get, put"),
    ([{"post": "/v1/x"}], {"client_streaming": True}, "streams requests"),
    ([{"post": "/v1/x", "body": "*"}], {"takes": "HttpBody"}, "bodies as they come"),
    ([{"get": "/v1/x"}], {"answers": "HttpBody", "server_streaming": True}, "streams google.api.HttpBody"),
    ([{"post": "/v1/x", "body": "*"}], {"takes": "Held"}, "a message of any type"),
    ([{"get": "/v1/x"}], {"answers": "Held"}, "a message of any type"),
    ([{"get": "/healthz"}], {}, "the edge answers itself"),
    # The same requests, in other words.
    ([{"get": "/v1/{text}"}, {"get": "/v1/{own_name}"}], {}, "both serve"),
    ([{"get": "/v1/{text=a/*}"}, {"get": "/v1/a/{text}"}], {}, "both serve"),
    ([{"get": "/v1/*"}, {"get": "/v1/{text=*}"}], {}, "both serve"),
    ([{"get": "/v1/**"}, {"get": "/v1/{text=**}"}], {}, "both serve"),
    ([{"get": "/v1/{text}:go"}, {"get": "/v1/{own_name}:go"}], {}, "both serve"),
    ([{"get": "/v1/x", "additional_bindings": [{"get": "/v1/x"}]}], {}, "both serve"),
]


@pytest.mark.parametrize(
    ("routes", "how", "why"), UNSERVABLE, ids=[f"{why} {each}"[:60] for each, _, why in UNSERVABLE]
)
def test_what_cannot_be_served_or_reached_is_refused_at_the_start(routes: Any, how: dict[str, Any], why: str) -> None:
    with pytest.raises(RouteError, match=why):
        Router([("test", service(*routes, **how))])


@pytest.mark.parametrize(
    ("method", "path", "rpc", "values"),
    [
        ("GET", "/v1/one/literal", "OneLiteral", {}),
        ("HEAD", "/v1/one/literal", "OneLiteral", {}),
        ("GET", "/v1/one/other", "One", {"text": "other"}),
        # Another method's literal doesn't hide it.
        ("DELETE", "/v1/one/literal", "Remove", {"text": "literal"}),
        ("GET", "/v1/one/a:go", "OneVerb", {"text": "a"}),
        ("GET", "/v1/one/a:b:go", "OneVerb", {"text": "a:b"}),
        ("GET", "/v1/one/a:other", "One", {"text": "a:other"}),
        ("GET", "/v1/one/a%3Ago", "One", {"text": "a:go"}),
        ("GET", "/v1/one/a%252Fb", "One", {"text": "a%2Fb"}),
        ("GET", "/v1/one/a%2Fb", "One", {"text": "a/b"}),
        ("GET", "/v1/one/*", "One", {"text": "*"}),
        ("GET", "/v1/many", "Many", {"text": ""}),
        ("GET", "/v1/many/a/b%2Fc%2fd/%C3%A9", "Many", {"text": "a/b%2Fc%2fd/é"}),
        ("GET", "/v1/many/files/a/b:read", "Many", {"text": "files/a/b"}),
        ("PATCH", "/v1/parents/a/children/b", "Whole", {"child.text": "parents/a", "child.child.text": "children/b"}),
        ("GET", "/v1/wild/a/x/b/c", "Wild", {}),
    ],
)
def test_the_most_specific_route_is_found_and_its_variables_decoded_once(
    method: str, path: str, rpc: str, values: dict[str, str]
) -> None:
    found = ROUTER.find(method, path)
    assert isinstance(found, tuple)
    assert (found[0].rule.method, found[1]) == (rpc, values)


def test_a_path_of_other_methods_names_them_all() -> None:
    assert ROUTER.find("PUT", "/v1/one/literal") == ["DELETE", "GET", "HEAD"]
    assert ROUTER.find("GET", "/v1/whole") == ["POST"]
    assert (
        ROUTER.find("GET", "/v1/nothing") == ROUTER.find("GET", "/v1/one/x/") == ROUTER.find("GET", "//v1/one/x") == []
    )


@pytest.mark.parametrize(
    "path", ["/v1/one/..", "/v1/one/%2E%2e", "/v1/many/a/../b", "/v1/one/.", "/v1/one/%", "/v1/one/%g0", "v1"]
)
def test_a_path_that_others_may_read_as_another_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must"):
        ROUTER.find("GET", path)


def test_a_look_up_costs_the_same_among_many_routes() -> None:
    def calls(count: int) -> int:
        routes = [{"get": f"/v1/things{number}/{{text}}/parts/{{own_name}}:go"} for number in range(count)]
        router = Router([("test", service(*routes))])
        made = 0

        def count_call(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(count_call)
        try:
            found = router.find("GET", f"/v1/things{count - 1}/a/parts/b:go")
            missing = router.find("GET", "/v1/things/a/parts/b:go")
        finally:
            sys.setprofile(None)
        assert isinstance(found, tuple)
        assert missing == []
        return made

    assert calls(2) == calls(2000)


def test_templates_keep_what_their_variables_take() -> None:
    parsed = templates.parse("/v1/{text=shelves/*}/{own_name}/{child.text=**}:go")
    assert parsed.segments == ("v1", "shelves", "*", "*", "**")
    assert [(each.path, each.start, each.end, each.is_single) for each in parsed.variables] == [
        ("text", 1, 3, False),
        ("own_name", 3, 4, True),
        ("child.text", 4, None, False),
    ]


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/answer:child", {"child": {"text": "x"}}, {"text": "x", "number": 0, "texts": [], "weight": 0.0}),
        ("/v1/answer:child", {}, {}),
        ("/v1/answer:children", [{"text": "x"}], [{"text": "x", "number": 0, "texts": [], "weight": 0.0}]),
        ("/v1/answer:children", [], []),
        ("/v1/answer:text", [], ""),
    ],
)
def test_an_answer_may_be_one_field_of_any_kind(path: str, body: Any, answer: Any) -> None:
    found = ROUTER.find("POST", path)
    assert isinstance(found, tuple)
    request = transcode.build_request(*found, [], json.dumps(body).encode(), 32)
    assert json.loads(transcode.render(found[0], request)) == answer


def test_of_two_fields_that_exclude_each_other_the_second_is_named() -> None:
    whole, asked = ROUTER.find("POST", "/v1/whole"), ROUTER.find("GET", "/v1/query")
    assert isinstance(whole, tuple)
    assert isinstance(asked, tuple)
    for found, query, body in (
        (whole, [], b'{"thisText": "a", "thatNumber": 1}'),
        (asked, [("thisText", "a"), ("thatNumber", "1")], b""),
    ):
        with pytest.raises(Invalid) as refused:
            transcode.build_request(*found, query, body, 32)
        assert refused.value.field_violations[0].field in ("thatNumber", "that_number")
        assert "beside" in refused.value.message


def test_an_any_holds_the_messages_that_are_allowed_and_no_other() -> None:
    allowed = frozenset({f"{PROTO.package}.Child", "google.protobuf.Duration"})
    router = Router([("test", service({"post": "/v1/any", "body": "*"}, takes="Held", answers="Held"))], allowed)
    found = router.find("POST", "/v1/any")
    assert isinstance(found, tuple)
    child = {"@type": f"x/{PROTO.package}.Child", "text": "a"}
    for held in (child, {"@type": "x/google.protobuf.Duration", "value": "1s"}):
        body = json.dumps({"more": [{"any": held}]}).encode()
        answer = json.loads(transcode.render(found[0], transcode.build_request(*found, [], body, 32)))
        assert held.items() <= answer["more"][0]["any"].items()
    for refused in ({"@type": f"x/{PROTO.package}.Everything"}, {"text": "a"}, {**child, "nope": 1}, "x"):
        with pytest.raises(Invalid) as why:
            transcode.build_request(*found, [], json.dumps({"more": [{"any": refused}]}).encode(), 32)
        assert why.value.field_violations[0].field.startswith("more[0].any")
    response = Held(more=[Held()])
    response.more[0].any.Pack(Everything())
    with pytest.raises(ValueError, match="Everything isn't allowed"):
        transcode.render(found[0], response)
