"""REST calls to the gateway, with a deadline each, and its problems as exceptions."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

CALL_SECONDS = 30.0


class GatewayRefused(Exception):
    """The gateway answered with a problem (RFC 9457). `reason` is one of `recoup.errors.v1.ErrorReason`."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"the gateway answered {status}"))
        self.status = status
        self.reason = str(problem.get("reason", ""))
        self.metadata: dict[str, str] = dict(problem.get("metadata") or {})
        self.violations: list[dict[str, str]] = list(problem.get("violations") or [])
        self.request_id = str(problem.get("requestId", ""))


class GatewayUnreachable(Exception):
    """No answer came, or none that is the gateway's."""


class Rest:
    """A connection to one gateway with one session token."""

    def __init__(self, gateway: str, token: str, ca: Path | None = None) -> None:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._client = httpx.Client(
            base_url=gateway, verify=verify, headers={"authorization": f"Bearer {token}"}, timeout=CALL_SECONDS
        )

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, parameters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer's JSON. Raises GatewayRefused, GatewayUnreachable."""
        try:
            answer = self._client.request(method, path, json=body, params=parameters)
            document: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise GatewayUnreachable(f"the gateway didn't answer ({type(error).__name__})") from error
        if answer.is_error:
            raise GatewayRefused(answer.status_code, document)
        return document

    def __enter__(self) -> Rest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
