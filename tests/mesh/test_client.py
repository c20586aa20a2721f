"""The typed client, as an internal team uses it: its own certificate, passports, pages, typed errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner

from recoup.identity.v1 import identity_service_pb2
from recoup.mesh.v1 import access_pb2
from recoup.pricing.v1 import pricing_service_pb2
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup_client import renewing
from recoup_client.blocking import BlockingMeshClient
from recoup_client.blocking import pages as blocking_pages
from recoup_client.calling import read_installation
from recoup_client.errors import Denied, InvalidRequest, NotFound, SignInNeeded
from recoup_client.mesh import Certificate, MeshClient, pages
from recoup_local.issuer import find_person, organization_id
from recoup_local.tracing import trace
from tests.support.mesh import TestMesh, soon, until

pytestmark = pytest.mark.xdist_group("mesh")
ACME = str(organization_id("acme"))
EXAMPLES = Path(__file__).resolve().parents[2] / "clients" / "examples"


def installation(made: TestMesh) -> tuple[dict[str, str], Certificate]:
    """Where the mesh is, and a team's certificate."""
    return read_installation(made.mesh.state / "clients" / "finops-tools" / "mesh.toml")


def client(made: TestMesh, token: str, organization: str = ACME) -> MeshClient:
    return MeshClient(*installation(made), token, organization)


@pytest.fixture
async def finops(made: TestMesh) -> AsyncIterator[MeshClient]:
    async with client(made, made.mesh.token("acme", "FinOps")) as mesh:
        yield mesh


async def test_a_list_is_read_page_by_page(finops: MeshClient) -> None:
    request = pricing_service_pb2.ListPricesRequest(organization_id=ACME, page_size=7, sku_prefix="ebs.")
    prices = [price async for price in pages(finops.pricing.ListPrices, request).items(lambda page: page.prices)]
    keys = [(price.region, price.sku) for price in prices]
    assert len(keys) > 7
    assert len(keys) == len(set(keys))
    assert all(price.unit_price.amount and price.source and price.source_date for price in prices)


async def test_long_work_is_awaited_with_its_progress(made: TestMesh, finops: MeshClient) -> None:
    started = await finops.scanner.StartScan(
        scanner_service_pb2.StartScanRequest(
            organization_id=ACME, connection_id=made.connection_id, request_id=str(uuid4())
        )
    )
    seen = [each async for each in finops.scan(started.scan.scan_id).progress(120.0)]
    done = [each.units_done for each in seen]
    assert seen[-1].state == scanner_pb2.SCAN_STATE_PARTIAL
    assert done == sorted(done)
    assert done[-1] == seen[-1].units_total == 36
    assert await finops.scan(started.scan.scan_id) == seen[-1]
    watched = scanner_service_pb2.WatchScanRequest(organization_id=ACME, scan_id=started.scan.scan_id)
    assert [each.scan async for each in finops.scanner.WatchScan(watched)] == [seen[-1]]


def test_the_blocking_client_does_the_same(made: TestMesh) -> None:
    addresses, certificate = installation(made)
    with BlockingMeshClient(addresses, certificate, made.mesh.token("acme", "FinOps"), ACME) as mesh:
        scanner = mesh.stub(scanner_service_pb2_grpc.ScannerServiceStub)
        listed = blocking_pages(
            scanner.ListScans, scanner_service_pb2.ListScansRequest(organization_id=ACME, page_size=1)
        )
        scans = list(listed.items(lambda page: page.scans))
        assert scans
        found = mesh.scan(scans[0].scan_id).result()
        assert (found.scan_id, found.state) == (scans[0].scan_id, scans[0].state)
        with pytest.raises(NotFound) as missing:
            mesh.scan(str(uuid4())).result()
        assert (missing.value.reason, missing.value.metadata) == ("RESOURCE_NOT_FOUND", {"resource": "scan"})
        # A passport that isn't good any more is replaced, and one that never was isn't asked for again.
        mesh._opened.passports.kept["scanner"] = (mesh.passport("identity"), time.time() + 60)
        assert mesh.scan(scans[0].scan_id).result() == found
    with BlockingMeshClient(addresses, certificate, "no session", ACME) as mesh, pytest.raises(SignInNeeded):
        mesh.scan(scans[0].scan_id).result()


def test_the_examples_run(made: TestMesh) -> None:
    settings = made.mesh.state / "clients" / "finops-tools" / "mesh.toml"

    def run(example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, EXAMPLES / example, settings, ACME, *arguments],
            env={**os.environ, "RECOUP_TOKEN": made.mesh.token("acme", "FinOps")},
            capture_output=True,
            text=True,
            timeout=120,
        )

    scanned = run("scan.py", made.connection_id)
    # One region refuses, as everywhere in the story.
    assert (scanned.returncode, scanned.stdout.splitlines()[-2:]) == (1, ["36 of 36", "SCAN_STATE_PARTIAL"])
    found = run("findings.py")
    assert found.returncode == 0, found.stderr
    assert {line.split("\t")[3] for line in found.stdout.splitlines() if line.split("\t")[2]} == {"USD"}
    refused = run("scan.py", str(uuid4()))
    assert (refused.returncode, refused.stderr.startswith("RESOURCE_NOT_FOUND: ")) == (1, True)


async def test_errors_are_typed_and_say_why(finops: MeshClient) -> None:
    with pytest.raises(NotFound) as missing:
        await finops.scanner.GetScan(scanner_service_pb2.GetScanRequest(organization_id=ACME, scan_id=str(uuid4())))
    assert (missing.value.reason, missing.value.metadata) == ("RESOURCE_NOT_FOUND", {"resource": "scan"})
    with pytest.raises(InvalidRequest) as invalid:
        await finops.scanner.GetScan(scanner_service_pb2.GetScanRequest(organization_id=ACME, scan_id="x"))
    assert set(invalid.value.fields) == {"scan_id"}
    with pytest.raises(Denied) as denied:
        await finops.identity.ListMembers(identity_service_pb2.ListMembersRequest(organization_id=ACME))
    assert denied.value.metadata == {"permission": "identity.member.read"}


def test_a_call_is_found_by_the_name_that_its_error_says(made: TestMesh) -> None:
    """What `recoup trace` shows: no edge made the trace, so that the service's span has the name."""
    addresses, certificate = installation(made)
    with BlockingMeshClient(addresses, certificate, made.mesh.token("acme", "FinOps"), ACME) as mesh:
        with pytest.raises(NotFound) as missing:
            mesh.scan(str(uuid4())).result()
    shown = until(lambda: _traced(missing.value.request_id, made))
    assert "recoup.scanner.v1.ScannerService/GetScan  scanner" in shown
    assert "recoup.identity.v1.IdentityService/IssuePassport  identity" in shown


def _traced(request_id: str, made: TestMesh) -> str | None:
    done = CliRunner().invoke(trace, [request_id, "--state", str(made.mesh.state)])
    return done.output if "GetScan" in done.output and "IssuePassport" in done.output else None


async def test_a_renewed_certificate_fails_no_call(
    made: TestMesh, finops: MeshClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passports are bound to the certificate: those of the one before are no good under the new one."""
    monkeypatch.setattr(renewing, "LOOK_SECONDS", 0.0)
    scanner, request = finops.scanner, scanner_service_pb2.ListFindingsRequest(organization_id=ACME, page_size=1)
    before = await finops.passport("scanner")

    async def calls() -> None:
        for _ in range(20):
            await scanner.ListFindings(request)

    running = [asyncio.create_task(calls()) for _ in range(3)]
    await scanner.ListFindings(request)
    made.mesh.installation.ca.issue(
        "client/finops-tools", made.mesh.state / "clients" / "finops-tools", dns=("finops-tools",)
    )
    await asyncio.gather(*running)
    assert await finops.passport("scanner") != before


async def test_a_bad_session_or_somebody_elses_organization_is_refused(made: TestMesh) -> None:
    request = identity_service_pb2.GetOrganizationRequest(organization_id=ACME)
    expired = made.mesh.installation.issuer.token(find_person("acme", "FinOps"), seconds=-600)
    async with client(made, expired) as mesh:
        with pytest.raises(SignInNeeded):
            await mesh.identity.GetOrganization(request)
    async with client(made, made.mesh.token("globex", "Admin")) as mesh:
        with pytest.raises(NotFound):
            await mesh.identity.GetOrganization(request)


async def test_a_passport_that_was_revoked_is_replaced_once(made: TestMesh) -> None:
    """Another role voids the passport and not the session: a new passport is asked for, and has the new role."""
    user, request = str(uuid4()), identity_service_pb2.ListMembersRequest(organization_id=ACME)
    session = made.mesh.installation.issuer.token(find_person("acme", "Viewer"), sub=user)
    async with client(made, made.mesh.token("acme", "Admin")) as admin, client(made, session) as mesh:
        added = await admin.identity.AddMember(
            identity_service_pb2.AddMemberRequest(
                organization_id=ACME, user_id=user, email="new@acme.example.com", role=access_pb2.ROLE_VIEWER
            )
        )
        with pytest.raises(Denied):
            await mesh.identity.ListMembers(request)
        await admin.identity.UpdateMember(
            identity_service_pb2.UpdateMemberRequest(
                organization_id=ACME,
                member_id=added.member.member_id,
                role=access_pb2.ROLE_AUDITOR,
                etag=added.member.etag,
            )
        )

        async def listed() -> bool | None:
            # The one it has is good until identity's own feed says otherwise; the next one is good at once.
            with contextlib.suppress(Denied):
                return bool((await mesh.identity.ListMembers(request)).members)
            return None

        assert await soon(listed)
