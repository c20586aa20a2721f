"""The control API under /_proxy/: faults, held calls, the recording, counts and settings.

For tests and the supervisor; needs the control token. It is no part of the emulated cloud.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

from recoup_local.cloud.proxy.access import Access
from recoup_local.cloud.proxy.ec2_rules import Delays
from recoup_local.cloud.proxy.faults import BadRuleError, Faults, parse_rule
from recoup_local.cloud.proxy.recorder import Recorder
from recoup_local.cloud.proxy.wire import Answer, Request

PREFIX = "/_proxy/"
MAX_WAIT_SECONDS = 60.0


class Control:
    """Answers control requests; everything it changes belongs to the objects it was given."""

    def __init__(self, token: str, faults: Faults, recorder: Recorder, access: Access, delays: Delays) -> None:
        self._token = token
        self._faults = faults
        self._recorder = recorder
        self._access = access
        self._delays = delays

    async def answer(self, request: Request) -> Answer:
        """The answer to one control request; errors are JSON with a message saying what is expected."""
        route = request.path.removeprefix(PREFIX).strip("/").split("/")
        if route == ["health"]:
            return _json(200, {"ready": True})
        if not hmac.compare_digest(request.header("x-proxy-token").encode(), self._token.encode()):
            return _json(401, {"error": "the X-Proxy-Token header must hold the control token"})
        query = {key: values[-1] for key, values in parse_qs(request.raw_query).items()}
        try:
            document: object = json.loads(request.body) if request.body else {}
            return await self._route(request.method, route, query, document)
        except (BadRuleError, ValueError, TypeError) as error:
            return _json(400, {"error": str(error)})

    async def _route(self, method: str, route: list[str], query: dict[str, str], document: object) -> Answer:
        since = int(query.get("since", "0"))
        match (method, *route):
            case ("POST", "faults"):
                return _json(201, {"id": self._faults.add(parse_rule(document))})
            case ("GET", "faults"):
                return _json(200, {"faults": [_shown(active) for active in self._faults.rules()]})
            case ("DELETE", "faults"):
                for active in self._faults.rules():
                    self._faults.remove(active.id)
                return _json(200, {"removed": True})
            case ("DELETE", "faults", rule_id):
                return _json(200 if self._faults.remove(rule_id) else 404, {"id": rule_id})
            case ("GET", "waiting"):
                seconds = min(float(query.get("timeout_seconds", "10")), MAX_WAIT_SECONDS)
                held = await self._faults.waiting(query.get("rule"), seconds)
                return _json(200 if held else 408, {"waiting": [item.as_json() for item in held]})
            case ("GET", "log"):
                return _json(200, {"lines": self._recorder.lines(since)})
            case ("GET", "counts"):
                return _json(200, self._recorder.counts(query.get("principal"), since))
            case ("GET", "changes"):
                return _json(200, self._recorder.changes())
            case ("GET", "settings"):
                return _json(200, self._settings())
            case ("PATCH", "settings"):
                self._change_settings(document)
                return _json(200, self._settings())
            case ("POST", "sessions", access_key_id, "expire"):
                found = self._access.identities.expire_session(access_key_id)
                return _json(200 if found else 404, {"access_key_id": access_key_id})
        return _json(404, {"error": f"no control route {method} {PREFIX}{'/'.join(route)}"})

    def _settings(self) -> dict[str, Any]:
        denied = sorted(self._access.denied_regions)
        return {
            **asdict(self._delays),
            "denied_regions": [f"{account}:{region}" for account, region in denied],
        }

    def _change_settings(self, document: object) -> None:
        if not isinstance(document, dict) or set(document) - set(self._settings()):
            raise ValueError(f"settings are an object with fields of {sorted(self._settings())}")
        for name in ("snapshot_polls", "modification_polls"):
            if name in document:
                setattr(self._delays, name, int(document[name]))
        if "snapshot_seconds" in document:
            self._delays.snapshot_seconds = float(document["snapshot_seconds"])
        if "denied_regions" in document:
            self._access.denied_regions = parse_denied(document["denied_regions"])


def parse_denied(items: list[str]) -> set[tuple[str, str]]:
    """Reads ["account:region", …]. Raises ValueError."""
    denied: set[tuple[str, str]] = set()
    for item in items:
        account, colon, region = item.partition(":")
        if not (account.isdecimal() and colon and region):
            raise ValueError(f"{item!r} is not ACCOUNT:REGION")
        denied.add((account, region))
    return denied


def _shown(active: Any) -> dict[str, Any]:
    return {"id": active.id, "seen": active.seen, "applied": active.applied, **asdict(active.rule)}


def _json(status: int, document: object) -> Answer:
    return Answer(status, json.dumps(document).encode("utf-8"), (("Content-Type", "application/json"),))
