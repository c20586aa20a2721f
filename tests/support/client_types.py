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
from recoup_client.mesh import MeshClient, pages

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
    sso = mesh.stub(sso_service_pb2_grpc.SsoServiceStub)
    assert_type(sso, sso_service_pb2_grpc.SsoServiceAsyncStub)
    await mesh.scanner.GetScan(_FINDINGS)  # type: ignore[arg-type]
    pages(mesh.scanner.ListFindings, scanner_service_pb2.GetScanRequest()).items(lambda page: page.findings)  # type: ignore[arg-type]
    pages(mesh.scanner.ListFindings, _FINDINGS).items(lambda page: page.scans)  # type: ignore[attr-defined]


def synchronous(mesh: blocking.BlockingMeshClient) -> None:
    """The same without an event loop."""
    scanner = mesh.stub(scanner_service_pb2_grpc.ScannerServiceStub)
    assert_type(scanner, scanner_service_pb2_grpc.ScannerServiceStub)
    for finding in blocking.pages(scanner.ListFindings, _FINDINGS).items(lambda page: page.findings):
        assert_type(finding, scanner_pb2.Finding)
    assert_type(mesh.scan("x").result(), scanner_pb2.Scan)
    for action in mesh.action("x").progress(60.0):
        assert_type(action, actions_pb2.Action)
    scanner.GetScan(sso_service_pb2.GetIdentityProviderRequest())  # type: ignore[arg-type]
