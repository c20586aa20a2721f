"""The estate of the emulated accounts: what exists in them, when it came to be, and what is true about it.

Nothing in the cloud tells a detector the answer; the truth is a separate document for tests and the demo.
"""

from recoup_local.cloud.estate.plan import (
    FIRST_SCAN_DAY,
    RECOMMENDED_SCAN_DAYS,
    EstatePlan,
    build_plan,
)
from recoup_local.cloud.estate.roles import (
    ACT_ROLE,
    SCAN_ROLE,
    BaseUser,
    RoleArns,
    create_base_user,
    install_roles,
)
from recoup_local.cloud.estate.seeder import Estate, bill_bucket_name
from recoup_local.cloud.estate.truth import expectations

__all__ = [
    "ACT_ROLE",
    "FIRST_SCAN_DAY",
    "RECOMMENDED_SCAN_DAYS",
    "SCAN_ROLE",
    "BaseUser",
    "Estate",
    "EstatePlan",
    "RoleArns",
    "bill_bucket_name",
    "build_plan",
    "create_base_user",
    "expectations",
    "install_roles",
]
