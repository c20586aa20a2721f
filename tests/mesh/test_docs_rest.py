"""The calls of docs/for/REST.md as they stand there: curl's words are read, and the same is asked of a live gateway."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
import pytest

from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "for" / "REST.md"


def asked(line: str, settings: dict[str, str], client: httpx.Client) -> httpx.Response:
    """What curl would ask for with these options; another one fails."""
    words = shlex.split(re.sub(r"\$([A-Z_]+)", lambda found: settings[found[1]], line))
    headers, body, url = {}, None, ""
    while words:
        match words.pop(0):
            case "curl":
                pass
            case "--cacert":
                assert words.pop(0) == settings["RECOUP_CA"]
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                body = words.pop(0)
            case str(word):
                assert not url
                assert word.startswith("https://")
                url = word
    return client.request("GET" if body is None else "POST", url, headers=headers, content=body)


def test_every_call_of_the_page_succeeds(made: TestMesh) -> None:
    person = made.rest("acme", "FinOps")
    settings = {
        "RECOUP_GATEWAY": made.mesh.gateway_url,
        "RECOUP_CA": str(made.mesh.installation.ca.cert_file),
        "RECOUP_TOKEN": person.token,
        "CONNECTION_ID": made.connection_id,
    }
    lines = re.findall(r"^ {4}(curl .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) == 4
    answers = [asked(line, settings, person.client) for line in lines[:3]]
    assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
    # The same key again is the same scan.
    assert asked(lines[2], settings, person.client).json() == answers[2].json()
    watched = asked(lines[3], {**settings, "SCAN_ID": answers[2].json()["scan"]["scanId"]}, person.client)
    assert (watched.status_code, watched.headers["content-type"]) == (200, "text/event-stream")
    assert watched.text.startswith("data: {")
