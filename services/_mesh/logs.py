"""Structured logs: one JSON object a line on stderr, with the trace id, and nothing that looks like a token."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from services._mesh import telemetry
from services._mesh.context import find_current

# A net under the rule that secrets are never logged: JWTs, AWS keys, and what stands after words such as "password".
_SECRET = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|(?i:(?<=password=)|(?<=secret=)|(?<=token=))[^\s&'\"]+"
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MAX_FIELD = 2000


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON; what stands in `extra` becomes keys of its own."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        call = find_current()
        if call is not None:
            entry |= {"rpc": call.rpc, "request_id": call.request_id}
        if trace_id := (call.trace_id if call is not None else telemetry.trace_id()):
            entry["trace_id"] = trace_id
        entry |= {k: redact(str(v)) for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def redact(text: str) -> str:
    """The text without what looks like a secret, and not longer than a log line should be."""
    clean = _SECRET.sub("[redacted]", text)
    return clean if len(clean) <= _MAX_FIELD else clean[:_MAX_FIELD] + "…"


def start(process: str, level: str) -> None:
    """Sends all logging of this process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
