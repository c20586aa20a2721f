"""The TypeScript client as a frontend or a script uses it: compiled, driven by Node, at the live gateway."""

from __future__ import annotations

import pytest

from tests.support.mesh import TestMesh
from tests.support.typescript import compile_client, node, run

pytestmark = pytest.mark.xdist_group("mesh")


@pytest.fixture(scope="module")
def env(made: TestMesh) -> dict[str, str]:
    """What a program is told of the gateway and of who calls it."""
    compile_client()
    person = made.rest("acme", "FinOps")
    return {
        "RECOUP_GATEWAY": made.mesh.gateway_url,
        "NODE_EXTRA_CA_CERTS": str(made.mesh.installation.ca.cert_file),
        "RECOUP_TOKEN": made.mesh.token("acme", "FinOps"),
        "RECOUP_ORG": person.organization_id,
        # A sign-in that the browser's session is made of, and ended with.
        "SIGN_IN_TOKEN": made.mesh.token("acme", "FinOps"),
        "CONNECTION_ID": made.connection_id,
    }


def test_the_compiled_client_at_the_gateway(env: dict[str, str]) -> None:
    """Pages, typed refusals, a lost answer, streams in both forms, long work, a browser's session."""
    said = node("--test-reporter=tap", "tests/live/gateway.ts", env=env, seconds=180)
    assert "# pass 4\n" in said, said


def test_its_examples_run(env: dict[str, str]) -> None:
    scanned = run("examples/scan.ts", env["CONNECTION_ID"], env=env, seconds=120)
    # One region refuses, as everywhere in the story.
    assert (scanned.returncode, scanned.stdout.splitlines()[-2:]) == (1, ["36 of 36", "SCAN_STATE_PARTIAL"])
    found = node("examples/findings.ts", env=env)
    assert {line.split("\t")[3] for line in found.splitlines() if line.split("\t")[2] != "unknown"} == {"USD"}
    refused = run("examples/scan.ts", "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff", env=env)
    assert (refused.returncode, refused.stderr.startswith("RESOURCE_NOT_FOUND: ")) == (1, True)
