"""The emulated AWS of the local profile: moto, the recording proxy, the estate seeder, the bill simulator.

It must never reach a production image; see README.md beside this file.
"""

from recoup_local.cloud.launch import (
    ACCOUNTS,
    DENIED_REGION,
    MEMBER_ACCOUNT,
    PAYER_ACCOUNT,
    REGIONS,
    AdminKey,
    Cloud,
    CloudEndpoints,
    CloudStartError,
    start_cloud,
)
from recoup_local.cloud.proxy_control import ControlError, ProxyControl
from recoup_local.cloud.simclock import SimClock

__all__ = [
    "ACCOUNTS",
    "DENIED_REGION",
    "MEMBER_ACCOUNT",
    "PAYER_ACCOUNT",
    "REGIONS",
    "AdminKey",
    "Cloud",
    "CloudEndpoints",
    "CloudStartError",
    "ControlError",
    "ProxyControl",
    "SimClock",
    "start_cloud",
]
