"""On-demand unit prices that the emulated provider charges, in USD. Data only.

Source: AWS public price pages of EBS, EC2 On-Demand (Linux) and VPC (public IPv4), as of 2024-10.
"""

from __future__ import annotations

from decimal import Decimal

CURRENCY = "USD"
_D = Decimal
# A GiB-month of provisioned storage by volume type.
VOLUME_GIB_MONTH: dict[str, dict[str, Decimal]] = {
    "us-east-1": {
        "gp2": _D("0.10"), "gp3": _D("0.08"), "io1": _D("0.125"), "io2": _D("0.125"), "st1": _D("0.045"),
        "sc1": _D("0.015"), "standard": _D("0.05"),
    },
    "eu-west-1": {
        "gp2": _D("0.11"), "gp3": _D("0.088"), "io1": _D("0.138"), "io2": _D("0.138"), "st1": _D("0.05"),
        "sc1": _D("0.0168"), "standard": _D("0.055"),
    },
}  # fmt: skip
# An IOPS-month, and for gp3 a MiB/s-month, above what the type includes.
VOLUME_IOPS_MONTH: dict[str, dict[str, Decimal]] = {
    "us-east-1": {"gp3": _D("0.005"), "io1": _D("0.065"), "io2": _D("0.065")},
    "eu-west-1": {"gp3": _D("0.0055"), "io1": _D("0.072"), "io2": _D("0.072")},
}
VOLUME_MIBPS_MONTH = {"us-east-1": _D("0.04"), "eu-west-1": _D("0.044")}
SNAPSHOT_GIB_MONTH = {"standard": _D("0.05"), "archive": _D("0.0125")}
# Since 2024-02-01 every public IPv4 address costs this, idle or in use.
PUBLIC_IPV4_HOUR = _D("0.005")
TRANSFER_GB = _D("0.09")
INSTANCE_HOUR: dict[str, dict[str, Decimal]] = {
    "us-east-1": {
        "t3.micro": _D("0.0104"), "t3.medium": _D("0.0416"), "m5.large": _D("0.096"), "c5.large": _D("0.085"),
        "r5.large": _D("0.126"),
    },
    "eu-west-1": {
        "t3.micro": _D("0.0114"), "t3.medium": _D("0.0456"), "m5.large": _D("0.107"), "c5.large": _D("0.096"),
        "r5.large": _D("0.141"),
    },
}  # fmt: skip
INCLUDED_IOPS = {"gp3": 3000, "io1": 0, "io2": 0}
INCLUDED_MIBPS = {"gp3": 125}
REGION_NAMES = {"us-east-1": "US East (N. Virginia)", "eu-west-1": "EU (Ireland)"}
USAGE_PREFIXES = {"us-east-1": "", "eu-west-1": "EU-"}
# What a month always has, whoever uses what: a support plan bought, a credit, a tax rate.
SUPPORT_PLAN_MONTH = _D("100")
CREDIT_MONTH = _D("-25")
TAX_RATE = _D("0.07")


def priced_region(region: str) -> str:
    """The region whose price list applies; regions without one of their own are charged like us-east-1."""
    return region if region in VOLUME_GIB_MONTH else "us-east-1"
