"""Builds `aws_ec2_linux.json` from the on-demand table that ships with apache-libcloud.

Run `python -m services.pricing.data.build_ec2` after a new release of apache-libcloud is locked. The table has zeros
where it knows nothing, and in some sizes the price of dedicated tenancy; both are left out rather than guessed at.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("aws_ec2_linux.json")

# AWS's normalization factors: within a family, on-demand Linux prices rise with them.
_FACTORS = {"nano": "0.25", "micro": "0.5", "small": "1", "medium": "2", "large": "4", "xlarge": "8"}
# Published prices are rounded, so that sizes of one family agree only so far. Dedicated tenancy adds 6 % and more.
_ROUNDING = Decimal("0.005")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")  # Not local zones, such as us-west-2-lax-1.


def build(table: dict[str, Any]) -> dict[str, Any]:
    """The data file's document from libcloud's pricing.json (numbers as Decimal)."""
    families: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(dict)
    for instance_type, regions in table["compute"]["ec2_linux"].items():
        for region, price in regions.items():
            if price and _factor(instance_type) and _REGION.fullmatch(region):
                families[instance_type.partition(".")[0], region][instance_type] = price
    units: dict[str, dict[str, Any]] = defaultdict(lambda: {"unit": "Hours", "prices": {}})
    for (_, region), prices in sorted(families.items()):
        for instance_type in _plausible(prices):
            units[f"ec2.{instance_type}.linux_hour"]["prices"][region] = format(prices[instance_type], "f")
    return {
        "provider": "aws",
        "currency": "USD",
        "source": f"apache-libcloud {version('apache-libcloud')}, ec2_linux on-demand table",
        "source_date": f"{datetime.fromtimestamp(table['updated'], UTC):%Y-%m-%d}",
        "units": dict(sorted(units.items())),
    }


def _plausible(prices: dict[str, Decimal]) -> list[str]:
    """The types of one family and region whose price, by size, is the lowest and is confirmed by another type."""
    relative = {name: price / _factor(name) for name, price in prices.items()}
    most = min(relative.values()) * (1 + _ROUNDING)
    lowest = [name for name, price in relative.items() if price <= most]
    return sorted(lowest) if len(lowest) > 1 else []


def _factor(instance_type: str) -> Decimal:
    """The normalization factor of a type's size; 0 where AWS gives it none that is fixed (metal)."""
    size = instance_type.partition(".")[2]
    multiple = re.fullmatch(r"([0-9]+)xlarge", size)
    return Decimal(8 * int(multiple[1])) if multiple else Decimal(_FACTORS.get(size, "0"))


def render(document: dict[str, Any]) -> str:
    """The document as text: one unit a line, so that a change of price is a change of one line."""
    head = {key: value for key, value in document.items() if key != "units"}
    lines = [f"  {json.dumps(sku)}: {json.dumps(unit)}" for sku, unit in document["units"].items()]
    return json.dumps(head, indent=1)[:-2] + ',\n "units": {\n' + ",\n".join(lines) + "\n }\n}\n"


def main() -> None:
    """Writes the data file."""
    text = files("libcloud").joinpath("data/pricing.json").read_text("utf-8")
    TARGET.write_text(render(build(json.loads(text, parse_float=Decimal))), "utf-8")


if __name__ == "__main__":
    main()
