"""A person's way to the gateway: REST with a session token, and problems as exceptions."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx

CALL_SECONDS = 30.0


class Refused(Exception):
    """The gateway answered with a problem."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('reason', '')}: {problem.get('detail', '')}")
        self.status, self.problem = status, problem

    @property
    def reason(self) -> str:
        """The documented reason."""
        return str(self.problem.get("reason", ""))


class Somebody:
    """A signed-in person of one organization."""

    def __init__(self, gateway: str, ca: Path, token: str, organization_id: str) -> None:
        self.organization_id = organization_id
        # The trace of the last call.
        self.trace_id = ""
        self._client = httpx.AsyncClient(
            base_url=gateway,
            verify=ssl.create_default_context(cafile=str(ca)),
            headers={"authorization": f"Bearer {token}"},
            timeout=CALL_SECONDS,
        )

    async def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """Read something of the organization. Raises Refused."""
        return await self._call("GET", path, params=parameters)

    async def octets(self, path: str, **parameters: Any) -> bytes:
        """Read a piece of a file of the organization. Raises Refused."""
        answer = await self._client.get(f"/v1/organizations/{self.organization_id}{path}", params=parameters)
        if answer.is_error:
            raise Refused(answer.status_code, answer.json())
        return answer.content

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Have something done. Raises Refused."""
        return await self._call("POST", path, json=body)

    async def all(self, path: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = await self.get(path, **parameters, pageSize=200, **({"pageToken": token} if token else {}))
            found += page[key]
            token = page["nextPageToken"]
            if not token:
                return found

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = await self._client.request(method, f"/v1/organizations/{self.organization_id}{path}", **arguments)
        document: dict[str, Any] = answer.json()
        self.trace_id = (answer.headers.get("traceresponse", "") + "--").split("-")[1]
        if answer.is_error:
            raise Refused(answer.status_code, document)
        return document
