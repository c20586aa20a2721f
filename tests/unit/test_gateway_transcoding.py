"""Routes and transcoding: strict, decided at the start, the same for every message."""

from __future__ import annotations

import json
import time

import pytest

from recoup.audit.v1 import audit_service_pb2
from recoup.identity.v1 import identity_service_pb2
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2
from services._mesh.errors import Invalid, Reason
from services.gateway import templates, transcode
from services.gateway.ratelimit import Limiter
from services.gateway.routes import Route, Router
from services.gateway.shapes import Shapes

ROUTER = Router(
    [
        ("scanner", scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"]),
        ("identity", identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]),
        ("audit", audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]),
    ]
)
ORG = "3dcd07a2-aef7-54d0-b11c-6638c1b15e53"


def found(method: str, path: str) -> tuple[Route, dict[str, str]]:
    answer = ROUTER.find(method, path)
    assert isinstance(answer, tuple), answer
    return answer


def build(method: str, path: str, body: object = None, query: list[tuple[str, str]] | None = None):  # type: ignore[no-untyped-def]
    route, variables = found(method, path)
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return transcode.build_request(route, variables, query or [], raw, 32)


def test_literals_beat_variables_and_verbs_are_split_off() -> None:
    assert found("GET", f"/v1/organizations/{ORG}/scans/x")[0].rule.method == "GetScan"
    assert found("POST", f"/v1/organizations/{ORG}/connections/c:verify")[0].rule.method == "VerifyConnection"
    assert ROUTER.find("POST", f"/v1/organizations/{ORG}/connections/c:explode") == [
        "GET",
        "HEAD",
    ]  # A connection with an odd name.
    assert ROUTER.find("DELETE", f"/v1/organizations/{ORG}/scans") == ["GET", "HEAD", "POST"]
    assert ROUTER.find("GET", "/v2/anything") == []


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/v1/{name=shelves/*}/books", "/v1/shelves/a%2Fb/books", {"name": "shelves/a/b"}),
        ("/v1/{name=files/**}", "/v1/files/a/b%2Fc", {"name": "files/a/b%2Fc"}),
        ("/v1/{a}/{b}:go", "/v1/x%20y/z:go", {"a": "x y", "b": "z"}),
    ],
)
def test_paths_are_decoded_once(template: str, path: str, values: dict[str, str]) -> None:
    route = Route("s", None, "GET", templates.parse(template))  # type: ignore[arg-type]
    decoded = route.values(templates.split(path.removesuffix(":go")))
    # A variable of several segments keeps encoded slashes, one of a single segment decodes everything.
    assert decoded == ({"name": "shelves/a%2Fb"} if "shelves" in template else values)


def test_body_path_and_query_become_one_request() -> None:
    made = build("POST", f"/v1/organizations/{ORG}/scans", {"connectionId": "c", "request_id": "r"})
    assert (made.organization_id, made.connection_id, made.request_id) == (ORG, "c", "r")
    listed = build(
        "GET",
        f"/v1/organizations/{ORG}/events",
        query=[("pageSize", "7"), ("occurred_after", "2026-01-01T00:00:00Z"), ("action", "a")],
    )
    assert (listed.page_size, listed.action, listed.occurred_after.seconds) == (7, "a", 1767225600)
    findings = build("GET", f"/v1/organizations/{ORG}/findings", query=[("state", "FINDING_STATE_RESOLVED")])
    assert findings.state == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"connectionId": "c", "conectionId": "d"}, "conectionId"),
        ({"connectionId": "c", "organizationId": ORG}, "organization_id"),
        (b'{"connectionId": "c", "connectionId": "d"}', "connectionId"),
    ],
)
def test_an_unknown_or_double_field_is_named(body: object, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        build("POST", f"/v1/organizations/{ORG}/scans", body)
    assert refused.value.metadata["field"] == field


def test_a_nested_unknown_field_is_named_with_its_place() -> None:
    body = {"displayName": "x", "awsAccounts": [{"accountId": "1"}, {"acountId": "2"}]}
    with pytest.raises(Invalid) as refused:
        build("POST", f"/v1/organizations/{ORG}/connections", body)
    assert refused.value.metadata["field"] == "awsAccounts[1].acountId"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([("nope", "1")], "nope"),
        ([("page_size.x", "1")], "page_size.x"),
        ([("organization_id", "x")], "organization_id"),
    ],
)
def test_an_unknown_parameter_is_named(query: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        build("GET", f"/v1/organizations/{ORG}/scans", query=query)
    assert refused.value.metadata["field"] == field


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"x"', b"{" * 50 + b"}" * 50, b'{"connectionId": 5}'])
def test_a_body_that_is_not_one_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        build("POST", f"/v1/organizations/{ORG}/scans", body)


def test_a_parameter_given_twice_or_of_the_wrong_type_is_refused() -> None:
    for query in ([("pageSize", "1"), ("pageSize", "2")], [("pageSize", "many")]):
        with pytest.raises(Invalid):
            build("GET", f"/v1/organizations/{ORG}/scans", query=query)


def test_the_limiter_lets_a_burst_through_and_then_the_rate() -> None:
    now = 0.0
    limiter = Limiter(rate=2.0, burst=3, clock=lambda: now)
    assert [limiter.take("a").allowed for _ in range(4)] == [True, True, True, False]
    assert limiter.take("b").allowed
    refused = limiter.take("a")
    assert (refused.remaining, round(refused.retry_after, 3)) == (0, 0.5)
    now = 0.5
    assert limiter.take("a").allowed
    assert not limiter.take("a").allowed


LONG = b"9" * 5000
SURROGATE = b"\\ud800"


@pytest.mark.parametrize(
    ("query", "field", "rule"),
    [
        ([("state", "--1")], "state", "must be one of FINDING_STATE_OPEN"),
        ([("state", "\u00b2")], "state", "must be one of FINDING_STATE_OPEN"),
        ([("state", "9" * 5000)], "state", "must be one of FINDING_STATE_OPEN"),
        ([("state", "3000000000")], "state", "must be one of FINDING_STATE_OPEN"),
        ([("pageSize", "9" * 5000)], "pageSize", "must be a whole number from -2147483648 to 2147483647."),
        ([("pageSize", "\u00b2")], "pageSize", "must be a whole number"),
        ([("pageSize", "1_0")], "pageSize", "must be a whole number"),
        ([("pageSize", "")], "pageSize", "must be a whole number"),
        ([("page_token", "\ud800")], "page_token", "must be text without unpaired surrogates"),
    ],
)
def test_a_parameter_of_another_type_is_named_with_what_it_must_be(
    query: list[tuple[str, str]], field: str, rule: str
) -> None:
    refused = refusal("GET", "/findings", query=query)
    assert refused.reason == Reason.ERROR_REASON_FIELD_INVALID
    assert refused.field_violations[0].field == field
    assert refused.field_violations[0].description.startswith(rule)


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b'{"connectionId": 5}', "connectionId", "must be text."),
        (b'{"connectionId": true}', "connectionId", "must be text."),
        (b'{"connectionId": ["a"]}', "connectionId", "must be text."),
        (b'{"connectionId": ' + LONG + b"}", "connectionId", "must be text."),
        (b'{"connectionId": "' + SURROGATE + b'"}', "connectionId", "must be text without unpaired surrogates"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_it_must_be(body: bytes, field: str, rule: str) -> None:
    refused = refusal("POST", "/scans", body)
    assert refused.reason == Reason.ERROR_REASON_FIELD_INVALID
    assert refused.field_violations[0].field == field
    assert refused.field_violations[0].description.startswith(rule)


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ({"regions": "eu-west-1"}, "regions", "must be a list."),
        ({"regions": ["eu-west-1", None]}, "regions[1]", "must be text."),
        ({"awsAccounts": ["1"]}, "awsAccounts[0]", "must be an object."),
        ({"awsAccounts": [{"accountId": "1"}, {"accountId": 2}]}, "awsAccounts[1].accountId", "must be text."),
    ],
)
def test_a_value_within_is_named_with_its_place(body: object, field: str, rule: str) -> None:
    refused = refusal("POST", "/connections", body)
    assert (refused.field_violations[0].field, refused.field_violations[0].description) == (field, rule)


@pytest.mark.parametrize("key", [SURROGATE, b"\\u00b2", b"a" * 5000])
def test_a_strange_key_is_unknown_and_its_name_can_be_sent(key: bytes) -> None:
    refused = refusal("POST", "/scans", b'{"' + key + b'": 1}')
    assert refused.reason == Reason.ERROR_REASON_FIELD_UNKNOWN
    assert refused.metadata["field"]
    refused.metadata["field"].encode()
    assert refusal("POST", "/scans", b'{"' + key + b'": 1, "' + key + b'": 2}').metadata["field"]


def test_a_field_in_both_its_spellings_is_refused() -> None:
    refused = refusal("POST", "/scans", {"connectionId": "c", "connection_id": "d"})
    assert refused.metadata["field"] == "connection_id"


def test_a_time_is_text_and_has_no_parts() -> None:
    for value in ("yesterday", "2024-01-01", "9" * 5000, ""):
        refused = refusal("GET", "/events", query=[("occurredAfter", value)])
        assert refused.field_violations[0].field == "occurredAfter"
        assert "RFC 3339" in refused.field_violations[0].description
    for names in (["occurredAfter", "occurredAfter.seconds"], ["occurredAfter.seconds"]):
        refused = refusal("GET", "/events", query=[(name, "2024-01-01T00:00:00Z") for name in names])
        assert refused.metadata["field"] == "occurredAfter.seconds"


@pytest.mark.parametrize("body", [b'{"connectionId": NaN}', b'{"connectionId": -Infinity}', LONG, b"\xef\xbb\xbf{}"])
def test_what_json_does_not_have_is_malformed_in_our_words(body: bytes) -> None:
    refused = refusal("POST", "/scans", body)
    assert refused.reason == Reason.ERROR_REASON_BODY_MALFORMED
    assert "utf-8-sig" not in refused.message


def test_a_text_that_never_ends_is_looked_through_once() -> None:
    def cost(marks: int) -> float:
        body = b"{}" * 40 + b'"\\' * marks  # Each of its quotation marks may begin a text, or stand in one.
        before = time.process_time()
        assert refusal("POST", "/scans", body).reason == Reason.ERROR_REASON_BODY_MALFORMED
        return time.process_time() - before

    small, large = (min(cost(marks) for _ in range(3)) for marks in (2_000, 32_000))
    assert large < 100 * small  # 16 times the marks, and not the square of it: two minutes, of the largest body.


def test_a_query_is_decoded_strictly_and_bounded() -> None:
    assert transcode.parse_query(b"a=%C3%A9&b=&a=1%202") == [("a", "\u00e9"), ("b", ""), ("a", "1 2")]
    for raw in (b"a=%ff", b"a=\xe9"):
        with pytest.raises(Invalid) as refused:
            transcode.parse_query(raw)
        assert refused.value.field_violations[0].field == "(query)"
    assert len(transcode.parse_query(b"&".join([b"a=1"] * 100))) == 100
    with pytest.raises(Invalid) as many:
        transcode.parse_query(b"&".join([b"a=1"] * 101))
    assert (many.value.reason, many.value.metadata["limit"]) == (Reason.ERROR_REASON_TOO_LARGE, "100")


def refusal(method: str, path: str, body: object = None, query: list[tuple[str, str]] | None = None) -> Invalid:
    with pytest.raises(Invalid) as refused:
        build(method, f"/v1/organizations/{ORG}{path}", body, query)
    for quoted in ("invalid literal", "expected string", "got '", "Failed to parse"):
        assert quoted not in refused.value.message
    return refused.value


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"evidence": {"k": 1}}, "evidence[k]"),
        ({"evidence": {"k": None}}, "evidence[k]"),
        ({"evidence": {"\ud800": "v"}}, "evidence[\\ud800]"),
        ({"evidence": ["k"]}, "evidence"),
        ({"evidence": {"k": "v"}, "firstSeenAt": 5}, "firstSeenAt"),
    ],
)
def test_maps_are_checked_by_key_and_value(document: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        Shapes().check_object(document, scanner_pb2.Finding.DESCRIPTOR)
    assert refused.value.field_violations[0].field == field
    Shapes().check_object({"evidence": {"k": "v"}, "firstSeenAt": None}, scanner_pb2.Finding.DESCRIPTOR)
