"""Writes the recording: one JSON line per request with its answer, without secrets, and keeps counts.

It never writes secret keys, session tokens, signatures, external ids or object bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.identities import Principal
from recoup_local.cloud.proxy.wire import Answer

MAX_ANSWER_CHARS = 2000
REDACTED = "[redacted]"
_SECRET_PARAMS = re.compile(r"(?i)secret|token$|signature|password|externalid|samlassertion")
_SECRET_ANSWERS = frozenset({"sts", "iam"})
_CODE = re.compile(rb"<Code>([\w.]+)</Code>|\"__type\": ?\"([\w.#]+)\"")


@dataclass
class Entry:
    """What is known about one request while it is served; `fault` names the rule and effect applied."""

    call: Call
    started: datetime
    principal: Principal | None = None
    answer: Answer | None = None
    upstream_status: int | None = None
    fault: str = ""


class Recorder:
    """Appends to the JSON-lines file and counts calls by name and kind of principal."""

    def __init__(self, path: Path, simulated_now: Callable[[], datetime]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._simulated_now = simulated_now
        self._lines: list[dict[str, Any]] = []
        self._sequence = 0
        self._changes: dict[str, int] = {}

    def record(self, entry: Entry) -> None:
        """Writes one line; to be called exactly once per request, also when its answer was dropped."""
        self._sequence += 1
        line = self._line(entry)
        self._lines.append(line)
        if line["applied"] and line["service"] == "ec2":
            place = f"{line['account']}/{line['region']}"
            self._changes[place] = self._changes.get(place, 0) + 1
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def lines(self, since: int) -> list[dict[str, Any]]:
        """The lines with a sequence number above `since`."""
        return self._lines[max(since, 0) :]

    def changes(self) -> dict[str, int]:
        """How many applied changes of EC2 resources each "account/region" has seen."""
        return dict(self._changes)

    def counts(self, principal: str | None, since: int) -> dict[str, Any]:
        """Requests, mutating requests and applied changes, in total and by `service:Action`."""
        totals = {"requests": 0, "mutating": 0, "applied": 0}
        by_action: dict[str, dict[str, int]] = {}
        for line in self.lines(since):
            if principal is not None and line["principal"] != principal:
                continue
            row = by_action.setdefault(
                f"{line['service']}:{line['action']}",
                {"requests": 0, "mutating": 0, "applied": 0, "errors": 0},
            )
            row["errors"] += int(line["status"] is None or line["status"] >= 400)
            for table in (totals, row):
                table["requests"] += 1
                table["mutating"] += int(line["mutating"])
                table["applied"] += int(line["applied"])
        return {**totals, "by_action": by_action, "last_seq": self._sequence}

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _line(self, entry: Entry) -> dict[str, Any]:
        now = datetime.now(UTC)
        call, principal, answer = entry.call, entry.principal, entry.answer
        upstream_ok = entry.upstream_status is not None and entry.upstream_status < 400
        return {
            "seq": self._sequence,
            "time": entry.started.isoformat(),
            "sim_time": self._simulated_now().isoformat(),
            "service": call.service,
            "action": call.action,
            "region": call.region,
            "account": principal.account if principal else None,
            "principal": principal.kind if principal else "unknown",
            "arn": principal.arn if principal else None,
            "access_key_id": call.access_key_id,
            "session_name": principal.session_name or None if principal else None,
            "source_identity": principal.source_identity or None if principal else None,
            "mutating": call.mutating,
            "applied": call.mutating and upstream_ok,
            "params": sanitized(call.params),
            "status": answer.status if answer else None,
            "upstream_status": entry.upstream_status,
            "error_code": _error_code(answer),
            "answer": _excerpt(call, answer),
            "duration_ms": round((now - entry.started).total_seconds() * 1000, 1),
            "fault": entry.fault or None,
        }


def sanitized(params: dict[str, str]) -> dict[str, str]:
    """The parameters with secret values replaced."""
    return {key: REDACTED if _SECRET_PARAMS.search(key) else value for key, value in params.items()}


def _error_code(answer: Answer | None) -> str | None:
    if answer is None or answer.status < 400:
        return None
    found = _CODE.search(answer.body)
    if not found:
        return answer.header("x-amzn-errortype") or None
    return (found.group(1) or found.group(2)).decode("ascii")


def _excerpt(call: Call, answer: Answer | None) -> str | None:
    """The start of the answer; nothing of objects' contents or of answers that may carry credentials."""
    if answer is None:
        return None
    if answer.status < 400 and (call.service in _SECRET_ANSWERS or call.action == "GetObject"):
        return f"[{len(answer.body)} bytes]"
    return answer.body[:MAX_ANSWER_CHARS].decode("utf-8", "replace")
