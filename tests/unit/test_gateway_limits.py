"""What the edge counts against whom, before and after anybody is verified. Nobody gets a fresh budget by naming other
organizations, by signing in again, or by making up keys until old ones are forgotten.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from recoup.identity.v1 import sso_service_pb2
from recoup.scanner.v1 import scanner_service_pb2
from services._mesh.errors import NotFound, Reason, Unauthenticated
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.passports import Issued
from services.gateway.ratelimit import Limiter
from services.gateway.routes import Router
from services.gateway.session import Session
from tests.support.things import ACME, GLOBEX, linked_passport

ROUTER = Router(
    [
        ("scanner", scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"]),
        ("identity", sso_service_pb2.DESCRIPTOR.services_by_name["SsoService"]),
    ]
)
SLOW = {"reads_a_second": 0.1, "writes_a_second": 0.1, "strangers_a_second": 0.1}


class Behind:
    """Identity and the services at once. A session is "<user>:<number>"; everybody is a member of acme and globex."""

    def __init__(self) -> None:
        self.seen: set[Session] = set()
        self.asked = self.called = 0

    def knows(self, session: Session) -> bool:
        return session in self.seen

    async def passport(self, session: Session, _audience: str, organization_id: str, *_: str) -> Issued:
        self.asked += 1
        user = session.token.partition(":")[0]
        if user == "forged":
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "No.")
        if organization_id not in (str(ACME), str(GLOBEX)):
            raise NotFound("organization")
        self.seen.add(session)
        found = linked_passport(uuid4())
        return Issued("p", replace(found, organization_id=UUID(organization_id), actor=f"user:{user}"))

    async def choose(self, session: Session, _audience: str) -> str:
        return (await self.passport(session, "", "")).token

    def unary_unary(self, _name: str, response_deserializer: Any, **_codecs: Any) -> Any:
        async def call(*_request: Any, **_options: Any) -> Any:
            self.called += 1
            return response_deserializer(b"")

        return call

    unary_stream = unary_unary


class Edge:
    """A gateway before them; by default nothing comes back while a test runs."""

    def __init__(self, **settings: Any) -> None:
        self.behind: Any = Behind()
        given = EdgeSettings(listen="127.0.0.1:0", **{**SLOW, **settings})
        self.metrics = Metrics()
        self.gateway = Gateway(ROUTER, self.behind, lambda _: self.behind, given, self.metrics, lambda: True, {})

    def ask(self, session: str = "ann:1", organization: UUID | str = ACME, method: str = "GET", **more: Any) -> int:
        return self.answer(session, organization, method, **more)[0]

    def answer(
        self, session: str = "ann:1", organization: UUID | str = ACME, method: str = "GET", **more: Any
    ) -> tuple[int, dict[str, list[str]], dict[str, Any]]:
        """Status, headers (each with its lines) and document."""
        path = more.get("path", f"/v1/organizations/{organization}/scans")
        headers = [(b"content-type", b"application/json")]
        headers += [(b"authorization", f"Bearer {session}".encode())] if session else []
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers}
        client = (more.get("client", "192.0.2.7"), 1)
        return asyncio.run(self._asked({**scope, "query_string": b"", "client": client}))

    async def _asked(self, scope: dict[str, Any]) -> tuple[int, dict[str, list[str]], dict[str, Any]]:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        headers: dict[str, list[str]] = {}
        for name, value in sent[0]["headers"]:
            headers.setdefault(name.decode(), []).append(value.decode())
        return sent[0]["status"], headers, json.loads(sent[1]["body"])


def test_organizations_that_are_made_up_are_no_fresh_budgets() -> None:
    edge = Edge(read_burst=3)
    assert [edge.ask(organization=uuid4()) for _ in range(4)] == [404, 404, 404, 429]
    assert edge.ask(organization=ACME) == 429
    assert edge.behind.asked == 3


def test_two_organizations_of_ones_own_are_no_fresh_budget_of_one_credential() -> None:
    edge = Edge(read_burst=4)
    assert [edge.ask(organization=each) for each in (ACME, GLOBEX) * 2] == [200] * 4
    assert [edge.ask(organization=each) for each in (ACME, GLOBEX)] == [429, 429]


def test_a_person_with_many_sessions_has_one_budget_in_an_organization() -> None:
    edge = Edge(read_burst=3)
    assert [edge.ask(f"ann:{n}") for n in range(4)] == [200, 200, 200, 429]
    assert edge.ask("ann:9", GLOBEX) == 200
    assert edge.ask("bob:1") == 200
    assert edge.ask("ann:10", method="POST") == 200


def test_the_people_of_an_organization_share_one_budget() -> None:
    edge = Edge(organization_read_burst=3, organization_reads_a_second=0.1)
    assert [edge.ask(f"{user}:1") for user in ("ann", "bob", "cid", "dan")] == [200, 200, 200, 429]
    assert edge.behind.called == 3
    assert edge.ask("ann:1", GLOBEX) == 200


def test_who_guesses_organizations_waits_as_a_stranger_does_and_nobody_beside_them() -> None:
    edge = Edge(stranger_burst=3)
    assert edge.ask("ann:1") == edge.ask("bob:1") == 200
    assert [edge.ask("ann:1", uuid4()) for _ in range(4)] == [404, 404, 404, 429]
    assert edge.ask("ann:1") == 429
    assert edge.ask("bob:1") == 200
    # Each further session of the same address that wasn't let in yet is another stranger there.
    assert [edge.ask(f"ann:{n}", uuid4()) for n in (2, 3, 4)] == [404, 404, 429]
    assert edge.ask("bob:1") == 200
    # Who leaves the choice to identity, and is in no organization, is a stranger as well.
    other = Edge(stranger_burst=2)
    assert [other.ask("ann:1", "-") for _ in range(3)] == [404, 404, 429]


def test_made_up_credentials_are_counted_by_address_and_by_network() -> None:
    edge = Edge(stranger_burst=2)
    addresses = ["2001:db8:0:7::1", "2001:db8:0:7:ffff::2", "2001:db8:0:7::3", "2001:db8:0:8::1", "::ffff:192.0.2.7"]
    assert [edge.ask(f"forged:{n}", client=each) for n, each in enumerate(addresses)] == [401, 401, 429, 401, 401]
    assert [edge.ask(f"forged:{n}") for n in (8, 9)] == [401, 429]


@pytest.mark.parametrize("was_let_in", [True, False])
def test_a_session_that_ended_is_slowed_and_keeps_nobody_from_signing_in(was_let_in: bool) -> None:
    edge = Edge(stranger_burst=3)
    if was_let_in:
        edge.behind.seen.add("forged:1")
    assert [edge.ask("forged:1") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert edge.behind.asked == 3
    assert edge.ask("ann:1") == 200


def test_what_is_public_has_a_limit_by_address_alone() -> None:
    edge = Edge(write_burst=2)
    ask: dict[str, Any] = {"session": "", "method": "POST", "path": "/v1/sso/sessions"}
    assert [edge.ask(**ask) for _ in range(3)] == [200, 200, 429]
    assert edge.behind.called == 2
    assert edge.ask(**ask, client="192.0.2.8") == 200
    # No session that is sent along makes it another caller's.
    assert edge.ask(**{**ask, "session": "ann:1"}) == 429
    status, headers, document = edge.answer(**ask)
    assert (status, document["reason"]) == (429, "RATE_LIMITED")
    assert headers["ratelimit-policy"] == ['"address";q=2;w=20']
    assert headers["ratelimit"][0].startswith('"address";r=0;t=')
    # And a stranger's attempts at what isn't public hold it up too.
    slow = Edge(stranger_burst=1)
    assert slow.ask("forged:1") == 401
    assert slow.ask(**ask) == 429


def test_an_answer_says_what_is_left_of_each_limit_and_a_refusal_when_to_come_again() -> None:
    edge = Edge(read_burst=2, organization_reads_a_second=10.0, organization_read_burst=50)
    _, headers, _ = edge.answer()
    assert headers["ratelimit-policy"] == ['"credential";q=2;w=20', '"actor";q=2;w=20', '"organization";q=50;w=5']
    assert headers["ratelimit"] == ['"credential";r=1;t=10', '"actor";r=1;t=10', '"organization";r=49;t=0']
    assert "retry-after" not in headers
    edge.ask()
    status, headers, document = edge.answer()
    assert (status, document["reason"]) == (429, "RATE_LIMITED")
    assert headers["ratelimit"] == ['"credential";r=0;t=20']
    assert headers["retry-after"] == ["10"] == [document["metadata"]["retry_after_seconds"]]


def test_a_stranger_is_told_the_whole_wait() -> None:
    edge = Edge(stranger_burst=2)
    assert [edge.ask("forged:1"), edge.ask("forged:2")] == [401, 401]
    status, headers, _ = edge.answer("forged:3")
    assert (status, headers["retry-after"], headers["ratelimit"]) == (429, ["10"], ['"attempts";r=0;t=20'])


def test_nobodys_budget_is_forgotten_before_it_is_whole_and_memory_is_bounded() -> None:
    now = 0.0
    limiter = Limiter(rate=1.0, burst=3, clock=lambda: now, keys=10)
    assert [limiter.take("mine").allowed for _ in range(4)] == [True, True, True, False]
    for n in range(1000):
        limiter.take(f"made up {n}")
    assert not limiter.take("mine").allowed
    assert len(limiter) <= 11  # Whoever comes on top shares one budget,
    assert not limiter.take("made up last").allowed
    now = 1.5  # and all who called once are whole again, but not who called three times.
    assert limiter.take("new").remaining == 2
    assert limiter.take("mine").remaining == 0
    now = 60.0
    limiter.look("mine")
    assert len(limiter) == 0


@pytest.mark.parametrize("calls", [1, 2])
def test_looking_counts_nothing(calls: int) -> None:
    limiter = Limiter(rate=1.0, burst=2, clock=lambda: 0.0)
    for _ in range(calls):
        limiter.take("a")
    assert [limiter.look("a").remaining for _ in range(3)] == [2 - calls] * 3
    assert limiter.look("a").allowed is (calls < 2)


def test_who_is_refused_is_counted_by_the_limit_and_everything_by_its_route() -> None:
    edge = Edge(read_burst=3, organization_read_burst=2, organization_reads_a_second=0.1)
    assert [edge.ask(f"{user}:1") for user in ("ann", "bob", "cid")] == [200, 200, 429]
    assert edge.ask(path=f"/v1/{uuid4()}") == 404
    shown = edge.metrics.render()
    assert 'recoup_http_refused{limit="organization"} 1\n' in shown
    assert 'recoup_http_refused{limit="actor"} 0\n' in shown
    route = "GET /v1/organizations/{organization_id}/scans"
    for said in (
        f'route="{route}",status="200"}} 2',
        f'route="{route}",status="429"}} 1',
        'route="none",status="404"} 1',
    ):
        assert f"recoup_http_total{{{said}\n" in shown
    assert f'recoup_http_seconds_count{{route="{route}"}} 3\n' in shown
