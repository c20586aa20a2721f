"""Azure's management API, by azure-core. See clouds.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from services._mesh.clouds import AzureSettings, CloudToken
from services._mesh.threads import BoundedThreads
from services.scanner.clients.clouds import (
    CALL_SECONDS,
    CONNECT_SECONDS,
    MAX_PAGES,
    MAX_SCOPES,
    READ_SECONDS,
    CloudFailed,
    read_document,
)
from services.scanner.model.azure_actions import PermissionSet, is_allowed
from services.scanner.model.cloud import CloudScope

_SUBSCRIPTIONS = "/subscriptions?api-version=2022-12-01"
_PERMISSIONS = "/subscriptions/{}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AzureReader:
    """Azure's management API. `verify` is a file with the CA, for tests."""

    def __init__(self, threads: BoundedThreads, settings: AzureSettings, verify: str | bool = True) -> None:
        self._threads, self._host, self._verify = threads, settings.management, verify

    async def scopes(self, token: CloudToken) -> list[CloudScope]:
        """See CloudReader."""
        found = await self._pages(token, _SUBSCRIPTIONS)
        named = [CloudScope(str(s["subscriptionId"]), str(s.get("displayName", ""))[:200]) for s in found]
        return named[:MAX_SCOPES]

    async def probe(self, token: CloudToken, wanted: Sequence[str]) -> Mapping[str, bool]:
        """See CloudReader."""
        found = await self._pages(token, _PERMISSIONS.format(token.scope_id))
        given = [PermissionSet(each.get("actions") or (), each.get("notActions") or ()) for each in found]
        return {operation: is_allowed(operation, given) for operation in wanted}

    async def _pages(self, token: CloudToken, path: str) -> list[Mapping[str, Any]]:
        try:
            return await self._threads.run(CALL_SECONDS, self._read, token, path)
        except TimeoutError:
            raise CloudFailed("UNREACHABLE", "Timeout") from None

    def _read(self, token: CloudToken, path: str) -> list[Mapping[str, Any]]:
        """In its thread: all pages. The next one's address is followed only where it is on the same host."""
        from azure.core import PipelineClient
        from azure.core.exceptions import AzureError
        from azure.core.pipeline.policies import RetryPolicy, UserAgentPolicy
        from azure.core.pipeline.transport import RequestsTransport
        from azure.core.rest import HttpRequest

        transport = RequestsTransport(
            connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, connection_verify=self._verify
        )
        reason = _GUID.search(token.source_identity)
        headers = {"Authorization": f"Bearer {token.access_token}", "Accept": "application/json"}
        headers |= {"x-ms-correlation-request-id": reason[0]} if reason else {}
        policies = [UserAgentPolicy("recoup"), RetryPolicy(retry_total=1, retry_backoff_max=2)]
        found: list[Mapping[str, Any]] = []
        try:
            made: Any = PipelineClient(self._host, transport=transport, policies=policies)
            with made as client:
                for _ in range(MAX_PAGES):
                    answer = client.send_request(HttpRequest("GET", self._host + path, headers=headers), stream=True)
                    document = read_document(answer.status_code, answer.iter_bytes(), _code)
                    found += document.get("value", ())
                    following = str(document.get("nextLink") or "")
                    if not following.startswith(f"{self._host}/"):
                        return found
                    path = following.removeprefix(self._host)
        except AzureError:
            raise CloudFailed("UNREACHABLE", "AzureUnreachable") from None
        return found


def _code(error: Mapping[str, Any]) -> str:
    return str(error.get("code", ""))
