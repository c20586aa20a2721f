"""The provider's billing side: meters what exists in the cloud and exports it as FOCUS 1.0 into S3.

It sees only the cloud's API, never Recoup's tables.
"""

from recoup_local.cloud.bill.simulator import BillOptions, BillSimulator, WrittenBill

__all__ = ["BillOptions", "BillSimulator", "WrittenBill"]
