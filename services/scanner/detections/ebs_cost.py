"""What an EBS volume costs a month: capacity, and the provisioned IOPS and throughput above what its type includes.

Source: Amazon EBS pricing and the volume types page of the EC2 user guide (gp3 includes 3,000 IOPS and 125 MiB/s).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from services.scanner.detections.base import Prices, plus, times

GP3_INCLUDED_IOPS = 3000
GP3_INCLUDED_MIBPS = 125
# gp2: 3 IOPS a GiB, at least 100, at most 16,000; volumes under 1,000 GiB burst to 3,000.
_GP2_BURST_IOPS = 3000


def skus_of(volume_type: str) -> tuple[str, ...]:
    """The catalogue keys that pricing a volume of this type may need."""
    extra = {
        "gp3": ("ebs.gp3.iops_month", "ebs.gp3.throughput_mibps_month"),
        "io1": ("ebs.io1.iops_month",),
        "io2": ("ebs.io2.iops_month",),
    }
    return (f"ebs.{volume_type}.gb_month", *extra.get(volume_type, ()))


def monthly_cost(facts: Mapping[str, str], prices: Prices) -> Decimal | None:
    """The cost of a volume for a month, or None when a price isn't known."""
    volume_type, size = facts["volume_type"], Decimal(facts["size_gib"])
    capacity = times(size, prices.unit(f"ebs.{volume_type}.gb_month"))
    iops, mibps = _number(facts.get("iops", "")), _number(facts.get("throughput_mibps", ""))
    if volume_type == "gp3":
        paid_iops, paid_mibps = max(iops - GP3_INCLUDED_IOPS, Decimal(0)), max(mibps - GP3_INCLUDED_MIBPS, Decimal(0))
        return plus(
            capacity,
            times(paid_iops, prices.unit("ebs.gp3.iops_month")),
            times(paid_mibps, prices.unit("ebs.gp3.throughput_mibps_month")),
        )
    if volume_type in ("io1", "io2"):
        return plus(capacity, times(iops, prices.unit(f"ebs.{volume_type}.iops_month")))
    return capacity


def gp3_equal_of(size_gib: int) -> tuple[int, int]:
    """The IOPS and throughput (MiB/s) that make a gp3 volume no slower than a gp2 one of this size.

    gp2's throughput is 128 MiB/s up to 170 GiB and 250 MiB/s above (the most that bursting reaches), and its IOPS are
    3 a GiB with bursts to 3,000.
    """
    iops = max(min(3 * size_gib, 16000), _GP2_BURST_IOPS)
    mibps = GP3_INCLUDED_MIBPS if size_gib < 1 else 128 if size_gib <= 170 else 250
    return iops, mibps


def _number(text: str) -> Decimal:
    return Decimal(text) if text else Decimal(0)
