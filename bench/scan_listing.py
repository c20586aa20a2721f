"""scan.listing: reading the estate as the scanner-worker does, against a bare paginated listing by the same SDK.

Both list the same APIs of the same accounts and regions with as many threads; the scanner's also limits its rate and
keeps a completeness record. API calls are counted and printed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.measuring import Result, compare
from recoup_local.cloud import ACCOUNTS, REGIONS
from services._mesh.aws import client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.threads import BoundedThreads
from services.scanner.clients.aws import _LISTINGS, RegionReader
from services.scanner.model.reading import UnitReading
from tests.support.mesh import TestMesh

THREADS = 12


async def run(made: TestMesh) -> Result:
    """Measure, in seconds: less is better, so the ratio to stay under is 1.2."""
    settings = AwsSettings(made.mesh.cloud.url)
    keys = {
        account: AwsCredentials(admin.access_key_id, admin.secret_access_key, "")
        for account, admin in made.mesh.cloud.admins.items()
    }
    calls = {"scanner": 0, "bare": 0}

    async def subject() -> float:
        threads = BoundedThreads(THREADS, "bench")

        async def done(reading: UnitReading) -> None:
            calls["scanner"] += reading.calls

        began = time.perf_counter()
        readers = [RegionReader(threads, settings, keys[a], a, r) for a in ACCOUNTS for r in REGIONS]
        await asyncio.gather(*(reader.read(done) for reader in readers))
        taken = time.perf_counter() - began
        threads.close()
        return taken

    async def floor() -> float:
        with ThreadPoolExecutor(THREADS) as pool:
            began = time.perf_counter()
            jobs = [_bare(settings, keys[a], r, calls) for a in ACCOUNTS for r in REGIONS]
            work = [asyncio.wrap_future(pool.submit(job)) for each in jobs for job in each]
            await asyncio.gather(*work)
            return time.perf_counter() - began

    result = await compare("scan.listing", "s", "bare paginated listing, same SDK and threads", subject, floor)
    print(f"  API calls: scanner {calls['scanner']}, bare {calls['bare']}")
    return result


def _bare(settings: AwsSettings, keys: AwsCredentials, region: str, calls: dict[str, int]) -> list[Callable[[], None]]:
    ec2 = client("ec2", region, settings, keys)

    def job(operation: str, arguments: dict[str, Any]) -> Callable[[], None]:
        def run_listing() -> None:
            if not ec2.can_paginate(operation):
                getattr(ec2, operation)(**arguments)
                calls["bare"] += 1
                return
            for _ in ec2.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": 500}):
                calls["bare"] += 1

        return run_listing

    return [job(listing.operation, dict(listing.arguments)) for listing in _LISTINGS.values()]
