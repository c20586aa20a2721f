"""Fixtures of several files: an emulated AWS, once for each test process, and pricing at work on its S3."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.support.bills import Office, opened
from tests.support.postgres import TestDatabase


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Where an emulated AWS answers; each office has a bucket of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def office(database: TestDatabase, endpoint: str, tmp_path: Path) -> AsyncIterator[Office]:
    """Pricing's API and worker on a database and a bucket of their own."""
    async with opened(database, endpoint, tmp_path) as made:
        yield made
