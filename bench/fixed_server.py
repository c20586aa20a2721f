"""What stands behind both edges: mTLS as the mesh has it, and the same answer to each call of a method; a stream gives
it once a second.

`python -m bench.fixed_server CONFIG`, with the configuration of the scanner, in whose place it stands.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import grpc
import grpc.aio
import uvloop
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from recoup.mesh.v1 import resource_pb2
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2
from services._mesh.config import load_settings
from services.scanner.config import ScannerSettings

SERVICE = "recoup.scanner.v1.ScannerService"
LISTED = 50
STREAMS, EVENT_SECONDS = ("WatchScan",), 1.0
_ID = str(UUID(int=7))


def answers() -> dict[str, Message]:
    """What each method answers: a scan, also as a stream, the scan that was started, and a page of findings."""
    at = Timestamp()
    at.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    scan = scanner_pb2.Scan(
        scan_id=_ID,
        organization_id=_ID,
        connection_id=_ID,
        state=scanner_pb2.SCAN_STATE_RUNNING,
        units_total=36,
        units_done=12,
        resources_seen=4321,
        api_calls=170,
        created_at=at,
    )
    findings = [_finding(number, at) for number in range(LISTED)]
    return {
        "GetScan": scanner_service_pb2.GetScanResponse(scan=scan),
        "StartScan": scanner_service_pb2.StartScanResponse(scan=scan),
        "WatchScan": scanner_service_pb2.WatchScanResponse(scan=scan),
        "ListFindings": scanner_service_pb2.ListFindingsResponse(findings=findings, next_page_token="x" * 80),
    }


def _finding(number: int, at: Timestamp) -> scanner_pb2.Finding:
    return scanner_pb2.Finding(
        finding_id=str(UUID(int=number)),
        organization_id=_ID,
        connection_id=_ID,
        scan_id=_ID,
        detection_id="aws.ebs.unattached_volume",
        resource=_resource(f"vol-{number:017x}"),
        resource_name=f"data of batch {number}",
        state=scanner_pb2.FINDING_STATE_OPEN,
        monthly_saving=resource_pb2.Money(currency="USD", amount=f"{number}.125"),
        price_version="2026-01-01",
        evidence={"attachments": "0", "size_gib": "500", "volume_type": "gp3", "last_attached": "2025-11-30"},
        action_type="aws.ebs.delete_volume",
        first_seen_at=at,
        last_seen_at=at,
        tags={"team": "batch", "environment": "test"},
    )


def _resource(name: str) -> resource_pb2.ResourceKey:
    return resource_pb2.ResourceKey(
        provider="aws", partition="aws", account="111122223333", region="eu-west-1", type="ec2:volume", id=name
    )


async def main(config: Path) -> None:
    """Serve until terminated."""
    settings = load_settings(ScannerSettings, config)
    assert settings.process.listen is not None
    server = grpc.aio.server()
    handlers = {name: _handler(name, message.SerializeToString()) for name, message in answers().items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    credentials = grpc.ssl_server_credentials(
        [(settings.tls.key.read_bytes(), settings.tls.cert.read_bytes())],
        settings.tls.ca.read_bytes(),
        require_client_auth=True,
    )
    server.add_secure_port(settings.process.listen, credentials)
    await server.start()
    await server.wait_for_termination()


def _handler(name: str, answer: bytes) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def handle(_request: bytes, _context: object) -> bytes:
        return answer

    async def watch(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        while True:
            yield answer
            await asyncio.sleep(EVENT_SECONDS)

    if name in STREAMS:
        return grpc.unary_stream_rpc_method_handler(watch)
    return grpc.unary_unary_rpc_method_handler(handle)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1])))
