"""The cookie of a browser session: from a page of ours alone, with the session's own CSRF token, and in no body."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any
from uuid import UUID, uuid4

import pytest

from recoup.identity.v1 import browser_service_pb2 as pb
from recoup.identity.v1 import origin_service_pb2, role_service_pb2
from recoup.mesh.v1.forward_pb2 import HttpCookie
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.cookies import NAME, csrf_token
from services.gateway.origins import Origins
from services.gateway.passports import Issued
from services.gateway.routes import Router
from services.gateway.session import Session
from services.identity.model.browser_sessions import PREFIX
from tests.support.things import linked_passport

ACME = UUID("3dcd07a2-aef7-54d0-b11c-6638c1b15e53")
BASE = f"/v1/organizations/{ACME}"
HERE, PAGE, DASHBOARD = "https://api.recoup.example", "https://finance.acme.example", "https://app.recoup.example"
SESSION, OTHER = (f"{PREFIX}{letter * 64}" for letter in "ab")
COOKIE = f"{NAME}={SESSION}"
CSRF = csrf_token(SESSION)
ROUTER = Router(
    [
        ("identity", role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]),
        ("identity", pb.DESCRIPTOR.services_by_name["BrowserService"]),
    ]
)


class Behind:
    """Stands for identity (which allows `PAGE` for acme), the passport office and the services."""

    def __init__(self, answer: Any = None) -> None:
        self.answer, self.shown = answer, list[str]()
        here: Any = self
        limits = EdgeSettings(listen="127.0.0.1:0")
        origins = Origins(here, [DASHBOARD])
        self.gateway = Gateway(ROUTER, here, lambda _: here, limits, Metrics(), lambda: True, {}, origins)

    def knows(self, _session: str) -> bool:
        return True

    async def passport(self, session: Session, *_for: str) -> Issued:
        self.shown.append(session.token)
        return Issued("x", linked_passport(uuid4()))

    def unary_unary(self, name: str, **_codecs: Any) -> Callable[..., Any]:
        async def call(_request: Any, **_how: Any) -> Any:
            if name.endswith("/CheckAllowedOrigins"):
                return origin_service_pb2.CheckAllowedOriginsResponse(origins=[PAGE])
            return self.answer or role_service_pb2.ListRolesResponse()

        return call

    def ask(self, method: str, path: str, **headers: str | None) -> tuple[int, dict[str, str], Any]:
        """Status, headers and document."""
        given = {"host": "api.recoup.example", "cookie": COOKIE}
        given |= {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
            "client": ("127.0.0.1", 1),
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.gateway(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, json.loads(sent[1]["body"] or "{}")

    def read(self, **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.ask("GET", f"{BASE}/roles", **headers)

    def change(self, **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.ask("POST", f"{BASE}/roles", **{"origin": HERE, "recoup_csrf": CSRF, **headers})


def cause_of(answer: tuple[int, dict[str, str], Any]) -> str:
    status, headers, document = answer
    assert (status, document["reason"], "recoup-csrf" in headers) == (403, "PAGE_REFUSED", False)
    return str(document["metadata"]["cause"])


def test_a_page_of_ours_calls_with_the_cookie() -> None:
    behind = Behind()
    for headers in ({}, {"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {"origin": DASHBOARD}):
        status, found, _ = behind.read(**headers)
        assert (status, found["recoup-csrf"], SESSION in str(found)) == (200, CSRF, False)
    assert behind.change()[0] == behind.change(origin=DASHBOARD)[0] == behind.change(sec_fetch_site="same-origin")[0]
    assert behind.change()[0] == 200
    assert set(behind.shown) == {SESSION}
    assert behind.read(origin=DASHBOARD)[1]["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    "headers",
    [
        *({"origin": ""}, {"origin": "null"}, {"origin": PAGE}, {"origin": "https://evil.example"}),
        *({"origin": HERE.replace("https", "http")}, {"origin": f"{HERE}:8443"}, {"origin": f"{HERE}.evil.example"}),
        *({"origin": "https://recoup.example"}, {"origin": "https://x.api.recoup.example"}, {"origin": HERE.upper()}),
        {"origin": "", "sec_fetch_site": "same-origin"},
    ],
)
def test_no_other_page_changes_anything(headers: dict[str, str]) -> None:
    behind = Behind()
    assert cause_of(behind.change(**headers)) == "origin"
    assert behind.shown == []


@pytest.mark.parametrize("token", ["", csrf_token(OTHER), SESSION, CSRF[:-1], f"{CSRF}=", CSRF.lower(), "é"])
def test_a_change_needs_the_sessions_own_csrf_token(token: str) -> None:
    behind = Behind()
    assert cause_of(behind.change(recoup_csrf=token)) == "token"
    assert cause_of(behind.change(cookie=f"{NAME}={OTHER}")) == "token"
    assert behind.shown == []


@pytest.mark.parametrize(
    "headers",
    [
        *({"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"origin": PAGE}, {"origin": "null"}),
        {"origin": "https://evil.example", "sec_fetch_site": "same-origin"},
    ],
)
def test_no_other_page_reads_with_it(headers: dict[str, str]) -> None:
    assert cause_of(Behind().read(**headers)) == "origin"


def test_a_bearer_token_wins_and_needs_nothing_of_a_page() -> None:
    behind = Behind()
    for cookie in (COOKIE, ""):
        status, found, _ = behind.ask("POST", f"{BASE}/roles", authorization="Bearer x", cookie=cookie, origin=PAGE)
        assert (status, "recoup-csrf" in found) == (200, False)
    assert set(behind.shown) == {"x"}
    # A bad one isn't made good by the cookie, and the cookie's text isn't one.
    for header in (f"Bearer {SESSION}", "Bearer ", "Basic x"):
        status, _, document = behind.read(authorization=header)
        assert (status, document["reason"]) == (401, "CREDENTIAL_INVALID")


@pytest.mark.parametrize(
    "cookie",
    [
        *("", NAME, f"{NAME}=", f"recoup-session={SESSION}", f"__Secure-recoup-session={SESSION}"),
        *(f"{NAME}=rcp_{SESSION[4:]}", f"{NAME}={SESSION[:-1]}", f"{NAME}={SESSION}x", f'{NAME}="{SESSION}"'),
        *(f"{COOKIE}; {NAME}={OTHER}", f"{COOKIE}; {COOKIE}", f"{NAME.lower()}={SESSION}", f"{NAME}=eyJ.e30."),
    ],
)
def test_what_is_no_cookie_of_ours_is_none(cookie: str) -> None:
    status, _, document = Behind().read(cookie=cookie)
    assert (status, document["reason"]) == (401, "CREDENTIAL_MISSING")


def test_the_session_leaves_as_a_cookie_that_no_script_reads() -> None:
    made = pb.CreateBrowserSessionResponse(cookie=HttpCookie(value=SESSION, max_age_seconds=43200))
    made.session.session_id = "s"
    behind = Behind(made)
    path = f"{BASE}/browserSessions"
    status, found, document = behind.ask("POST", path, authorization="Bearer x", origin=HERE)
    assert found["set-cookie"] == f"{COOKIE}; Max-Age=43200; Path=/; Secure; HttpOnly; SameSite=Strict"
    assert (status, found["recoup-csrf"], found["cache-control"]) == (200, CSRF, "no-store")
    assert (document["session"]["sessionId"], "cookie" in document) == ("s", False)
    # Nobody signs a browser in as somebody else from another page.
    for origin in ("https://evil.example", PAGE, "null"):
        made.cookie.value = SESSION
        assert cause_of(behind.ask("POST", path, authorization="Bearer x", origin=origin)) == "origin"


def test_signing_out_makes_the_browser_forget() -> None:
    behind = Behind(pb.EndMyBrowserSessionResponse(cookie=HttpCookie()))
    status, found, document = behind.ask("DELETE", "/v1/me/browserSession", origin=HERE, recoup_csrf=CSRF)
    assert found["set-cookie"] == f"{NAME}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Strict"
    assert (status, found["clear-site-data"], document) == (200, '"cache", "storage"', {})
    behind = Behind(pb.EndBrowserSessionResponse())  # Another session of theirs.
    found = behind.ask("DELETE", f"{BASE}/browserSessions/{uuid4()}", origin=HERE, recoup_csrf=CSRF)[1]
    assert not {"set-cookie", "clear-site-data"} & found.keys()
