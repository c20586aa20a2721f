"""What type checkers see of the typed clients. It is never run: `make lint` checks it.

Each `ignore` is a mistake that a user's own type checker must find; one that isn't needed fails.
"""

from __future__ import annotations

from typing import assert_type

from recoup.actions.v1 import actions_pb2
from recoup.audit.v1 import evidence_service_pb2
from recoup.identity.v1 import sso_service_pb2, sso_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup_client import blocking
from recoup_client.errors import RecoupError
from recoup_client.mesh import Certificate, MeshClient, pages

_WATCHED = scanner_service_pb2.WatchScanRequest()
_FINDINGS = scanner_service_pb2.ListFindingsRequest()


async def asynchronous(mesh: MeshClient) -> None:
    """Answers, items and operations have their types; what doesn't fit is found."""
    answer = await mesh.scanner.GetScan(scanner_service_pb2.GetScanRequest())
    assert_type(answer, scanner_service_pb2.GetScanResponse)
    async for finding in pages(mesh.scanner.ListFindings, _FINDINGS).items(lambda page: page.findings):
        assert_type(finding, scanner_pb2.Finding)
    assert_type(await mesh.scan("x"), scanner_pb2.Scan)
    assert_type(await mesh.evidence_export("x").result(60.0), evidence_service_pb2.EvidenceExport)
    async for action in mesh.action("x").progress():
        assert_type(action, actions_pb2.Action)
    async for answered in mesh.scanner.WatchScan(_WATCHED):
        assert_type(answered, scanner_service_pb2.WatchScanResponse)
    sso = mesh.stub(sso_service_pb2_grpc.SsoServiceStub)
    assert_type(sso, sso_service_pb2_grpc.SsoServiceAsyncStub)
    mesh.scanner.WatchScan(_FINDINGS)  # type: ignore[arg-type]
    await mesh.scanner.GetScan(_FINDINGS)  # type: ignore[arg-type]
    pages(mesh.scanner.ListFindings, scanner_service_pb2.GetScanRequest()).items(lambda page: page.findings)  # type: ignore[arg-type]
    pages(mesh.scanner.ListFindings, _FINDINGS).items(lambda page: page.scans)  # type: ignore[attr-defined]


def made(addresses: dict[str, str], certificate: Certificate) -> None:
    """A token is a text, or what gives one."""
    MeshClient(addresses, certificate, lambda: "token", "organization")
    blocking.BlockingMeshClient(addresses, certificate, lambda: 5, "organization")  # type: ignore[arg-type,return-value]


def refused(error: RecoupError) -> None:
    """What a failed call says of itself."""
    assert_type(error.reason, str)
    assert_type(error.metadata, dict[str, str])
    assert_type(error.fields, dict[str, str])
    assert_type(error.retry_in, float)  # type: ignore[attr-defined,assert-type]


def synchronous(mesh: blocking.BlockingMeshClient) -> None:
    """The same without an event loop."""
    scanner = mesh.stub(scanner_service_pb2_grpc.ScannerServiceStub)
    assert_type(scanner, scanner_service_pb2_grpc.ScannerServiceStub)
    for finding in blocking.pages(scanner.ListFindings, _FINDINGS).items(lambda page: page.findings):
        assert_type(finding, scanner_pb2.Finding)
    assert_type(mesh.scan("x").result(), scanner_pb2.Scan)
    for action in mesh.action("x").progress(60.0):
        assert_type(action, actions_pb2.Action)
    for answered in scanner.WatchScan(_WATCHED):
        assert_type(answered, scanner_service_pb2.WatchScanResponse)
    scanner.GetScan(sso_service_pb2.GetIdentityProviderRequest())  # type: ignore[arg-type]
