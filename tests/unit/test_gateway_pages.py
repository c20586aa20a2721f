"""The description of the API says what is served, no more and no less; the page that shows it asks nobody else."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from recoup.services import SERVICES
from services._mesh.descriptors import Effect, Scope
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.pages import PAGE_POLICY, pages
from services.gateway.routes import FIXED_PATHS, Router

PAGES = pages()
ROUTES = Router([(process, each) for process, services in SERVICES.items() for each in services]).routes
SAID: dict[str, Any] = json.loads(PAGES["/openapi.json"].body)
OPERATIONS = {
    (method.upper(), path): operation for path, each in SAID["paths"].items() for method, operation in each.items()
}


def served(method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """What the edge answers of its own."""
    nowhere: Any = None
    limits = EdgeSettings(listen="127.0.0.1:0", read_burst=2, reads_a_second=0.1)
    gateway = Gateway(Router([]), nowhere, nowhere, limits, Metrics(), lambda: True, PAGES)
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": given}
    asyncio.run(gateway({**scope, "client": ("127.0.0.1", 1)}, nowhere, send))
    start, end = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, end["body"]


def test_the_description_is_openapi_3_1() -> None:
    assert SAID["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(SAID).iter_errors()] == []


def test_it_describes_what_is_served_and_nothing_else() -> None:
    found = {(route.http_method, re.sub(r"=[^{}]*\}", "}", route.template)): route for route in ROUTES}
    assert found.keys() == OPERATIONS.keys()
    for key, route in found.items():
        operation = OPERATIONS[key]
        named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert named == set(route.variables), key
        assert ("requestBody" in operation) is bool(route.body), key
        assert (operation.get("security") == []) is (route.rule.scope is Scope.PUBLIC), key
        # A browser's cookie alone is enough for what only reads.
        alone = {"browserSession": []} in operation.get("security", SAID["security"])
        reads = route.rule.effect is Effect.READ and route.http_method == "GET"
        assert alone is (reads and route.rule.scope is not Scope.PUBLIC), key


def test_it_is_tidy() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids))
    for key, operation in OPERATIONS.items():
        assert operation["summary"], key
        assert len(operation["summary"]) <= 200, (key, operation["summary"])
        assert set(operation["tags"]) <= {tag["name"] for tag in SAID["tags"]}
        names = [(each["in"], each["name"].lower()) for each in operation.get("parameters", ())]
        assert len(names) == len(set(names)), key
    assert all(tag["description"] for tag in SAID["tags"])
    schemas = SAID["components"]["schemas"]
    assert {f"#/components/schemas/{name}" for name in schemas} == {
        each for each in references(SAID) if each.startswith("#/components/schemas/")
    }
    silent = [name for name, schema in schemas.items() if not schema.get("description")]
    assert not silent


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_page_is_a_path_of_the_edge_and_counted() -> None:
    assert set(PAGES) == set(FIXED_PATHS) - {"/healthz", "/readyz"}
    for path in PAGES:
        assert served("GET", path)[0] == 200
        for method in ("POST", "DELETE"):
            status, headers, _ = served(method, path)
            assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/start.js"])
def test_a_page_has_its_policy_its_tag_and_its_coding(path: str) -> None:
    status, headers, body = served("GET", path)
    policy = PAGE_POLICY.decode() if path == "/docs" else "default-src 'none'; frame-ancestors 'none'"
    assert (status, headers["content-security-policy"]) == (200, policy)
    assert served("HEAD", path)[2] == b""
    assert served("GET", path, {"if-none-match": headers["etag"]})[::2] == (304, b"")
    status, said, _ = served("OPTIONS", path)
    assert (status, said["allow"]) == (204, "GET, HEAD, OPTIONS")
    status, headers, coded = served("GET", path, {"accept-encoding": "gzip"})
    if len(body) >= 1024:
        assert (headers["content-encoding"], headers["vary"]) == ("gzip", "accept-encoding")
        assert gzip.decompress(coded) == body
        assert served("GET", path, {"if-none-match": headers["etag"]})[0] == 304
    else:
        assert coded == body


def test_the_page_asks_no_other_address_for_anything() -> None:
    shown = PAGES["/docs"].body.decode()
    assert set(re.findall(r'(?:src|href)="([^"]*)"', shown)) <= PAGES.keys()
    assert "://" not in shown + PAGES["/docs/start.js"].body.decode()
    # Whatever the scripts of the package would ask, the browser doesn't let them.
    sources = re.findall(r"-src ([^;]*)", PAGE_POLICY.decode())
    assert {each for said in sources for each in said.split()} == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert "script-src 'self';" in PAGE_POLICY.decode()
