"""Google's Resource Manager, by google-auth. See clouds.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services._mesh.clouds import CloudToken, GoogleSettings
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
from services.scanner.model.cloud import CloudScope

# As many permissions as one call takes (Resource Manager, projects.testIamPermissions).
_AT_ONCE = 100
_PIECE_BYTES = 64 * 1024


class GoogleReader:
    """Google's Resource Manager."""

    def __init__(self, threads: BoundedThreads, settings: GoogleSettings) -> None:
        self._threads, self._host = threads, settings.resource_manager

    async def scopes(self, token: CloudToken) -> list[CloudScope]:
        """See CloudReader."""
        found: list[CloudScope] = []
        following = ""
        for _ in range(MAX_PAGES):
            more = f"&pageToken={following}" if following else ""
            document = await self._call(token, "GET", f"/v3/projects:search?pageSize=500{more}")
            found += [
                CloudScope(str(each["projectId"]), str(each.get("displayName", ""))[:200])
                for each in document.get("projects", ())
            ]
            following = str(document.get("nextPageToken", ""))
            if not following.replace("-", "").replace("_", "").isalnum() or len(found) >= MAX_SCOPES:
                break
        return found[:MAX_SCOPES]

    async def probe(self, token: CloudToken, wanted: Sequence[str]) -> Mapping[str, bool]:
        """See CloudReader. Asking what is allowed is always allowed; seeing the project shows that it is there."""
        await self._call(token, "GET", f"/v3/projects/{token.scope_id}")
        held: set[str] = set()
        for start in range(0, len(wanted), _AT_ONCE):
            asked = {"permissions": list(wanted[start : start + _AT_ONCE])}
            path = f"/v3/projects/{token.scope_id}:testIamPermissions"
            held.update((await self._call(token, "POST", path, asked)).get("permissions", ()))
        return {permission: permission in held for permission in wanted}

    async def _call(
        self, token: CloudToken, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        try:
            return await self._threads.run(CALL_SECONDS, self._send, token, method, path, body)
        except TimeoutError:
            raise CloudFailed("UNREACHABLE", "Timeout") from None

    def _send(self, token: CloudToken, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """In its thread: one call, which changes nothing."""
        import requests
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import AuthorizedSession
        from google.oauth2.credentials import Credentials

        credentials: Any = Credentials(token.access_token)  # type: ignore[no-untyped-call]
        session: Any = AuthorizedSession(credentials, refresh_status_codes=())  # type: ignore[no-untyped-call]
        try:
            with session:
                answer = session.request(
                    method, self._host + path, json=body, timeout=(CONNECT_SECONDS, READ_SECONDS),
                    max_allowed_time=CALL_SECONDS, allow_redirects=False, stream=True,
                    # What Cloud Audit Logs show as the reason of the call.
                    headers={"X-Goog-Request-Reason": token.source_identity},
                )  # fmt: skip
                return read_document(answer.status_code, answer.iter_content(_PIECE_BYTES), _code)
        except (requests.RequestException, GoogleAuthError):
            raise CloudFailed("UNREACHABLE", "GoogleUnreachable") from None


def _code(error: Mapping[str, Any]) -> str:
    """Google's own reason, such as SERVICE_DISABLED, or else its status (AIP-193)."""
    details = error.get("details")
    reasons = [each.get("reason") for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    return str(next((each for each in reasons if each), error.get("status", "")))
