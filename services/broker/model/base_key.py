"""The sealed content of an AWS connection's credential: the base key and the roles that it may assume.

Its repr shows nothing, and it is wiped as far as Python allows: the bytes that came out of the envelope are
overwritten; the strings that the SDK needs can only be dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from services._mesh.errors import Denied, Reason

PURPOSE = "aws.base_key"


@dataclass(frozen=True, slots=True)
class BaseKey:
    """A base user's key, the external id, and the role of each account for each use ("scan" or "act")."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    external_id: str = field(repr=False)
    roles: Mapping[str, Mapping[str, str]] = field(repr=False)

    def role(self, account: str, use: str) -> str:
        """The role's ARN. Raises Denied (GRANT_INVALID) when the connection has none for this account and use."""
        arn = self.roles.get(account, {}).get(use, "")
        if not arn:
            raise Denied(
                Reason.ERROR_REASON_GRANT_INVALID, f"The connection has no role to {use} with in account {account}."
            )
        return arn


def parse(plaintext: bytearray) -> BaseKey:
    """Read the content, and overwrite the bytes that it was in."""
    try:
        content = json.loads(plaintext)
        return BaseKey(
            str(content["access_key_id"]),
            str(content["secret_access_key"]),
            str(content["external_id"]),
            {account: dict(uses) for account, uses in content["roles"].items()},
        )
    finally:
        plaintext[:] = bytes(len(plaintext))
