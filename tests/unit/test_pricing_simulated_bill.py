"""The simulated provider's bill: what the measurements rest on when nobody's real bill is at hand."""

import re
from datetime import UTC, date, datetime

from recoup_local.cloud.bill import focus
from recoup_local.cloud.bill.meter import Metered, Segment, usage_of

START = datetime(2024, 10, 1, tzinfo=UTC)


def skus(kind: str, region: str, **attributes: str) -> set[str]:
    resource = Metered(kind, "vol-1", "1", region, "", {}, [Segment(START, None, attributes)])
    payer = focus.Payer("1", {})
    return {
        focus.usage_row(payer, resource, usage, date(2024, 10, 2))["SkuId"]
        for usage in usage_of(resource, date(2024, 10, 2))
    }


def test_each_region_usage_type_and_operation_has_its_own_sku() -> None:
    volumes = [
        skus("volume", region, type=kind, size="10", iops="5000", throughput="500")
        for region in ("us-east-1", "us-west-2", "eu-west-1")
        for kind in ("gp2", "gp3", "io1", "io2", "st1")
    ]
    found = [sku for each in volumes for sku in each]
    assert len(found) == len(set(found)) == 3 * (5 + 2 + 1 + 1)
    assert all(re.fullmatch("[A-Z0-9]{16}", sku) for sku in found)


def test_a_sku_stays_the_same() -> None:
    assert skus("volume", "us-east-1", type="gp2", size="10") == skus("volume", "us-east-1", type="gp2", size="99")
