"""What every kind of answer says to browsers and caches, held against OWASP's list of secure headers (OSHP)."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from services._mesh.errors import Invalid, Reason
from services.gateway.config import EdgeSettings
from services.gateway.newcomers import busy
from services.gateway.pages import PAGE_POLICY
from tests.support.edge import SCANS, STREAM, Behind, gateway

NOTHING = "default-src 'none'; frame-ancestors 'none'"
# Header of OWASP's list -> its value in each answer, or on pages for people alone.
EVERYWHERE = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "x-permitted-cross-domain-policies": "none",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ON_PAGES = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
# Header of OWASP's lists -> why no answer has it.
NOWHERE = {
    "clear-site-data": "a browser keeps one cookie of ours, which the end of its session takes back by itself",
    "x-dns-prefetch-control": "no answer has a link to another host, and nobody implements it any more",
    "x-xss-protection": "deprecated: its filter made holes of its own; the policy lets no script run",
    "expect-ct": "deprecated: certificate transparency is demanded by browsers",
    "public-key-pins": "deprecated: a lost key would lock everybody out",
    "feature-policy": "deprecated: permissions-policy",
    "pragma": "deprecated: cache-control",
    **dict.fromkeys(
        ("server", "x-powered-by", "x-aspnet-version", "via", "x-served-by", "x-envoy-upstream-service-time"),
        "says what we run, and helps nobody but an attacker",
    ),
    **dict.fromkeys(
        ("access-control-allow-origin", "access-control-allow-credentials"),
        "of a page of another origin only where its organization lets it in",
    ),
}
# Kind -> request, status and media type.
KINDS: dict[str, tuple[str, str, dict[str, str], int, str]] = {
    "answer": ("GET", SCANS, {}, 200, "application/json"),
    "head": ("HEAD", SCANS, {}, 200, "application/json"),
    "not modified": ("GET", SCANS, {"if-none-match": "*"}, 304, ""),
    "not found": ("GET", "/v1/nothing", {}, 404, "application/problem+json"),
    "method": ("PUT", SCANS, {}, 405, "application/problem+json"),
    "no session": ("GET", SCANS, {"authorization": ""}, 401, "application/problem+json"),
    "odd path": ("GET", "/v1/../x", {}, 400, "application/problem+json"),
    "stream": ("GET", STREAM, {}, 200, "application/x-ndjson"),
    "options": ("OPTIONS", SCANS, {}, 204, ""),
    "health": ("GET", "/healthz", {}, 200, "application/json"),
    "description": ("GET", "/openapi.json", {}, 200, "application/json"),
    "security.txt": ("GET", "/.well-known/security.txt", {}, 200, "text/plain; charset=utf-8"),
    "script": ("GET", "/docs/start.js", {}, 200, "text/javascript; charset=utf-8"),
    "page": ("GET", "/docs", {}, 200, "text/html; charset=utf-8"),
}


async def asked(method: str, path: str, given: dict[str, str]) -> tuple[int, list[tuple[str, str]]]:
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "client": ("127.0.0.1", 1)}
    headers = {"authorization": "Bearer x", **given}
    sent: list[MutableMapping[str, Any]] = []
    has_begun = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        if not sent:
            return {"type": "http.request", "body": b"", "more_body": False}
        await has_begun.wait()
        return {"type": "http.disconnect"}  # Or a stream would go on for its two minutes.

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            has_begun.set()

    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers.items() if value]
    await gateway(Behind(), EdgeSettings(listen="127.0.0.1:0"))(scope, receive, send)
    return sent[0]["status"], [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]


def hold(headers: list[tuple[str, str]], policy: str = NOTHING) -> None:
    expected = {**EVERYWHERE, "content-security-policy": policy, **(ON_PAGES if policy != NOTHING else {})}
    said = dict(headers)
    assert sorted(name for name, _ in headers if name in expected) == sorted(expected)  # Each once.
    assert {name: said.get(name) for name in expected} == expected
    assert not {*NOWHERE, *ON_PAGES} - expected.keys() & said.keys()
    assert all(name == name.lower() and value.isascii() and value.isprintable() for name, value in headers)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_answer_has_its_secure_headers_and_no_others(kind: str) -> None:
    method, path, given, status, media_type = KINDS[kind]
    got, headers = await asked(method, path, given)
    assert (got, dict(headers).get("content-type", "")) == (status, media_type)
    hold(headers, PAGE_POLICY.decode() if kind == "page" else NOTHING)


@pytest.mark.parametrize("refusal", [busy(), Invalid(Reason.ERROR_REASON_HEADERS_TOO_LARGE, "x", {"limit": "1"})])
async def test_what_never_reaches_the_application_has_them_too(refusal: Any) -> None:
    _, headers, _ = gateway(Behind(), EdgeSettings(listen="127.0.0.1:0")).refused(refusal)
    hold([(name.decode(), value.decode()) for name, value in headers])
