"""Writes metered usage as FOCUS 1.0 rows in the dialect of AWS's export. Pure.

Dialect: `NULL` for no value, times without a zone ("2024-10-01 00:00:00" meaning UTC), extra x_ columns.
ResourceId is as AWS writes it: the bare id of volumes and instances, the ARN of snapshots and addresses.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from recoup_local.cloud.bill import prices
from recoup_local.cloud.bill.meter import Metered, Usage

COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription",
    "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountCategory",
    "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountStatus", "CommitmentDiscountType",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType",
    "ServiceCategory", "ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
    "x_Operation", "x_ServiceCode", "x_UsageType",
)  # fmt: skip
ISSUER = "Amazon Web Services, Inc."
_MONEY = Decimal("0.00000000001")
_TYPES = {"volume": "volume", "snapshot": "snapshot", "address": "elastic-ip", "instance": "instance"}
Row = dict[str, str]


@dataclass(frozen=True)
class Payer:
    """Whose bill it is. `discount`: the negotiated share off the list price, 0 to 1."""

    account: str
    names: dict[str, str]
    discount: Decimal = Decimal(0)


def month_start(day: date) -> date:
    """The first day of a day's billing period."""
    return day.replace(day=1)


def month_end(day: date) -> date:
    """The first day after a day's billing period."""
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def resource_id(resource: Metered) -> str:
    """The id as AWS's cost data has it."""
    place = f"arn:aws:ec2:{resource.region}:{resource.account}:"
    if resource.kind == "snapshot":
        return f"{place}snapshot/{resource.id}"
    return f"{place}elastic-ip/{resource.id}" if resource.kind == "address" else resource.id


def usage_row(payer: Payer, resource: Metered, usage: Usage, day: date) -> Row:
    """One resource-day of usage. List price, contracted (after the discount) and effective are told apart."""
    network = resource.kind == "address" or usage.unit == "GB"
    contracted = usage.unit_price * (1 - payer.discount)
    list_cost, cost = usage.quantity * usage.unit_price, usage.quantity * contracted
    service = "Amazon Virtual Private Cloud" if resource.kind == "address" else "Amazon Elastic Compute Cloud"
    category = "Networking" if network else "Compute" if resource.kind == "instance" else "Storage"
    sku = sku_id(resource.region, usage)
    return _row(payer, resource.account, day, day + timedelta(days=1), "Usage") | {
        "AvailabilityZone": resource.zone or "NULL",
        "BilledCost": money(cost), "EffectiveCost": money(cost), "ContractedCost": money(cost),
        "ListCost": money(list_cost), "ListUnitPrice": str(usage.unit_price),
        "ContractedUnitPrice": str(contracted.normalize()), "ChargeDescription": usage.description,
        "ConsumedQuantity": str(usage.quantity), "ConsumedUnit": usage.unit,
        "PricingQuantity": str(usage.quantity), "PricingUnit": usage.unit, "PricingCategory": "Standard",
        "RegionId": resource.region, "RegionName": prices.REGION_NAMES.get(resource.region, resource.region),
        "ResourceId": resource_id(resource), "ResourceType": _TYPES[resource.kind],
        "ServiceCategory": category, "ServiceName": service, "SkuId": sku, "SkuPriceId": f"{sku}.JRTCKXETXF",
        "Tags": json.dumps(resource.tags, separators=(",", ":")) if resource.tags else "NULL",
        "x_Operation": usage.operation, "x_UsageType": usage.usage_type,
        "x_ServiceCode": "AmazonVPC" if resource.kind == "address" else "AmazonEC2",
    }  # fmt: skip


def sku_id(region: str, usage: Usage) -> str:
    """The SKU of a usage line: 16 capitals and digits, another one for each region, usage type and operation."""
    digest = hashlib.sha256(f"{region}/{usage.usage_type}/{usage.operation}".encode()).digest()
    return base64.b32encode(digest)[:16].decode("ascii")


def month_rows(payer: Payer, day: date, billed: dict[str, Decimal]) -> list[Row]:
    """What isn't usage: Tax per account on what was billed so far, one Credit and one Purchase."""
    rows = [
        _flat(payer, account, day, "Tax", "Tax for product code AmazonEC2", total * prices.TAX_RATE)
        for account, total in sorted(billed.items())
    ]
    rows.append(_flat(payer, payer.account, day, "Credit", "Promotional credit", prices.CREDIT_MONTH))
    support = _flat(payer, payer.account, day, "Purchase", "AWS Support (Business)", prices.SUPPORT_PLAN_MONTH)
    rows.append(support | {"ServiceName": "AWS Support (Business)", "ChargeFrequency": "Recurring"})
    return rows


def render(rows: Iterable[Row]) -> str:
    """CSV lines without a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[row[name] for name in COLUMNS] for row in rows])
    return text.getvalue()


def header() -> str:
    """The CSV header line."""
    return ",".join(COLUMNS) + "\n"


def money(value: Decimal) -> str:
    """An amount with eleven decimals, as AWS writes them."""
    return str(value.quantize(_MONEY))


def _row(payer: Payer, account: str, start: date, end: date, category: str) -> Row:
    return dict.fromkeys(COLUMNS, "NULL") | {
        "BillingAccountId": payer.account,
        "BillingAccountName": payer.names.get(payer.account, payer.account),
        "BillingCurrency": prices.CURRENCY,
        "BillingPeriodStart": f"{month_start(start)} 00:00:00",
        "BillingPeriodEnd": f"{month_end(start)} 00:00:00",
        "ChargeCategory": category,
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": f"{start} 00:00:00",
        "ChargePeriodEnd": f"{end} 00:00:00",
        "InvoiceIssuerName": ISSUER,
        "ProviderName": "AWS",
        "PublisherName": ISSUER,
        "SubAccountId": account,
        "SubAccountName": payer.names.get(account, account),
    }


def _flat(payer: Payer, account: str, day: date, category: str, text: str, amount: Decimal) -> Row:
    costs = dict.fromkeys(("BilledCost", "EffectiveCost", "ContractedCost", "ListCost"), money(amount))
    other = {"ServiceCategory": "Other", "ServiceName": "Amazon Elastic Compute Cloud"}
    row = _row(payer, account, month_start(day), month_end(day), category)
    return row | costs | other | {"ChargeDescription": text, "ChargeFrequency": "One-Time"}
