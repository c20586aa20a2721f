"""The typed client before services that are away for a while: what is repeated, under which passport and deadline.

Real gRPC over mTLS; what the services answer is each test's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from cryptography import x509

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup_client import renewing
from recoup_client.attempts import MOST, Attempts
from recoup_client.blocking import BlockingMeshClient
from recoup_client.errors import Conflict, NotAvailable, RecoupError, SignInNeeded
from recoup_client.mesh import Certificate, MeshClient
from recoup_local.ca import LocalCa
from services._mesh import errors
from services._mesh.errors import Reason

AWAY = errors.Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, "Away.", {})
BUSY = errors.Conflict(Reason.ERROR_REASON_REQUEST_IN_FLIGHT, "Being worked on.", {})
CHANGED = errors.Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Changed.", {})
REVOKED = errors.Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_REVOKED, "Revoked.")
KEYED = scanner_service_pb2.StartScanRequest(request_id="0191f2a4-7a52-7d0e-9c3b-000000000001")
BARE = scanner_service_pb2.StartScanRequest()
WATCHED = scanner_service_pb2.WatchScanRequest()


@dataclass
class Mesh:
    """Identity and the scanner in one. `answers` are to come: refusals, gRPC's own among them, or how often a stream
    answers.
    """

    answers: list[errors.Problem | grpc.StatusCode | int] = field(default_factory=list)
    # What calls of the scanner showed, and the seconds that they had left.
    shown: list[tuple[str, float]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    # What calls were named by, those for passports among them.
    names: list[str] = field(default_factory=list)
    # The certificates that calls of the scanner came under, and the passports that they showed.
    peers: list[tuple[int, str]] = field(default_factory=list)
    address: str = ""
    certificate: Certificate | None = None

    def IssuePassport(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.names.append(dict(context.invocation_metadata())["recoup-request-id"])
        self.sessions.append(request.session_token)
        made = identity_service_pb2.IssuePassportResponse(passport=f"passport {len(self.sessions)}")
        made.expires_at.seconds = int(time.time()) + 300
        return made

    def StartScan(self, _request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(context)
        return scanner_service_pb2.StartScanResponse(scan=scanner_pb2.Scan(scan_id="started"))

    def GetScan(self, _request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(context)
        return scanner_service_pb2.GetScanResponse(scan=scanner_pb2.Scan(scan_id="read"))

    def WatchScan(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for done in range(self._answer(context)):
            yield scanner_service_pb2.WatchScanResponse(scan=scanner_pb2.Scan(units_done=done))
        if self.answers:
            self._refuse(context, self.answers.pop(0))

    def _answer(self, context: grpc.ServicerContext) -> int:
        told = dict(context.invocation_metadata())
        self.names.append(told["recoup-request-id"])
        self.shown.append((told["authorization"], context.time_remaining()))
        (pem,) = context.auth_context()["x509_pem_cert"]
        self.peers.append((x509.load_pem_x509_certificate(pem).serial_number, told["authorization"]))
        found = self.answers.pop(0) if self.answers else 0
        self._refuse(context, found)
        assert isinstance(found, int)
        return found

    def _refuse(self, context: grpc.ServicerContext, found: errors.Problem | grpc.StatusCode | int) -> None:
        if isinstance(found, grpc.StatusCode):
            context.abort(found, found.name)
        if isinstance(found, errors.Problem):
            details = errors.to_status(found).SerializeToString()
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(found.code, found.message)

    def client(self, token: Any = "session") -> MeshClient:
        return MeshClient(*self.given(), token, "acme")

    def blocking(self, token: Any = "session") -> BlockingMeshClient:
        return BlockingMeshClient(*self.given(), token, "acme")

    def given(self) -> tuple[dict[str, str], Certificate]:
        assert self.certificate is not None
        return {"identity": self.address, "scanner": self.address}, self.certificate


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    ca, folder = LocalCa(tmp_path / "ca"), tmp_path / "leaf"
    ca.issue("scanner", folder, dns=("scanner", "identity"))
    made = Mesh(certificate=Certificate(ca.cert_file, folder / "tls.pem", folder / "tls.key"))
    pair = ((folder / "tls.key").read_bytes(), (folder / "tls.pem").read_bytes())
    server = grpc.server(ThreadPoolExecutor(4))
    credentials = grpc.ssl_server_credentials([pair], ca.cert_file.read_bytes(), require_client_auth=True)
    made.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    for service, add in (
        (
            identity_service_pb2_grpc.IdentityServiceServicer,
            identity_service_pb2_grpc.add_IdentityServiceServicer_to_server,
        ),
        (
            scanner_service_pb2_grpc.ScannerServiceServicer,
            scanner_service_pb2_grpc.add_ScannerServiceServicer_to_server,
        ),
    ):
        served = service()
        for name in ("IssuePassport", "StartScan", "GetScan", "WatchScan"):
            setattr(served, name, getattr(made, name))
        add(served, server)  # type: ignore[operator]
    server.start()
    yield made
    server.stop(None).wait()


async def test_a_change_with_a_request_id_is_repeated(mesh: Mesh) -> None:
    mesh.answers = [AWAY, BUSY]
    async with mesh.client() as client:
        assert (await client.scanner.StartScan(KEYED, timeout=5)).scan.scan_id == "started"
    assert [(passport, left <= 5) for passport, left in mesh.shown] == [("Bearer passport 1", True)] * 3
    mesh.answers = [AWAY, BUSY]
    with mesh.blocking() as blocking:
        assert blocking.stub(scanner_service_pb2_grpc.ScannerServiceStub).StartScan(KEYED).scan.scan_id == "started"
    assert not mesh.answers


async def test_what_a_server_cancels_as_it_ends_is_asked_again(mesh: Mesh) -> None:
    """It cancels what comes between its end and the moment at which we know."""
    asked = scanner_service_pb2.GetScanRequest()
    async with mesh.client() as client:
        mesh.answers = [grpc.StatusCode.CANCELLED, grpc.StatusCode.CANCELLED]
        assert (await client.scanner.StartScan(KEYED, timeout=5)).scan.scan_id == "started"
        mesh.answers = [grpc.StatusCode.CANCELLED]
        assert (await client.scanner.GetScan(asked, timeout=5)).scan.scan_id == "read"
        mesh.answers = [grpc.StatusCode.CANCELLED]
        with pytest.raises(RecoupError) as refused:  # Nobody knows whether it was begun.
            await client.scanner.StartScan(BARE, timeout=5)
        assert refused.value.code is grpc.StatusCode.CANCELLED
    with mesh.blocking() as blocking:
        stub = blocking.stub(scanner_service_pb2_grpc.ScannerServiceStub)
        mesh.answers = [grpc.StatusCode.CANCELLED]
        assert stub.GetScan(asked).scan.scan_id == "read"
    assert not mesh.answers


@pytest.mark.parametrize(
    ("request_", "refusals", "kind", "tries"),
    [(BARE, [AWAY], NotAvailable, 1), (KEYED, [CHANGED], Conflict, 1), (KEYED, [AWAY] * MOST, NotAvailable, MOST)],
    ids=["no request id", "for good", "too often"],
)
async def test_nothing_else_is_repeated(
    mesh: Mesh, request_: Any, refusals: list[errors.Problem], kind: type[RecoupError], tries: int
) -> None:
    mesh.answers = list(refusals)
    async with mesh.client() as client:
        with pytest.raises(kind) as refused:
            await client.scanner.StartScan(request_)
    mesh.answers = list(refusals)
    with mesh.blocking() as blocking, pytest.raises(kind):
        blocking.stub(scanner_service_pb2_grpc.ScannerServiceStub).StartScan(request_)
    assert refused.value.reason == refusals[0].reason_name
    assert len(mesh.shown) == 2 * tries


async def test_all_tries_of_a_call_have_one_name_that_its_error_says(mesh: Mesh) -> None:
    """A change goes by its own `request_id`, under which its service's log has it; others are given one."""
    scanner = scanner_service_pb2_grpc.ScannerServiceStub
    mesh.answers = [AWAY] * MOST
    async with mesh.client() as client:
        with pytest.raises(NotAvailable) as keyed:
            await client.scanner.StartScan(KEYED)
        assert [keyed.value.request_id] * (1 + MOST) == mesh.names == [KEYED.request_id] * (1 + MOST)
        mesh.answers = [CHANGED, AWAY, CHANGED]
        mesh.names.clear()
        with pytest.raises(Conflict) as bare:
            await client.scanner.StartScan(BARE)
        with pytest.raises(Conflict) as stream:
            _ = [each async for each in client.scanner.WatchScan(WATCHED)]
    assert mesh.names == [bare.value.request_id, *[stream.value.request_id] * 2]
    assert len({UUID(name) for name in mesh.names}) == 2
    mesh.answers = [REVOKED, CHANGED, CHANGED]
    mesh.names.clear()
    with mesh.blocking() as blocking:
        with pytest.raises(Conflict) as bare:
            blocking.stub(scanner).StartScan(BARE)
        with pytest.raises(Conflict) as stream:
            list(blocking.stub(scanner).WatchScan(WATCHED))
    assert mesh.names == [*[bare.value.request_id] * 4, stream.value.request_id]


async def test_a_stream_is_read_under_a_passport_and_a_deadline(mesh: Mesh) -> None:
    mesh.answers = [REVOKED, AWAY, 3]
    async with mesh.client() as client:
        seen = [each.scan.units_done async for each in client.scanner.WatchScan(WATCHED)]
    assert seen == [0, 1, 2]
    assert [passport for passport, _ in mesh.shown] == [f"Bearer passport {n}" for n in (1, 2, 2)]
    assert all(290 < left < 301 for _, left in mesh.shown)
    mesh.answers = [REVOKED, AWAY, 3]
    with mesh.blocking() as blocking:
        watched = blocking.stub(scanner_service_pb2_grpc.ScannerServiceStub).WatchScan(WATCHED)
        assert [each.scan.units_done for each in watched] == [0, 1, 2]


async def test_a_stream_that_has_begun_says_what_broke_it(mesh: Mesh) -> None:
    mesh.answers = [2, AWAY]
    seen = []
    async with mesh.client() as client:
        with pytest.raises(NotAvailable) as broken:
            async for each in client.scanner.WatchScan(WATCHED):
                seen.append(each.scan.units_done)
    assert (seen, broken.value.reason, len(mesh.shown)) == ([0, 1], "DEPENDENCY_UNAVAILABLE", 1)
    mesh.answers = [2, AWAY]
    with mesh.blocking() as blocking, pytest.raises(NotAvailable):
        list(blocking.stub(scanner_service_pb2_grpc.ScannerServiceStub).WatchScan(WATCHED))


async def test_a_void_passport_is_replaced_once_by_the_session_of_then(mesh: Mesh) -> None:
    sessions = iter(("first", "second", "third"))
    mesh.answers = [REVOKED, 0, REVOKED, REVOKED]
    async with mesh.client(lambda: next(sessions)) as client:
        await client.scanner.StartScan(BARE)
        with pytest.raises(SignInNeeded):
            await client.scanner.StartScan(BARE)
    assert mesh.sessions == ["first", "second", "third"]


def renewed(mesh: Mesh) -> int:
    """Another pair in the place of the one before; its serial number."""
    assert mesh.certificate is not None
    issued = LocalCa(mesh.certificate.ca.parent).issue("scanner", mesh.certificate.cert.parent, dns=("scanner",))
    return x509.load_pem_x509_certificate(issued.cert.read_bytes()).serial_number


async def test_a_client_goes_on_under_a_renewed_certificate(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stubs that are kept as well, with passports of its own; what runs is left alone."""
    monkeypatch.setattr(renewing, "LOOK_SECONDS", 0.0)
    async with mesh.client() as client:
        kept = client.scanner
        await kept.StartScan(BARE)
        mesh.answers = [2]
        running = kept.WatchScan(WATCHED)
        before = [await anext(aiter(running))]
        serial = renewed(mesh)
        await kept.StartScan(BARE)
        assert [each.scan.units_done for each in before] == [0]
        assert [each.scan.units_done async for each in running] == [1]
    (first, passport), _, (last, other) = mesh.peers
    assert (last, first != last) == (serial, True)
    assert passport != other
    mesh.peers.clear()
    with mesh.blocking() as blocking:
        stub = blocking.stub(scanner_service_pb2_grpc.ScannerServiceStub)
        mesh.answers = [2]
        running_still = stub.WatchScan(WATCHED)
        assert next(running_still).scan.units_done == 0
        serial = renewed(mesh)
        stub.StartScan(BARE)
        assert next(running_still).scan.units_done == 1
    (first, passport), (last, other) = mesh.peers
    assert (last, first != last, passport != other) == (serial, True, True)


def test_half_of_a_new_pair_is_not_taken(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewing, "LOOK_SECONDS", 0.0)
    assert mesh.certificate is not None
    files, watch = mesh.certificate, renewing.CertificateWatch(mesh.certificate)
    old = files.key.read_bytes()
    renewed(mesh)
    new = files.key.read_bytes()
    files.key.write_bytes(old)
    assert not watch.has_changed()
    files.key.unlink()
    assert not watch.has_changed()
    files.key.write_bytes(new)
    assert watch.has_changed()
    assert not watch.has_changed()


def test_all_tries_together_have_the_deadline_and_who_must_wait_longer_hears_why_at_once() -> None:
    now = [0.0]
    late = RecoupError(grpc.StatusCode.UNAVAILABLE, "CHECKPOINT_PENDING", "", {"retry_after_seconds": "5"}, {})
    attempts = Attempts(KEYED, 8.0, clock=lambda: now[0])
    assert attempts.left == 8.0
    pause = attempts.pause(late)
    assert pause is not None
    assert 5.0 <= pause <= 5.1
    now[0] = 5.0
    assert (attempts.left, attempts.pause(late)) == (3.0, None)
    now[0] = 9.0
    assert attempts.left == 0.0
