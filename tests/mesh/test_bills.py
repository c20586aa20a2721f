"""Bills that can't be used, through the whole mesh: refused whole, with row and column, and what was current stays."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import date
from typing import Any

import pytest

from recoup_local.cloud import PAYER_ACCOUNT, REGIONS, ProxyControl
from recoup_local.cloud.bill import focus
from recoup_local.cloud.estate.seeder import bill_bucket_name
from tests.mesh.test_faults import rows as select
from tests.support.mesh import TestMesh, until
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

PERIOD, ROW = "2024-03", 2


@pytest.fixture(scope="module")
def made(told: Told) -> TestMesh:
    return told.made


def rows() -> list[dict[str, str]]:
    """Three rows of a month that no other source bills."""
    payer = focus.Payer(PAYER_ACCOUNT, {})
    return focus.month_rows(payer, date(2024, 3, 5), {PAYER_ACCOUNT: focus.prices.CREDIT_MONTH})


def table(columns: list[str], content: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(content)
    return text.getvalue().encode()


def without_a_column() -> bytes:
    return table([name for name in focus.COLUMNS if name != "EffectiveCost"], rows())


def with_a_wrong_number() -> bytes:
    content = rows()
    content[ROW - 1]["BilledCost"] = "12.5x"
    return table(list(focus.COLUMNS), content)


def in_two_currencies() -> bytes:
    content = rows()
    content[ROW - 1]["BillingCurrency"] = "EUR"
    return table(list(focus.COLUMNS), content)


def deliver(made: TestMesh, name: str, body: bytes, file: str = "") -> None:
    """A delivery as the provider makes it: the file, then the manifest that names it."""
    s3 = made.clients.client("s3", PAYER_ACCOUNT)
    bucket, base = bill_bucket_name(), f"odd/{name}"
    key = f"{base}/data/billing_period={PERIOD}/x/{name}-00001.csv.gz"
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    manifest = {
        "executionId": "x",
        "createdAt": "2024-03-06T06:00:00+00:00",
        "billingPeriod": {"start": "2024-03-01", "end": "2024-04-01"},
        "billingPeriodStatus": "OPEN",
        "format": "TEXT_OR_CSV",
        "compression": "GZIP",
        "dataFiles": [file or f"s3://{bucket}/{key}"],
    }
    s3.put_object(
        Bucket=bucket,
        Key=f"{base}/metadata/billing_period={PERIOD}/{name}-Manifest.json",
        Body=json.dumps(manifest).encode(),
    )


def imported(made: TestMesh, name: str) -> dict[str, Any]:
    """What comes of fetching the source with that name."""
    finops = made.rest("acme", "FinOps")
    source = {
        "connectionId": made.connection_id,
        "account": PAYER_ACCOUNT,
        "region": REGIONS[0],
        "bucket": bill_bucket_name(),
        "prefix": f"odd/{name}",
    }
    source_id = finops.post("/billSources", source)["billSource"]["billSourceId"]

    def ended() -> dict[str, Any] | None:
        found = finops.get("/billImports", billSourceId=source_id)["billImports"]
        return found[0] if found and found[0].get("finishedAt") else None

    return until(ended)


BROKEN = (
    ("no-column", without_a_column, 0, "EffectiveCost"),
    ("wrong-number", with_a_wrong_number, ROW, "BilledCost"),
    ("two-currencies", in_two_currencies, ROW, "BillingCurrency"),
)


@pytest.mark.parametrize(("name", "content", "row", "column"), BROKEN, ids=[b[0] for b in BROKEN])
def test_a_broken_bill_is_refused_whole(made: TestMesh, name: str, content: Any, row: int, column: str) -> None:
    before = current(made)
    deliver(made, name, gzip.compress(content()))
    found = imported(made, name)
    assert (found["state"], found["row"], found["column"]) == ("BILL_IMPORT_STATE_FAILED", str(row), column)
    assert column in found["problem"]
    assert found["batches"] == []
    assert current(made) == before


def test_a_file_that_is_cut_off_is_refused(made: TestMesh) -> None:
    whole = gzip.compress(table(list(focus.COLUMNS), rows() * 200))
    deliver(made, "cut-off", whole[: len(whole) // 2])
    found = imported(made, "cut-off")
    assert found["state"] == "BILL_IMPORT_STATE_FAILED"
    assert "cut off" in found["problem"]


@pytest.mark.parametrize(
    "file", ["s3://another-bucket/odd/outside/x.csv.gz", f"s3://{bill_bucket_name()}/billing/focus-daily/x.csv.gz"]
)
def test_a_manifest_that_names_a_file_elsewhere_is_refused(made: TestMesh, file: str) -> None:
    name = f"outside-{len(file)}"
    deliver(made, name, gzip.compress(b""), file)
    found = imported(made, name)
    assert found["state"] == "BILL_IMPORT_STATE_FAILED"
    assert not [line for line in proxy_log(made) if "another-bucket" in line["params"].values()]


def proxy_log(made: TestMesh) -> list[dict[str, Any]]:
    return ProxyControl.of(made.mesh.cloud).log()


def current(made: TestMesh) -> list[str]:
    """The batches that are current, whatever was tried."""
    found = select(made, "SELECT sha256 FROM pricing.bill_batches WHERE is_current ORDER BY sha256")
    return [str(row["sha256"]) for row in found]
