"""Passports for the calls of one session: asked of identity once, kept until shortly before they end, bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

import grpc
import grpc.aio

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.errors import from_rpc_error, invalid_field
from services._mesh.limits import BoundedCache
from services._mesh.passport_cache import PassportCache
from services._mesh.passports import Passport
from services._mesh.revocations import Revocations
from services.gateway.newcomers import Lane
from services.gateway.session import Session

# What the path has for an organization's id where the caller leaves the choice to the header, or to identity.
NO_ORGANIZATION = "-"
ORGANIZATION_HEADER = "recoup-organization"
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CACHED = 10_000
_SEEN_SECONDS = 600.0
_CHOICE_SECONDS = 30.0
_CALL_SECONDS = 10.0
# Of sessions that identity hasn't accepted lately: how many ask at a time, and how many wait for it.
_NEWCOMERS, _WAITING = 2, 256
# Session (its digest), service, organization, break-glass access.
Key = tuple[str, str, str, str]


class Issued(NamedTuple):
    """A passport as it is presented, and what it says."""

    token: str
    passport: Passport


def elevation_of(headers: Mapping[str, str]) -> str:
    """The id of the break-glass access that the caller says to act under, or nothing. Raises Invalid."""
    given = headers.get("elevation-id", "")
    try:
        return given and str(UUID(given))
    except ValueError as error:
        raise invalid_field("Elevation-Id", "must be the id of a break-glass access, a UUID") from error


def organization_of(named: str, headers: Mapping[str, str]) -> str:
    """The organization that a path and the header name, or nothing where they leave it open. Raises Invalid."""
    header = headers.get(ORGANIZATION_HEADER)
    if header is not None:
        _require_uuid("Recoup-Organization", header)
    if named == NO_ORGANIZATION:
        return header or ""
    _require_uuid("organization_id", named)
    if header not in (None, named):
        raise invalid_field("Recoup-Organization", "must be the organization of the path: send one of them.")
    return named


def _require_uuid(field: str, value: str) -> None:
    """An organization in its one spelling. What can't name one isn't looked for."""
    if not _UUID.fullmatch(value):
        raise invalid_field(field, "must be a UUID in lower case with hyphens.")


class PassportOffice:
    """The gateway's side of the exchange. It never reads a session: identity says what it is worth."""

    def __init__(self, channel: grpc.aio.Channel, revocations: Revocations, clock: Clock) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._known: PassportCache[Key] = PassportCache(_CACHED, revocations, clock)
        self._seen: BoundedCache[str, bool] = BoundedCache(_CACHED)
        self._chosen: BoundedCache[str, str] = BoundedCache(_CACHED)
        self._asked: dict[Key, asyncio.Task[Issued]] = {}
        self._newcomers = Lane(_NEWCOMERS, _WAITING, _CALL_SECONDS)

    def knows(self, session: Session) -> bool:
        """Whether identity has accepted this session lately."""
        return self._seen.get(session.digest) is not None

    async def passport(self, session: Session, audience: str, organization_id: str, elevation_id: str = "") -> Issued:
        """A passport for `audience`, under break-glass access where its id is given. Raises Problem."""
        found = self._known.find((session.digest, audience, organization_id, elevation_id))
        return Issued(*found) if found else await self.renew(session, audience, organization_id, elevation_id)

    async def renew(self, session: Session, audience: str, organization_id: str, elevation_id: str = "") -> Issued:
        """A new passport, after the one that we had was refused. All who ask for it at once share one."""
        key = (session.digest, audience, organization_id, elevation_id)
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._issue(session, key))
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def _answered(self, key: Key, task: asyncio.Task[Issued]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # Where everybody who waited went away, nobody else takes notice of it.

    async def choose(self, session: Session, audience: str) -> str:
        """The organization that the person is in who names none. Raises Problem."""
        found = self._chosen.get(session.digest)
        if found is None:
            await self.renew(session, audience, NO_ORGANIZATION)
            found = self._chosen.get(session.digest) or ""
        return found

    async def _issue(self, session: Session, key: Key) -> Issued:
        digest, audience, organization_id, elevation_id = key
        request = identity_service_pb2.IssuePassportRequest(
            session_token=session.token, audience=audience, elevation_id=elevation_id
        )
        if organization_id == NO_ORGANIZATION:
            request.choice = identity_service_pb2.ORGANIZATION_CHOICE_DEFAULT
        else:
            request.organization_id = organization_id
        try:
            if self._seen.get(digest) is not None:
                answer = await self._stub.IssuePassport(request, timeout=_CALL_SECONDS)
            else:
                async with self._newcomers.place():
                    answer = await self._stub.IssuePassport(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        self._seen.put(digest, True, _SEEN_SECONDS)
        if organization_id == NO_ORGANIZATION:
            self._chosen.put(digest, answer.organization_id, _CHOICE_SECONDS)
            key = (digest, audience, answer.organization_id, elevation_id)
        return Issued(answer.passport, self._known.put(key, answer.passport))
