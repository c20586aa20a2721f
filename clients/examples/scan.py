"""Scans a connection, says how far it is, and how complete it was. Exits with 1 unless it read everything.

RECOUP_TOKEN=… python scan.py mesh.toml ORGANIZATION_ID CONNECTION_ID
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from uuid import uuid4

from recoup.scanner.v1.scanner_pb2 import SCAN_STATE_COMPLETE, ScanState
from recoup.scanner.v1.scanner_service_pb2 import StartScanRequest
from recoup.scanner.v1.scanner_service_pb2_grpc import ScannerServiceStub
from recoup_client.blocking import BlockingMeshClient
from recoup_client.calling import read_installation
from recoup_client.errors import RecoupError


def main(settings: Path, organization_id: str, connection_id: str) -> int:
    """The exit code."""
    addresses, certificate = read_installation(settings)
    with BlockingMeshClient(addresses, certificate, os.environ["RECOUP_TOKEN"], organization_id) as mesh:
        # With a request id it is repeated when its answer was lost, and starts no second scan.
        request = StartScanRequest(
            organization_id=organization_id, connection_id=connection_id, request_id=str(uuid4())
        )
        scanner = mesh.stub(ScannerServiceStub)
        try:
            started = scanner.StartScan(request)
        except RecoupError as error:
            print(f"{error.reason}: {error.message}", file=sys.stderr)
            return 1
        for scan in mesh.scan(started.scan.scan_id).progress(seconds=600):
            print(f"{scan.units_done} of {scan.units_total}")
    print(ScanState.Name(scan.state))
    return 0 if scan.state == SCAN_STATE_COMPLETE else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
