"""Pricing's API and worker around a test's own database and an emulated S3 that a provider delivers bills into.

The broker and identity are stood in for: who may open what is the mesh tests' business.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
from botocore.config import Config

from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.job_rpc import leased
from services._mesh.jobs import JobDesk, Planner
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store
from services.pricing import working
from services.pricing.clients.peers import ConnectionFacts
from services.pricing.model.bill import Batch, BillImport, NewBillSource
from services.pricing.store import bills as bill_store
from services.pricing.usecases import bills
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, Unrotated, context, keys

ACCOUNT, REGION, PREFIX = "222222222222", "us-east-1", "billing/focus"
CREDENTIAL = UUID(int=99)
COLUMNS = (
    *("BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory"),
    *("ChargeClass", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "ListCost"),
    *("PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "RegionId", "ResourceId", "SkuId"),
    *("SkuPriceId", "SubAccountId"),
)


def charge(day: date, cost: str = "0.1", resource: str = "vol-1", **changes: str) -> dict[str, str]:
    """One charge of a FOCUS bill, as AWS writes it."""
    first = day.replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    return {
        "BilledCost": cost, "BillingAccountId": "111111111111", "BillingCurrency": "USD",
        "BillingPeriodEnd": f"{after} 00:00:00", "BillingPeriodStart": f"{first} 00:00:00",
        "ChargeCategory": "Usage", "ChargeClass": "NULL", "ChargePeriodEnd": f"{day + timedelta(days=1)} 00:00:00",
        "ChargePeriodStart": f"{day} 00:00:00", "ContractedCost": cost, "EffectiveCost": cost, "ListCost": cost,
        "PricingCategory": "Standard", "PricingQuantity": "1", "PricingUnit": "Hours", "ProviderName": "AWS",
        "RegionId": REGION, "ResourceId": resource, "SkuId": "SKU", "SkuPriceId": "SKU.1", "SubAccountId": ACCOUNT,
    } | changes  # fmt: skip


def csv(*charges: dict[str, str]) -> bytes:
    lines = [",".join(COLUMNS), *(",".join(each[name] for name in COLUMNS) for each in charges)]
    return ("\n".join(lines) + "\n").encode()


@dataclass
class Bucket:
    """A versioned bucket that a provider delivers into."""

    client: Any
    name: str
    period: date = date(2026, 2, 1)
    delivered: int = 0
    overwriting: bool = False

    def deliver(
        self,
        *files: bytes,
        closed: bool = True,
        created_at: str = "2026-03-05T00:00:00+00:00",
        with_manifest: bool = True,
        **changes: Any,
    ) -> str:
        """Deliver a period's files; returns the manifest's version. `changes` are what the manifest says otherwise."""
        self.delivered += not (self.overwriting and self.delivered)
        month = f"billing_period={self.period:%Y-%m}"
        keys = [f"{PREFIX}/data/{month}/{self.delivered}/{number}.csv.gz" for number in range(len(files))]
        for key, content in zip(keys, files, strict=True):
            self.client.put_object(Bucket=self.name, Key=key, Body=gzip.compress(content, mtime=0))
        if not with_manifest:
            return ""
        end = (self.period + timedelta(days=31)).replace(day=1)
        manifest = {
            "executionId": str(self.delivered), "createdAt": created_at, "format": "TEXT_OR_CSV", "compression": "GZIP",
            "billingPeriod": {"start": str(self.period), "end": str(end)}, "tomorrow": {"more": 1},
            "billingPeriodStatus": "CLOSED" if closed else "OPEN",
            "dataFiles": [f"s3://{self.name}/{key}" for key in keys], **changes,
        }  # fmt: skip
        key = f"{PREFIX}/metadata/{month}/focus-Manifest.json"
        put = self.client.put_object(Bucket=self.name, Key=key, Body=json.dumps(manifest).encode())
        return str(put["VersionId"])


class Desk:
    """Stands in for the broker: whoever may have a session gets one."""

    async def open(self, grant: str, credential_id: str) -> AwsCredentials:
        assert UUID(credential_id) == CREDENTIAL
        return AwsCredentials("AKIAIOSFODNN7EXAMPLE", "secret", "")


@dataclass
class Active:
    """Stands in for identity: every organization is in use, or none."""

    active: bool = True

    async def is_active(self, organization_id: UUID) -> bool:
        return self.active


@dataclass
class Office:
    """Pricing's API and worker on one database and one emulated S3."""

    database: TestDatabase
    clock: MovableClock
    api: Store
    worker: Store
    planner: Planner
    desk: JobDesk
    tools: working.Tools
    bucket: Bucket

    # What people ask for.
    async def connect(self, prefix: str = PREFIX, organization: UUID = ACME) -> UUID:
        given = NewBillSource(UUID(int=1), ACCOUNT, REGION, self.bucket.name, prefix)
        facts = ConnectionFacts(CREDENTIAL, frozenset({ACCOUNT}), False)
        async with self.api.begin(organization, context(organization)) as work:
            return (await bills.create_bill_source(work, self.planner, given, facts)).bill_source_id

    async def ask(self, source: UUID) -> BillImport:
        async with self.api.begin(ACME, context()) as work:
            return await bills.import_bill(work, self.planner, source)

    async def claim(self, source: UUID) -> ClaimedJob:
        (job_id,) = await self.fetch(
            "SELECT job_id FROM pricing.jobs WHERE subject_id = $1 AND status IN ('READY', 'LEASED')", source
        )
        with entered(context(None, peer="pricing-worker", peer_thumbprint="x5t")):
            return ClaimedJob(leased(await self.desk.claim(job_id)), self.worker, "pricing-worker")

    async def run(self, source: UUID) -> BillImport:
        """Run the job of a source as it is due now; returns the newest import."""
        job = await self.claim(source)
        with entered(job.context()):
            await working.import_bill(self.tools, job)
        return await self.newest(source)

    async def newest(self, source: UUID) -> BillImport:
        async with self.api.read(ACME) as connection:
            return (await bill_store.list_imports(connection, None, 1, source))[0]

    async def batches(self) -> list[Batch]:
        async with self.api.read(ACME) as connection:
            return await bill_store.list_batches(connection, await bill_store.current_ids(connection))

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The first column of what a superuser sees."""
        superuser = await self.database.superuser()
        rows = await superuser.fetch(statement, *arguments)
        await superuser.close()
        return [row[0] for row in rows]

    async def total(self) -> Decimal | None:
        """What all rows cost together, current or not."""
        (found,) = await self.fetch("SELECT sum(effective_cost) FROM pricing.daily_costs")
        return Decimal(found) if found is not None else None


@asynccontextmanager
async def opened(database: TestDatabase, endpoint: str, folder: Path) -> AsyncIterator[Office]:
    """Pricing at work on a database that has its migrations, and on the S3 at `endpoint`."""
    clock = MovableClock()
    api, worker = database.role("pricing_api"), database.role("pricing_worker")
    dispatch, threads = database.role("pricing_dispatcher"), BoundedThreads(2, "test")
    key, trust = keys(folder)
    store = Store(api, "pricing", clock)
    policies = bills.Policies(store, Active(), Unrotated())  # type: ignore[arg-type]
    desk = JobDesk(
        store, dispatch, key, trust, clock, {bills.IMPORT_BILL: policies.import_bill}, issuer="pricing", profile="local"
    )
    style = Config(s3={"addressing_style": "path"})
    s3 = boto3.client(
        "s3", REGION, endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x", config=style
    )
    bucket = Bucket(s3, f"bills-{uuid4().hex[:8]}")
    s3.create_bucket(Bucket=bucket.name)
    s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    tools = working.Tools(Desk(), threads, AwsSettings(endpoint), timedelta(hours=24), 10_000_000)  # type: ignore[arg-type]
    yield Office(
        database, clock, store, Store(worker, "pricing", clock), Planner(key, "pricing", clock), desk, tools, bucket
    )
    threads.close()
    s3.close()
    for role in (api, worker, dispatch):
        await role.close()
