"""Pages of other origins: let in by the path's organization alone, to the letter, and never with a cookie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest

from recoup.identity.v1 import origin_service_pb2 as pb
from recoup.identity.v1 import role_service_pb2
from services._mesh.metrics import Metrics
from services.gateway import origins as subject
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.exchange import read
from services.gateway.origins import Origins
from services.gateway.passports import Issued
from services.gateway.routes import Router
from tests.support.things import GLOBEX, linked_passport

ACME = UUID("3dcd07a2-aef7-54d0-b11c-6638c1b15e53")
PAGE, DASHBOARD = "https://finance.acme.example", "https://app.recoup.example"
ROUTER = Router([("identity", role_service_pb2.DESCRIPTOR.services_by_name["RoleService"])])
HERE = "api.recoup.example"


class Behind:
    """Stands for identity (which allows `PAGE` for acme), the passport office and the services."""

    def __init__(self) -> None:
        self.asked, self.is_down = list[str](), False
        here: Any = self
        self.origins = Origins(here, [DASHBOARD])
        limits = EdgeSettings(listen="127.0.0.1:0")
        self.client = "127.0.0.1"
        self.gateway = Gateway(ROUTER, here, lambda _: here, limits, Metrics(), lambda: True, {}, self.origins)

    def knows(self, _session: str) -> bool:
        return True

    async def passport(self, *_for: str) -> Issued:
        return Issued("x", linked_passport(uuid4()))

    def unary_unary(self, name: str, **_codecs: Any) -> Callable[..., Any]:
        async def call(request: Any, **_how: Any) -> Any:
            if not name.endswith("/CheckAllowedOrigins"):
                return role_service_pb2.ListRolesResponse()
            self.asked.append(request.organization_id)
            if self.is_down:
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
            return pb.CheckAllowedOriginsResponse(origins=[PAGE] if request.organization_id == str(ACME) else [])

        return call

    def ask(self, method: str, organization: Any = ACME, path: str = "/roles", **headers: str) -> dict[str, str]:
        """The status, and the headers of the answer (those of one name together)."""
        given = {"host": HERE, "authorization": "Bearer x"} | {k.replace("_", "-"): v for k, v in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": f"/v1/organizations/{organization}{path}",
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value],
            "client": (self.client, 1),
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.gateway(scope, receive, send))
        found = {"status": str(sent[0]["status"])}
        for name, value in ((name.decode(), value.decode()) for name, value in sent[0]["headers"]):
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    def preflight(self, origin: str, organization: Any = ACME, method: str = "PATCH", **more: str) -> dict[str, str]:
        role = f"/roles/{uuid4()}"
        asked = {"origin": origin, "access_control_request_method": method, "authorization": "", **more}
        return self.ask("OPTIONS", organization, role, **asked)


def said(found: dict[str, str]) -> set[str]:
    return {name.removeprefix("access-control-") for name in found if name.startswith("access-control-")}


def test_a_page_that_the_organization_allows_is_told_what_it_may_send() -> None:
    behind = Behind()
    found = behind.preflight(PAGE)
    assert (found["status"], found["access-control-allow-origin"]) == ("204", PAGE)
    assert found["access-control-allow-methods"] == "DELETE, GET, HEAD, PATCH"
    taken = set(found["access-control-allow-headers"].split(", "))
    assert {"authorization", "content-type", "idempotency-key", "if-match"} <= taken
    assert "if-match" not in behind.preflight(PAGE, method="GET")["access-control-allow-headers"]
    assert "origin" in found["vary"].split(", ")
    assert said(found) == {"allow-origin", "allow-methods", "allow-headers", "max-age"}
    found = behind.ask("GET", origin=PAGE)
    assert (found["status"], found["access-control-allow-origin"]) == ("200", PAGE)
    assert said(found) == {"allow-origin", "expose-headers"}
    # An error is for it to read as well; and who asks nothing of another origin is told what answers depend on.
    assert behind.ask("GET", origin=PAGE, authorization="")["access-control-allow-origin"] == PAGE
    assert "origin" in behind.ask("GET")["vary"]
    assert behind.asked == [str(ACME)]  # Kept for a while.


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "*", "https://evil.example", "http://finance.acme.example", "https://finance.acme.example:443"),
        *("https://finance.acme.example:8443", "https://Finance.acme.example", "https://finance.acme.example."),
        *("https://x.finance.acme.example", "https://acme.example", "https://evilfinance.acme.example"),
        *("https://finance.acme.example.evil.example", "https://finance.acme.example/", "https://finance.acme.examplé"),
        *(f"{PAGE} https://evil.example", f"{PAGE},{PAGE}", f"https://evil.example#{PAGE}", "https://" + "a" * 400),
        "https://finance.acme.example@evil.example",
    ],
)
def test_another_origin_gets_no_header(origin: str) -> None:
    behind = Behind()
    assert said(behind.preflight(origin)) == said(behind.ask("GET", origin=origin)) == set()


def test_nobody_learns_which_organizations_there_are() -> None:
    behind = Behind()
    there = behind.preflight("https://evil.example")
    for organization in (GLOBEX, uuid4()):
        found = behind.preflight(PAGE, organization)
        assert said(found) == set()
        told = ("status", "allow", "vary", "content-length")
        assert [found.get(name) for name in told] == [there.get(name) for name in told]


def test_only_an_organization_in_the_path_lets_a_page_in() -> None:
    behind = Behind()
    for organization in ("-", str(ACME).upper(), "x", f"{ACME}x"):
        assert said(behind.preflight(PAGE, organization, recoup_organization=str(ACME))) == set()
    assert behind.asked == []
    assert said(behind.preflight(PAGE, method="TRACE")) == said(behind.preflight(PAGE, method="")) == set()


def test_the_dashboard_alone_calls_with_cookies() -> None:
    behind = Behind()
    for organization in (ACME, GLOBEX, "-"):
        for found in (behind.preflight(DASHBOARD, organization), behind.preflight(DASHBOARD, organization, "GET")):
            assert found["access-control-allow-origin"] == DASHBOARD
            assert found["access-control-allow-credentials"] == "true"
    assert "access-control-allow-credentials" not in behind.preflight(PAGE)
    assert said(behind.ask("GET", origin=f"https://{HERE}")) == set()  # A page of this very host.


def test_two_origins_are_one_too_many() -> None:
    given = [(b"host", HERE.encode()), (b"origin", PAGE.encode()), (b"origin", b"https://evil.example")]
    assert read({"method": "GET", "path": "/", "query_string": b"", "headers": given}).twice == "origin"


def test_without_identity_nobody_is_let_in_and_made_up_organizations_dont_flood_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind = Behind()
    behind.is_down = True
    found = behind.ask("GET", origin=PAGE)
    assert (found["status"], said(found)) == ("200", set())
    behind = Behind()
    for number in range(subject._ASKED_AT_ONCE + 20):
        behind.client = f"2001:db8::{number:x}"  # Of one network, whose subscriber has all of them.
        behind.preflight(PAGE, uuid4())
    assert subject._ASKED_AT_ONCE <= len(behind.asked) < subject._ASKED_AT_ONCE + 10
