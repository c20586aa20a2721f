"""Which organization a request is about: the path's, the header's, or the one that identity chooses; and whose passport
is kept for how long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from recoup.identity.v1 import identity_service_pb2 as pb
from recoup.identity.v1 import identity_service_pb2_grpc
from services._mesh.errors import Invalid, Problem, Reason, Unauthenticated, Unavailable
from services._mesh.passports import Passport, sign_passport
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.times import stamp_seconds
from services.gateway.exchange import read
from services.gateway.passports import PassportOffice, organization_of
from services.gateway.session import Session
from tests.support.things import ACME, GLOBEX, MovableClock, keys, serving

HEADER = "recoup-organization"
ONE, BAD = Session.of("one"), Session.of("bad")


def test_path_and_header_name_it_together_or_one_of_them() -> None:
    acme, globex = str(ACME), str(GLOBEX)
    assert organization_of(acme, {}) == organization_of(acme, {HEADER: acme}) == acme
    assert organization_of("-", {HEADER: acme}) == acme
    assert organization_of("-", {}) == ""
    for path, header in ((acme, globex), ("-", "acme"), ("-", "-"), ("acme", ""), (acme.upper() + "A", ""), ("", acme)):
        with pytest.raises(Invalid):
            organization_of(path, {HEADER: header})


def test_the_edge_takes_what_is_meant_for_it_and_nothing_that_the_mesh_says_to_itself() -> None:
    given = [(b"Recoup-Organization", b"a"), (b"recoup-request-id", b"c")]
    given += [(b"recoup-grant", b"d"), (b"X-HTTP-Method-Override", b"DELETE")]
    found = read({"method": "GET", "path": "/", "query_string": b"", "headers": given})
    assert found.headers == {HEADER: "a"}


class Identity(identity_service_pb2_grpc.IdentityServiceServicer):
    """Issues passports for whatever it is asked, and counts."""

    def __init__(self, sign: Callable[[pb.IssuePassportRequest], Passport], key: Any) -> None:
        self._sign, self._key, self.asked = sign, key, list[pb.IssuePassportRequest]()
        self.gate = asyncio.Event()
        self.gate.set()
        self._more = asyncio.Condition()

    async def reached(self, asked: int) -> None:
        """Wait until so many have asked."""
        async with asyncio.timeout(10), self._more:
            await self._more.wait_for(lambda: len(self.asked) >= asked)

    async def IssuePassport(self, request: pb.IssuePassportRequest, context: Any) -> pb.IssuePassportResponse:
        async with self._more:
            self.asked.append(request)
            self._more.notify_all()
        await self.gate.wait()
        if request.session_token == "bad":
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "No.")
        passport = self._sign(request)
        return pb.IssuePassportResponse(
            passport=sign_passport(self._key, passport),
            expires_at=stamp_seconds(passport.expires_at),
            organization_id=str(passport.organization_id or ""),
        )


@dataclass
class Desk:
    """An office before a real gRPC server."""

    office: PassportOffice
    identity: Identity
    revocations: Revocations
    clock: MovableClock


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    key, _ = keys(tmp_path, "identity")
    clock = MovableClock()
    revocations = Revocations(clock)

    def passport(request: pb.IssuePassportRequest) -> Passport:
        chosen = str(GLOBEX) if request.choice == pb.ORGANIZATION_CHOICE_DEFAULT else request.organization_id
        now = int(time.time())
        return Passport(
            audience=request.audience,
            actor=f"user:{ACME}",
            responsible_person=ACME,
            organization_id=UUID(chosen) if chosen else None,
            role="ADMIN",
            permissions=frozenset(),
            permissions_version=1,
            session_id=request.session_token,
            aal=1,
            auth_time=now,
            act=(),
            presenter="x5t",
            jti=str(uuid4()),
            issued_at=now,
            expires_at=now + 300,
            rests_on=(f"user:{ACME}",),
        )

    identity = Identity(passport, key)

    def add(server: grpc.aio.Server) -> None:
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(identity, server)

    async with serving(add, "gateway") as channel:
        yield Desk(PassportOffice(channel, revocations, clock), identity, revocations, clock)


async def test_a_passport_is_kept_by_session_organization_and_service(desk: Desk) -> None:
    acme, globex = str(ACME), str(GLOBEX)
    wanted = [(s, a, o) for s in (ONE, Session.of("two")) for a in ("scanner", "audit") for o in (acme, globex, "")]
    first = [await desk.office.passport(*each) for each in wanted]
    assert len(set(first)) == len(desk.identity.asked) == len(wanted)
    assert [await desk.office.passport(*each) for each in wanted] == first
    assert len(desk.identity.asked) == len(wanted)
    assert await desk.office.passport(ONE, "scanner", acme, str(uuid4())) not in first
    assert await desk.office.renew(*wanted[0]) not in first
    # Nothing in it is a session.
    assert "one" not in repr(vars(desk.office._known)) + repr(vars(desk.office._seen))


async def test_all_who_ask_at_once_share_one_answer(desk: Desk) -> None:
    calls = [asyncio.create_task(desk.office.passport(ONE, "scanner", str(ACME))) for _ in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert len(set(done[1:])) == len(desk.identity.asked) == 1
    refused = [desk.office.passport(BAD, "scanner", "") for _ in range(5)]
    assert {type(each) for each in await asyncio.gather(*refused, return_exceptions=True)} == {Unauthenticated}
    assert len(desk.identity.asked) == 2
    assert not desk.office.knows(BAD)
    assert desk.office._asked == {}


@pytest.mark.parametrize(
    ("kind", "revoked"),
    [
        (RevocationKind.SESSION, "one"),
        (RevocationKind.ACTOR, f"user:{ACME}"),
        (RevocationKind.MEMBER, f"{ACME}/user:{ACME}"),
        (RevocationKind.ORGANIZATION, str(ACME)),
    ],
)
async def test_what_the_feed_takes_back_is_kept_no_longer(desk: Desk, kind: RevocationKind, revoked: str) -> None:
    before = await desk.office.passport(ONE, "scanner", str(ACME))
    desk.revocations.apply([Revocation(1, kind, revoked, time.time())], 1)
    assert await desk.office.passport(ONE, "scanner", str(ACME)) != before
    assert len(desk.identity.asked) == 2


async def test_a_passport_isnt_used_in_its_last_half_minute(desk: Desk) -> None:
    desk.clock.wall_ahead = desk.clock.wall_ahead.resolution * 280_000_000
    await desk.office.passport(ONE, "scanner", str(ACME))
    await desk.office.passport(ONE, "scanner", str(ACME))
    assert len(desk.identity.asked) == 2


async def test_identity_chooses_where_nobody_does_and_its_passport_is_used(desk: Desk) -> None:
    assert [await desk.office.choose(ONE, "scanner") for _ in range(2)] == [str(GLOBEX)] * 2
    await desk.office.passport(ONE, "scanner", str(GLOBEX))
    assert len(desk.identity.asked) == 1
    with pytest.raises(Problem):
        await desk.office.choose(BAD, "scanner")


async def test_who_was_let_in_doesnt_queue_behind_a_flood_of_newcomers(desk: Desk) -> None:
    await desk.office.passport(ONE, "scanner", str(ACME))
    desk.identity.gate.clear()
    flood = [asyncio.create_task(desk.office.passport(Session.of(f"made up {n}"), "scanner", "")) for n in range(400)]
    known = asyncio.create_task(desk.office.passport(ONE, "audit", str(ACME)))
    await desk.identity.reached(1 + 2 + 1)
    assert [request.session_token for request in desk.identity.asked].count("one") == 2
    # Two ask, 256 wait, the others are told at once.
    told = [each for each in flood if each.done()]
    assert len(told) == 400 - 2 - 256
    assert {type(each.exception()) for each in told} == {Unavailable}
    desk.identity.gate.set()
    await known
    await asyncio.gather(*set(flood) - set(told))
    assert desk.office._asked == {}
