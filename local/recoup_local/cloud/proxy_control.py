"""A client of the proxy's control API, for tests, the supervisor and the bill simulator; with deadlines.

Standard library only. The fields of rules and lines are documented in README.md.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from recoup_local.cloud.launch import CloudEndpoints

DEADLINE_SECONDS = 10.0


class ControlError(RuntimeError):
    """The control API refused; the message is its own."""


class ProxyControl:
    """Faults, held calls, recording and settings of one running proxy."""

    def __init__(self, control_url: str, token: str) -> None:
        self._url = control_url
        self._token = token

    @classmethod
    def of(cls, endpoints: CloudEndpoints) -> ProxyControl:
        """That of a cloud started by `start_cloud`."""
        return cls(endpoints.control_url, endpoints.control_token)

    def add_fault(self, **rule: Any) -> str:
        """Puts a fault rule in force and returns its id. Raises ControlError on an invalid rule."""
        return str(self._call("POST", "faults", rule)["id"])

    def remove_fault(self, rule_id: str) -> None:
        """Takes a rule out of force; what it holds goes on."""
        self._call("DELETE", f"faults/{rule_id}")

    def clear_faults(self) -> None:
        """Takes all rules out of force."""
        self._call("DELETE", "faults")

    def wait_until_held(self, rule_id: str, timeout_seconds: float = 10.0) -> list[dict[str, Any]]:
        """The calls that a `hold` rule holds, once there is one. Raises ControlError after the time-out."""
        path = f"waiting?rule={rule_id}&timeout_seconds={timeout_seconds}"
        held: list[dict[str, Any]] = self._call("GET", path, deadline=timeout_seconds + 5)["waiting"]
        return held

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """The recorded lines with a sequence number above `since`."""
        lines: list[dict[str, Any]] = self._call("GET", f"log?since={since}")["lines"]
        return lines

    def counts(self, principal: str | None = "session", since: int = 0) -> dict[str, Any]:
        """Counts of calls; by default only those made with assumed roles, i.e. by Recoup."""
        query = f"since={since}" + (f"&principal={principal}" if principal else "")
        return self._call("GET", f"counts?{query}")

    def changes(self) -> dict[str, int]:
        """How many applied changes each "account/region" has seen."""
        return self._call("GET", "changes")

    def settings(self, **changed: Any) -> dict[str, Any]:
        """The settings, after changing the given ones (snapshot_polls, denied_regions, …)."""
        return self._call("PATCH", "settings", changed)

    def expire_session(self, access_key_id: str) -> None:
        """Lets an assumed role's credentials expire now."""
        self._call("POST", f"sessions/{access_key_id}/expire")

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, deadline: float = DEADLINE_SECONDS
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode("utf-8")
        request = Request(f"{self._url}/{path}", data=data, method=method)  # noqa: S310 - loopback, our own child
        request.add_header("X-Proxy-Token", self._token)
        try:
            with urlopen(request, timeout=deadline) as answer:  # noqa: S310 - as above
                document: dict[str, Any] = json.load(answer)
                return document
        except HTTPError as error:
            raise ControlError(f"{method} {path}: {error.code} {error.read().decode('utf-8')}") from error
