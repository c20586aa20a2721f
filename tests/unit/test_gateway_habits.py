"""The edge's manners: tags and conditions, content codings, pages as links, deprecations, what a path is for."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from uuid import uuid4

import pytest
from backports import zstd
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool

from recoup.audit.v1 import audit_service_pb2
from recoup.identity.v1 import role_service_pb2
from recoup.mesh.v1 import access_pb2, lifecycle_pb2
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2
from services._mesh.errors import AlreadyExists, Conflict, Exhausted, Problem, Reason, Unavailable
from services._mesh.metrics import Metrics
from services.gateway import coding
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.passports import Issued
from services.gateway.routes import RouteError, Router
from tests.support.things import linked_passport

ORG = "3dcd07a2-aef7-54d0-b11c-6638c1b15e53"
BASE = f"/v1/organizations/{ORG}"
ROLE = "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff"
ROUTER = Router(
    [
        ("scanner", scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"]),
        ("identity", role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]),
        ("audit", audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]),
    ]
)
Answer = tuple[int, dict[str, str], bytes]


class Behind:
    """Stands for the passport office and for every service: what it is asked it keeps, and answers as it was told."""

    def __init__(self, answer: Any, **settings: Any) -> None:
        self.answer, self.asked = answer, [Any] * 0
        here: Any = self
        limits = EdgeSettings(listen="127.0.0.1:0", **settings)
        self.gateway = Gateway(ROUTER, here, lambda _: here, limits, Metrics(), lambda: True, {})

    def knows(self, _session: str) -> bool:
        """Everybody is known."""
        return True

    async def passport(self, *_for: str) -> Issued:
        """One for anybody."""
        return Issued("x", linked_passport(uuid4()))

    def unary_unary(self, *_names: Any, **_codecs: Any) -> Callable[..., Awaitable[Any]]:
        """A call that is answered as it was told."""

        async def call(request: Any, **_how: Any) -> Any:
            self.asked.append(request)
            if isinstance(self.answer, Problem):
                raise self.answer
            return self.answer

        return call

    unary_stream = unary_unary

    def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *more: tuple[bytes, bytes],
    ) -> Answer:
        """The status, the headers (of one name the last) and the body."""
        path, _, query = target.partition("?")
        given = {
            "authorization": "Bearer x",
            **({"content-type": "application/json"} if body else {}),
            **(headers or {}),
        }
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [*((name.encode(), value.encode()) for name, value in given.items()), *more],
            "client": ("127.0.0.1", 1),
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.gateway(scope, receive, send))
        start, end = sent
        return start["status"], {n.decode(): v.decode() for n, v in start["headers"]}, end["body"]

    def document(self, *request: Any) -> tuple[int, dict[str, str], Any]:
        """The same, with the body read."""
        status, headers, body = self.ask(*request)
        return status, headers, json.loads(body)


def role(**fields: Any) -> Any:
    return role_service_pb2.GetRoleResponse(role=role_service_pb2.CustomRole(role_id=ROLE, **fields))


def scans(count: int = 0, token: str = "") -> Any:
    made = [scanner_pb2.Scan(scan_id=f"{number:040}") for number in range(count)]
    return scanner_service_pb2.ListScansResponse(scans=made, next_page_token=token)


def test_who_has_an_answer_already_gets_304_until_it_changes() -> None:
    behind = Behind(role(etag="7", description="night watch"))
    status, headers, body = behind.ask("GET", f"{BASE}/roles/{ROLE}")
    tag = headers["etag"]
    assert (status, tag.startswith('"7.')) == (200, True)
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*", tag[:-1] + '-gzip"'):
        status, headers, body = behind.ask("GET", f"{BASE}/roles/{ROLE}", {"if-none-match": given})
        assert (status, body, headers["etag"]) == (304, b"", tag)
        assert "content-type" not in headers
    assert behind.ask("GET", f"{BASE}/roles/{ROLE}", {"if-none-match": '"7"'})[0] == 200
    # What its etag says nothing of changes the tag too.
    behind.answer = role(etag="7", description="day watch")
    assert behind.ask("GET", f"{BASE}/roles/{ROLE}", {"if-none-match": tag})[0] == 200
    # Lists have none, and a tag all the same.
    assert Behind(scans(3)).ask("GET", f"{BASE}/scans")[1]["etag"]


def test_if_match_is_the_etag_of_a_change_and_says_412() -> None:
    behind = Behind(role_service_pb2.UpdateRoleResponse(role=role(etag="8").role))
    target, body = f"{BASE}/roles/{ROLE}", b'{"description": "x"}'
    for given in ('"7"', '"7.0123456789abcdef0123456789abcdef"', '"7.0123456789abcdef0123456789abcdef-zstd"'):
        status, headers, _ = behind.ask("PATCH", target, {"if-match": given}, body)
        assert (status, behind.asked[-1].etag) == (200, "7")
        assert headers["etag"].startswith('"8.')
    for given in ("7", 'W/"7"', '"7", "8"', "*", "", '"'):
        status, _, document = behind.document("PATCH", target, {"if-match": given}, body)
        assert (status, document["violations"][0]["field"]) == (400, "If-Match")
    twice = b'{"description": "x", "etag": "6"}'
    assert behind.ask("PATCH", target, {"if-match": '"7"'}, twice)[0] == 400
    behind.answer = Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Changed.")
    assert behind.document("PATCH", target, {"if-match": '"7"'}, body)[2]["status"] == 412
    assert behind.ask("PATCH", target, {}, twice)[0] == 409
    # Where nothing is compared, nobody is left to believe so.
    for name, tag in (("If-Match", '"7"'), ("If-Match", ""), ("If-None-Match", "*")):
        status, _, document = behind.document("POST", f"{BASE}/scans", {name.lower(): tag}, b'{"connectionId": "c"}')
        assert (status, document["metadata"]["field"]) == (400, name)


def test_an_idempotency_key_is_the_request_id_and_has_its_answers() -> None:
    behind = Behind(scanner_service_pb2.StartScanResponse())
    for given in (ROLE, f'"{ROLE}"'):
        behind.ask("POST", f"{BASE}/scans", {"idempotency-key": given}, b'{"connectionId": "c"}')
        assert behind.asked[-1].request_id == ROLE
    asked = len(behind.asked)
    for given in ("", '""', "nightly", f'"{ROLE}', f'""{ROLE}""', f"{ROLE}, {ROLE}", f"{ROLE}\xb2"):  # None is one.
        headers = {"idempotency-key": given}
        status, _, document = behind.document("POST", f"{BASE}/scans", headers, b'{"connectionId": "c"}')
        assert (status, document["violations"][0]["field"]) == (400, "Idempotency-Key")
    assert len(behind.asked) == asked
    behind.answer = AlreadyExists(Reason.ERROR_REASON_REQUEST_ID_REUSED, "Another body.")
    assert behind.ask("POST", f"{BASE}/scans", {"idempotency-key": ROLE}, b'{"connectionId": "d"}')[0] == 422
    behind.answer = Conflict(Reason.ERROR_REASON_REQUEST_IN_FLIGHT, "Wait.")
    status, headers, _ = behind.ask("POST", f"{BASE}/scans", {"idempotency-key": ROLE}, b'{"connectionId": "d"}')
    assert (status, headers["retry-after"]) == (409, "1")


def test_the_key_of_what_only_reads_is_no_filter() -> None:
    behind = Behind(audit_service_pb2.ListEventsResponse())
    assert behind.ask("GET", f"{BASE}/events?requestId=x", {"idempotency-key": ROLE})[0] == 200
    assert behind.ask("GET", f"{BASE}/events", {"idempotency-key": ROLE})[0] == 200
    assert [each.request_id for each in behind.asked] == ["x", ""]


def test_who_may_come_again_is_told_when() -> None:
    down = Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, "Down.", {"dependency": "x"})
    assert Behind(down).ask("GET", f"{BASE}/scans")[1]["retry-after"] == "1"
    many = Exhausted(Reason.ERROR_REASON_QUOTA_EXCEEDED, "Many.", {"retry_after_seconds": "60"})
    status, headers, _ = Behind(many).ask("GET", f"{BASE}/scans")
    assert (status, headers["retry-after"]) == (429, "60")
    odd = Exhausted(Reason.ERROR_REASON_QUOTA_EXCEEDED, "Many.", {"retry_after_seconds": "1\r\nx: y"})
    assert Behind(odd).ask("GET", f"{BASE}/scans")[1]["retry-after"] == "1"
    assert "retry-after" not in Behind(Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "x")).ask("GET", f"{BASE}/scans")[1]


@pytest.mark.parametrize(
    ("accepted", "name"),
    [
        ("gzip", "gzip"),
        ("zstd, gzip", "zstd"),
        ("gzip, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("br", ""),
        ("gzip;q=0", ""),
        ("gzip;q=x", ""),
        ("gzip;q=0.5, identity", ""),
        ("identity;q=0.2, gzip; q=0.3", "gzip"),
        ("gzip, identity", "gzip"),
        ("gzip;q=2", ""),
        ("", ""),
    ],
)
def test_large_answers_are_coded_as_their_caller_prefers(accepted: str, name: str) -> None:
    behind = Behind(scans(2000))
    plain = behind.ask("GET", f"{BASE}/scans")
    status, headers, body = behind.ask("GET", f"{BASE}/scans", {"accept-encoding": accepted})
    assert (status, headers.get("content-encoding", ""), headers["vary"]) == (200, name, "accept-encoding")
    assert headers["content-length"] == str(len(body))
    opened = {"": lambda it: it, "gzip": gzip.decompress, "zstd": zstd.decompress}[name](body)
    assert opened == plain[2]
    assert len(body) < len(opened) / 5 or not name
    # Another coding is another representation, and the same thing to who has it.
    assert (headers["etag"] == plain[1]["etag"]) is not bool(name)
    assert behind.ask("GET", f"{BASE}/scans", {"if-none-match": headers["etag"]})[0] == 304
    # And to a cache: it has the tag, and what it depends on, that the answer would have.
    again = {"if-none-match": headers["etag"], "accept-encoding": accepted}
    status, unchanged, _ = behind.ask("GET", f"{BASE}/scans", again)
    assert (status, unchanged["etag"], unchanged["vary"]) == (304, headers["etag"], headers["vary"])
    assert not {"content-encoding", "content-type", "content-length"} & unchanged.keys()


def test_small_answers_stay_as_they_are() -> None:
    headers = Behind(scans(1)).ask("GET", f"{BASE}/scans", {"accept-encoding": "gzip"})[1]
    assert ("content-encoding" in headers, headers["vary"]) == (False, "origin")


CODED = {"gzip": gzip.compress, "x-gzip": gzip.compress, "ZSTD": zstd.compress}


@pytest.mark.parametrize("name", CODED)
def test_a_coded_body_is_read_within_its_limit(name: str) -> None:
    behind = Behind(scanner_service_pb2.StartScanResponse(), body_bytes=4096)
    code, target, how = CODED[name], f"{BASE}/scans", {"content-encoding": name}
    good = code(b'{"connectionId": "c"}')
    assert behind.ask("POST", target, how, good)[0] == 200
    assert behind.asked[-1].connection_id == "c"
    # However small it came, it isn't unpacked beyond the limit.
    bomb = code(b" " * 20_000_000)
    assert len(bomb) < 30_000
    for body in (code(b" " * 4097), bomb[:4000]):
        status, _, document = behind.document("POST", target, how, body)
        assert (status, document["metadata"]) == (413, {"limit": "4096"})
    for broken in (good[:-3], good + good, good + b"x", b"{}", b"\x1f\x8b", good[:5]):
        assert behind.document("POST", target, how, broken)[2]["reason"] == "BODY_MALFORMED"


@pytest.mark.parametrize("name", ["br", "gzip, gzip", "deflate", "compress"])
def test_another_coding_is_refused_with_those_that_there_are(name: str) -> None:
    status, headers, _ = Behind(None).ask("POST", f"{BASE}/scans", {"content-encoding": name}, b"{}")
    assert (status, headers["accept-encoding"]) == (415, "zstd, gzip")


def test_a_large_window_of_zstd_takes_no_memory() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    body = packer.compress(b" " * 1000) + packer.flush()
    with pytest.raises(Problem):
        coding.decoded(body, "zstd", 4096)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_what_is_unpacked_never_takes_more_room_than_the_limit(name: str) -> None:
    bomb = CODED[name if name in CODED else "ZSTD"](b" " * 20_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Problem):
            coding.decoded(bomb, name, 4096)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_list_links_to_its_next_page() -> None:
    behind = Behind(scans(1, token="a/b=+&>"))
    target = f"{BASE}/scans?connectionId=c%3E&pageToken=old&pageSize=1"
    link = behind.ask("GET", target)[1]["link"]
    assert link == f'<{BASE}/scans?connectionId=c%3E&pageSize=1&page_token=a%2Fb%3D%2B%26%3E>; rel="next"'
    behind.answer = scans(1)
    assert behind.ask("GET", link[1:].partition(">")[0])[0] == 200
    assert behind.asked[-1].page_token == "a/b=+&>"
    assert "link" not in behind.ask("GET", target)[1]


def test_a_path_says_what_it_is_for() -> None:
    behind = Behind(scans())
    status, headers, body = behind.ask("OPTIONS", f"{BASE}/scans", {"authorization": "", "origin": "null"})
    assert (status, headers["allow"], body) == (204, "GET, HEAD, POST, OPTIONS", b"")
    assert not [name for name in headers if name.startswith("access-control-")]
    assert behind.ask("OPTIONS", f"{BASE}/nothing")[0] == 404
    assert behind.ask("HEAD", f"{BASE}/scans")[::2] == (200, b"")


@pytest.mark.parametrize(
    "name", ["authorization", "content-type", "idempotency-key", "recoup-organization", "host", "content-length"]
)
def test_a_header_that_says_one_thing_is_not_sent_twice(name: str) -> None:
    status, _, document = Behind(scans()).document(
        "GET", f"{BASE}/scans", {name: "Bearer x"}, b"", (name.encode(), b"Bearer y")
    )
    assert (status, document["violations"][0]["field"]) == (400, name)


@pytest.mark.parametrize(
    "path", ["/v1/../v1/x", f"{BASE}/scans/%2e%2e", f"{BASE}/./scans", f"{BASE}/scans/%zz", "/healthz/.."]
)
def test_a_path_that_others_may_read_as_another_is_refused(path: str) -> None:
    status, _, document = Behind(scans()).document("GET", path)
    assert (status, document["violations"][0]["field"]) == (400, "(path)")


def test_methods_are_not_overridden_and_what_the_mesh_says_to_itself_is_dropped() -> None:
    behind = Behind(scans())
    for name in (
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "recoup-passport",
        "recoup-request-id",
    ):
        assert behind.ask("GET", f"{BASE}/scans", {name: "DELETE"})[0] == 200
    assert behind.ask("GET", f"{BASE}/scans?_method=DELETE")[0] == 400


def old(**said: Any) -> Router:
    """Routes of one RPC whose end is in sight."""
    number = str(said).encode().hex()[-60:]
    file = descriptor_pb2.FileDescriptorProto(name=f"old{number}.proto", package=f"old{number}", syntax="proto3")
    file.dependency.append("recoup/scanner/v1/scanner_service.proto")
    taken = f".{scanner_service_pb2.ListScansRequest.DESCRIPTOR.full_name}"
    method = file.service.add(name="OldService").method.add(name="Ask", input_type=taken, output_type=taken)
    method.options.Extensions[annotations_pb2.http].CopyFrom(http_pb2.HttpRule(get="/v1/old"))
    method.options.Extensions[access_pb2.access].CopyFrom(
        access_pb2.Access(scope=access_pb2.SCOPE_PUBLIC, effect=access_pb2.EFFECT_READ)
    )
    method.options.deprecated = said.pop("deprecated", False)
    method.options.Extensions[lifecycle_pb2.lifecycle].CopyFrom(lifecycle_pb2.Lifecycle(**said))
    descriptor_pool.Default().Add(file)
    found = descriptor_pool.Default().FindFileByName(file.name)
    return Router([("old", found.services_by_name["OldService"])])


def test_the_end_of_an_rpc_is_said_in_every_answer() -> None:
    behind = Behind(scanner_service_pb2.ListScansRequest())
    here: Any = behind
    routes = old(deprecated=True, deprecated_on="2026-11-26", sunset_on="2027-05-26")
    behind.gateway = Gateway(
        routes, here, lambda _: here, EdgeSettings(listen="127.0.0.1:0"), Metrics(), lambda: True, {}
    )
    for target, status in (("/v1/old", 200), ("/v1/old?nope=1", 400)):
        got, headers, _ = behind.ask("GET", target)
        assert (got, headers["deprecation"]) == (status, "@1795651200")
        assert headers["sunset"] == "Wed, 26 May 2027 00:00:00 GMT"


@pytest.mark.parametrize(
    "said",
    [
        {"deprecated": True},
        {"sunset_on": "2027-01-01"},
        {"deprecated_on": "soon"},
        {"deprecated_on": "2026-11-26", "sunset_on": "2026-11-26"},
    ],
)
def test_an_end_that_is_not_said_rightly_refuses_to_start(said: dict[str, Any]) -> None:
    with pytest.raises(RouteError):
        old(**said)
