"""Prints an organization's findings, the largest saving first.

RECOUP_TOKEN=… python findings.py mesh.toml ORGANIZATION_ID
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from recoup.scanner.v1.scanner_service_pb2 import ListFindingsRequest
from recoup_client.calling import read_installation
from recoup_client.mesh import MeshClient, pages


async def main(settings: Path, organization_id: str) -> None:
    """An API token of a service account stands where a person's session would."""
    addresses, certificate = read_installation(settings)
    async with MeshClient(addresses, certificate, os.environ["RECOUP_TOKEN"], organization_id) as mesh:
        request = ListFindingsRequest(organization_id=organization_id)
        async for finding in pages(mesh.scanner.ListFindings, request).items(lambda page: page.findings):
            saving = finding.monthly_saving
            print(finding.detection_id, finding.resource.id, saving.amount, saving.currency, sep="\t")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
