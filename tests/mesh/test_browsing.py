"""A browser session over TLS from its sign-in to its end, as browsers speak: HTTP/2, and HTTP/1.1 where that is all."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from recoup_local.issuer import organization_id
from tests.support.mesh import TestMesh, until

pytestmark = pytest.mark.xdist_group("mesh")
ACME = f"/v1/organizations/{organization_id('acme')}"
PROMISED_SECONDS = 5.0


class Browser:
    """What a page of ours does in a browser: the cookie is the browser's, the other token is in the page's memory."""

    def __init__(self, client: httpx.Client, token: str) -> None:
        self.client, self.token = client, token
        self.origin = {"origin": str(client.base_url).rstrip("/")}
        made = client.post(
            f"{ACME}/browserSessions", json={}, headers={"authorization": f"Bearer {token}", **self.origin}
        )
        assert made.status_code == 200, made.text
        self.session_id, self.csrf = made.json()["session"]["sessionId"], made.headers["recoup-csrf"]
        self.set_cookie = made.headers["set-cookie"]
        self.cookie = self.set_cookie.partition(";")[0]
        assert self.cookie.partition("=")[2] not in made.text

    def read(self) -> httpx.Response:
        """Something that one has to be signed in for."""
        return self.client.get(f"{ACME}/scans")

    def change(self, path: str, **headers: str) -> httpx.Response:
        return self.client.delete(path, headers=headers)

    def refused_after(self, since: float, **headers: str) -> tuple[float, httpx.Response]:
        """When the cookie, or what is shown in its place, was taken for the last time; and how it was refused."""
        last = since

        def refused() -> httpx.Response | None:
            nonlocal last
            answer = self.client.get(f"{ACME}/scans", headers=headers)
            if answer.status_code == 200:
                last = time.monotonic()
                return None
            return answer

        answer = until(refused)
        return last - since, answer


@contextmanager
def browsers(made: TestMesh) -> Iterator[tuple[Browser, Browser]]:
    """The same person in two browsers, signed in apart; the first speaks HTTP/2."""
    trust = [ssl.create_default_context(cafile=str(made.mesh.installation.ca.cert_file)) for _ in range(2)]
    with (
        httpx.Client(base_url=made.mesh.gateway_url, verify=trust[0], http2=True, timeout=30) as new,
        httpx.Client(base_url=made.mesh.gateway_url, verify=trust[1], http2=False, timeout=30) as old,
    ):
        yield Browser(new, made.mesh.token("acme", "FinOps")), Browser(old, made.mesh.token("acme", "FinOps"))


def problem(answer: httpx.Response) -> tuple[int, str, Any]:
    document = answer.json()
    return answer.status_code, document["reason"], document["metadata"].get("cause", "")


def test_a_browser_signs_in_reads_changes_and_is_signed_out(made: TestMesh) -> None:
    with browsers(made) as (one, other):
        name, *attributes = one.set_cookie.split("; ")
        assert name.startswith("__Host-recoup-session=")
        assert {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"} < set(attributes)
        assert [each.read().http_version for each in (one, other)] == ["HTTP/2", "HTTP/1.1"]
        answer = one.read()
        assert (answer.status_code, answer.headers["recoup-csrf"]) == (200, one.csrf)
        # Browsers send cookies one by one over HTTP/2.
        crumbs = [("cookie", "theme=dark"), ("cookie", one.cookie), ("cookie", "a=b")]
        one.client.cookies.clear()
        assert one.read().status_code == 401
        assert one.client.get(f"{ACME}/scans", headers=crumbs).status_code == 200
        one.client.headers["cookie"] = one.cookie

        ends = f"{ACME}/browserSessions/{other.session_id}"
        elsewhere = {"origin": "https://evil.example"}
        assert problem(one.change(ends, **one.origin)) == (403, "PAGE_REFUSED", "token")
        assert problem(one.change(ends, **{"recoup-csrf": other.csrf}, **one.origin)) == (403, "PAGE_REFUSED", "token")
        assert problem(one.change(ends, **{"recoup-csrf": one.csrf}, **elsewhere)) == (403, "PAGE_REFUSED", "origin")
        assert problem(one.change(ends, **{"recoup-csrf": one.csrf})) == (403, "PAGE_REFUSED", "origin")
        assert other.read().status_code == 200
        assert one.change(ends, **{"recoup-csrf": one.csrf}, **one.origin).status_code == 200
        taken, answer = other.refused_after(time.monotonic())
        assert taken < PROMISED_SECONDS
        assert problem(answer)[:2] == (401, "CREDENTIAL_REVOKED")
        assert one.read().status_code == 200

        out = one.change("/v1/me/browserSession", **{"recoup-csrf": one.csrf}, **one.origin)
        assert out.status_code == 200, out.text
        assert out.headers["set-cookie"].startswith("__Host-recoup-session=; Max-Age=0;")
        assert "clear-site-data" in out.headers
        for shown in ({}, {"authorization": f"Bearer {one.token}"}):  # Nor is the sign-in that it was made of good.
            taken, answer = one.refused_after(time.monotonic(), **shown)
            assert taken < PROMISED_SECONDS
            assert problem(answer)[:2] == (401, "CREDENTIAL_REVOKED")
