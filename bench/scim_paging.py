"""identity.scim_page_p99_ms: a directory lists 10,000 users, 100 a page, through the edge.

The floor is the same page by a bare query under the same row-level security, as JSON. Requests come one after the
other, a little slower than a directory's budget at the edge: each page is measured alone.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx

from bench.measuring import Result, compare
from recoup_local.embedded.postgres import connect
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh
from services._mesh.ids import uuid7

USERS, PAGE, RUNS = 10_000, 100, 3
# The edge lets 50 reads a second through.
_PACE_SECONDS = 0.022
_BARE = """SELECT scim_id, document, version FROM identity.scim_users WHERE deleted_at IS NULL
  ORDER BY scim_id OFFSET $1 LIMIT $2"""


async def run(mesh: LocalMesh) -> Result:
    """Measure, in milliseconds: the p99 of all pages of a listing; the promise is 50."""
    acme = organization_id("acme")
    trust = ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file))
    assert mesh.postgres is not None
    connection = await connect(mesh.postgres)
    try:
        await _fill(connection, acme)
        async with httpx.AsyncClient(base_url=mesh.gateway_url, verify=trust, timeout=30.0) as client:
            headers = await _directory(client, mesh, str(acme))

            async def subject() -> float:
                return await _p99(lambda start: _page(client, headers, start))

            async def floor() -> float:
                return await _p99(lambda start: _bare(connection, acme, start))

            name = "the same page by a bare query under the same policy, as JSON"
            return await compare("identity.scim_page_p99_ms", "ms", name, subject, floor, RUNS)
    finally:
        await connection.close()


async def _fill(connection: asyncpg.Connection, organization: Any) -> None:
    """Put the users there, past the events that they would owe: nothing is measured by how they came."""
    now = datetime.now(UTC)
    rows = []
    for number in range(USERS):
        name = f"user{number:05}@acme.example"
        document = {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": name,
            "displayName": f"User {number}",
            "name": {"givenName": "User", "familyName": str(number)},
            "emails": [{"value": name, "type": "work", "primary": True}],
            "externalId": f"ext-{number}",
            "active": True,
        }
        rows.append((organization, uuid7(), name, f"ext-{number}", f"user {number}", json.dumps(document), now))
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.executemany(
            "INSERT INTO identity.scim_users (organization_id, scim_id, user_name, user_name_key, external_id,"
            " display_name_key, email_key, active, document, version, created_at, modified_at)"
            " VALUES ($1, $2, $3, $3, $4, $5, $3, true, $6::jsonb, 1, $7, $7)",
            rows,
        )
    await connection.execute("ANALYZE identity.scim_users")


async def _directory(client: httpx.AsyncClient, mesh: LocalMesh, organization: str) -> dict[str, str]:
    session = {"authorization": f"Bearer {mesh.token('acme', 'Admin')}"}
    answer = await client.post(f"/v1/organizations/{organization}/scimTokens", headers=session, json={"name": "bench"})
    answer.raise_for_status()
    return {"authorization": f"Bearer {answer.json()['token']}"}


async def _page(client: httpx.AsyncClient, headers: dict[str, str], start: int) -> int:
    answer = await client.get("/scim/v2/Users", params={"startIndex": start + 1, "count": PAGE}, headers=headers)
    answer.raise_for_status()
    return len(answer.json()["Resources"])


async def _bare(connection: asyncpg.Connection, organization: Any, start: int) -> int:
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL ROLE identity_api")
        await connection.execute(f"SET LOCAL app.organization_id = '{organization}'")
        rows = await connection.fetch(_BARE, start, PAGE)
    return len(json.loads(json.dumps([{"id": str(row[0]), **json.loads(row[1])} for row in rows])))


async def _p99(read: Any) -> float:
    """The second slowest of the hundred pages, in milliseconds."""
    taken = []
    for start in range(0, USERS, PAGE):
        began = time.perf_counter()
        assert await read(start) == PAGE
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(max(0.0, _PACE_SECONDS - (time.perf_counter() - began)))
    return sorted(taken)[-2]
