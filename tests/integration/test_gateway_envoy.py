"""The edge's transcoder and Envoy's, asked the same: they agree, but for a written list of differences."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message

from services._mesh.errors import Problem
from services.gateway import problems, transcode
from services.gateway.routes import Router
from tests.support.transcoding import descriptors
from tests.support.transcoding.corpus import Case, cases
from tests.support.transcoding.differences import DIFFERENCES, reason_for
from tests.support.transcoding.envoy import RAW, REPEATS, transcoder

SERVICE = descriptors("everything.proto").services_by_name["EchoService"]
ROUTER = Router([("test", SERVICE)])
REFUSED = "refused"


def test_the_transcoders_agree_but_for_the_written_differences() -> None:
    unexplained, used, count = [], set(), 0
    with transcoder("everything.proto", SERVICE.full_name) as envoy:
        for case in cases(seed=7, mixed=300):
            status, body = envoy.ask(case.method, case.target, case.body)
            theirs = read(case, body) if status == 200 else REFUSED
            mine, said = ours(case)
            count += 1
            if theirs == mine:
                continue
            reason = reason_for(case.about)
            used.add(reason)
            if not reason:
                unexplained.append((case.about, status, str(body[:100]), said))
    assert count > 2000
    assert not unexplained
    assert set(DIFFERENCES) == used


def read(case: Case, body: bytes) -> Any:
    """What Envoy answered."""
    if body == RAW.data:
        return RAW.data
    try:
        return [json.loads(line) for line in body.splitlines()] if "/repeat/" in case.path else json.loads(body)
    except ValueError:
        return "no JSON"


def ours(case: Case) -> tuple[Any, str]:
    """What the edge makes of it, with the same echo behind; and what it says where it refuses."""
    try:
        query = transcode.parse_query(case.query.encode())
        found = ROUTER.find(case.method, case.path)
        if isinstance(found, list):
            return REFUSED, f"405 {found}" if found else "404"
        route, variables = found
        message: Message = transcode.build_request(route, variables, query, case.body, 100)
    except ValueError as error:
        return REFUSED, str(error)
    except Problem as problem:
        return REFUSED, f"{problems.status_of(problem)} {problem.message}"
    if route.rule.method == "Raw":
        return RAW.data, ""
    answer = json.loads(transcode.render(route, message))
    return [answer] * REPEATS if route.rule.response_streaming else answer, ""
