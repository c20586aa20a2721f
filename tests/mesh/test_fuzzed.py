"""The live gateway against its own description, by schemathesis: requests that fit it and requests that don't.

What the language of the description can't say isn't checked: that fields go together (rules across fields, a header and
the path that name one organization, `If-Match` and `etag`), that ids are those of something, and that a moment lies
ahead. So a request that fits the description may be refused (`positive_data_acceptance`). Who may call what is the
isolation suite's (`ignored_auth`), which knows what each credential is worth.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

DESCRIPTION = Path(__file__).parents[2] / "services" / "gateway" / "openapi.json"
NOT_SAYABLE = ("positive_data_acceptance", "ignored_auth")
# On a slow machine fewer operations are reached, and the test takes no longer.
SECONDS = 20


def test_the_gateway_keeps_to_its_description(made: TestMesh, tmp_path: Path) -> None:
    # Who reads everything and changes nothing: the other tests' world stays as it is.
    person = made.rest("acme", "Auditor")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", DESCRIPTION, "--url", made.mesh.gateway_url),
            *("--tls-verify", made.mesh.installation.ca.cert_file, "-H", f"Authorization: Bearer {person.token}"),
            *("--phases", "fuzzing", "--max-examples", "1", "--max-time", str(SECONDS), "--generation-deterministic"),
            *("--exclude-checks", ",".join(NOT_SAYABLE), "--continue-on-failure", "--no-shrink", "--no-color"),
            *("--suppress-health-check", "all", "--warnings", "off"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS + 100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "No issues found" in done.stdout
