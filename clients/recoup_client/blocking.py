"""The typed client for programs without an event loop: the same calls, one after the other, from any thread.

with BlockingMeshClient(addresses, certificate, session_token, organization_id) as mesh:
    request = ListFindingsRequest(organization_id=organization_id)
    for finding in pages(mesh.stub(ScannerServiceStub).ListFindings, request).items(lambda page: page.findings):
        ...
    scan = mesh.scan(scan_id).result()
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any, TypeVar, cast

import grpc

from recoup.actions.v1 import actions_pb2, actions_service_pb2, actions_service_pb2_grpc
from recoup.audit.v1 import evidence_service_pb2, evidence_service_pb2_grpc
from recoup.identity.v1 import identity_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup_client.attempts import Attempts
from recoup_client.calling import (
    CALL_SECONDS,
    PLATFORM_ORGANIZATION_ID,
    STREAM_SECONDS,
    Certificate,
    Passports,
    Token,
    action_is_over,
    channel_options,
    export_is_over,
    named,
    process_of,
    require_addresses,
    scan_is_over,
)
from recoup_client.errors import typed
from recoup_client.operations import BlockingOperation
from recoup_client.paging import blocking_pages as pages
from recoup_client.renewing import CertificateWatch, KeptChannel

S = TypeVar("S")


class BlockingMeshClient:
    """Calls the services of one installation for one organization with one session, or an API token.

    `addresses` maps a service to host:port, identity among them. Calls raise `recoup_client.errors.RecoupError`. It may
    be used by several threads at once. The certificate is renewed by putting other files in the place of its files.
    """

    def __init__(
        self, addresses: Mapping[str, str], certificate: Certificate, session_token: Token, organization_id: str
    ) -> None:
        """Raises ValueError where `addresses` can't be used, OSError where a file of the certificate can't be read."""
        require_addresses(addresses)
        self._addresses, self._certificate = addresses, certificate
        self._session, self._organization_id = session_token, organization_id
        self._watch, self._opening = CertificateWatch(certificate), Lock()
        self._opened = self._open()
        # With when others took their place: calls over them have as long as a stream has.
        self._before: list[tuple[float, _Opened]] = []

    def stub(self, kind: Callable[[grpc.Channel], S]) -> S:
        """Calls to any service, by its generated stub: `mesh.stub(SsoServiceStub)`. Raises ValueError."""
        kept = KeptChannel(self._current, process_of(kind, self._addresses))
        return kind(cast(grpc.Channel, kept))

    def passport(self, service: str, *, fresh: bool = False) -> str:
        """A passport for a service, kept until shortly before it ends."""
        return self._current().passport(service, fresh=fresh)

    def scan(self, scan_id: str) -> BlockingOperation[scanner_pb2.Scan]:
        """A scan, until it is over."""
        stub = self.stub(scanner_service_pb2_grpc.ScannerServiceStub)
        request = scanner_service_pb2.GetScanRequest(organization_id=self._organization_id, scan_id=scan_id)
        return BlockingOperation(lambda: stub.GetScan(request).scan, scan_is_over)

    def action(self, action_id: str) -> BlockingOperation[actions_pb2.Action]:
        """An action, until it is executed or won't be."""
        stub = self.stub(actions_service_pb2_grpc.ActionsServiceStub)
        request = actions_service_pb2.GetActionRequest(organization_id=self._organization_id, action_id=action_id)
        return BlockingOperation(lambda: stub.GetAction(request).action, action_is_over)

    def evidence_export(self, export_id: str) -> BlockingOperation[evidence_service_pb2.EvidenceExport]:
        """A bundle of evidence, until it is there or can't be made."""
        stub = self.stub(evidence_service_pb2_grpc.EvidenceServiceStub)
        request = evidence_service_pb2.GetEvidenceExportRequest(
            organization_id=self._organization_id, export_id=export_id
        )
        return BlockingOperation(lambda: stub.GetEvidenceExport(request).export, export_is_over)

    def _current(self) -> _Opened:
        """The channels of the certificate that is there now."""
        with self._opening:
            if self._watch.has_changed():
                now = time.monotonic()
                over = [opened for since, opened in self._before if now - since > STREAM_SECONDS]
                self._before = [each for each in self._before if each[1] not in over] + [(now, self._opened)]
                self._opened = self._open()
                for opened in over:
                    opened.close()
            return self._opened

    def _open(self) -> _Opened:
        passports = Passports(self._session, self._organization_id, {})
        return _Opened(self._addresses, self._certificate.credentials(), passports)

    def __enter__(self) -> BlockingMeshClient:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (self._opened, *(opened for _, opened in self._before)):
            opened.close()


class _Opened:
    """Channels under one certificate, and the passports that are bound to it."""

    def __init__(
        self, addresses: Mapping[str, str], credentials: grpc.ChannelCredentials, passports: Passports
    ) -> None:
        self._addresses, self._credentials, self.passports = addresses, credentials, passports
        self._made: list[grpc.Channel] = []
        self._channels: dict[str, grpc.Channel] = {}
        self._making = Lock()
        self._issuer = identity_service_pb2_grpc.IdentityServiceStub(self._to("identity"))

    def channel(self, process: str) -> grpc.Channel:
        """The channel to a process, with passports."""
        with self._making:
            if process not in self._channels:
                self._channels[process] = grpc.intercept_channel(self._to(process), _Authorized(self, process))
            return self._channels[process]

    def passport(self, service: str, *, fresh: bool = False, request_id: str = "") -> str:
        """A passport for a service. `request_id` names the call that it is for."""
        known = None if fresh else self.passports.find(service, time.time())
        if known is not None:
            return known
        try:
            answer = self._issuer.IssuePassport(
                self.passports.request(service), timeout=CALL_SECONDS, metadata=named(request_id)
            )
        except grpc.RpcError as error:
            raise typed(error, request_id) from None
        return self.passports.keep(service, answer)

    def close(self) -> None:
        """End all calls."""
        for channel in self._made:
            channel.close()

    def _to(self, service: str) -> grpc.Channel:
        channel = grpc.secure_channel(self._addresses[service], self._credentials, options=channel_options(service))
        self._made.append(channel)
        return channel


_Details = namedtuple("_Details", "method timeout metadata credentials wait_for_ready compression")


class _Authorized(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the passport and a deadline, repeats a call that may be, types errors. A stream that has begun isn't opened
    again: whoever reads it knows what they have.
    """

    def __init__(self, opened: _Opened, service: str) -> None:
        self._opened, self._service = opened, service

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        attempts = Attempts(request, client_call_details.timeout or CALL_SECONDS)
        while True:
            call = continuation(self._details(client_call_details, attempts), request)
            error = call.exception()
            if error is None:
                return call
            found = typed(error, attempts.request_id)
            pause = attempts.pause(found)
            if pause is None:
                raise found from None
            time.sleep(pause)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._answers(continuation, client_call_details, request)

    def _answers(self, continuation: Any, details: Any, request: Any) -> Iterator[Any]:
        attempts = Attempts(request, details.timeout or STREAM_SECONDS, is_stream=True)
        has_begun = False
        while True:
            call = continuation(self._details(details, attempts), request)
            try:
                for answer in call:
                    has_begun = True
                    yield answer
                return
            except grpc.RpcError as error:
                found = typed(error, attempts.request_id)
                pause = None if has_begun else attempts.pause(found)
                if pause is None:
                    raise found from None
            finally:
                call.cancel()
            time.sleep(pause)

    def _details(self, given: Any, attempts: Attempts) -> _Details:
        request_id = attempts.request_id
        passport = self._opened.passport(self._service, fresh=attempts.is_fresh, request_id=request_id)
        metadata = [*(given.metadata or ()), *named(request_id), ("authorization", f"Bearer {passport}")]
        more = (given.credentials, given.wait_for_ready, given.compression)
        return _Details(given.method, attempts.left, metadata, *more)


__all__ = ["PLATFORM_ORGANIZATION_ID", "BlockingMeshClient", "Certificate", "pages"]
