"""The sealed content of an Azure or Google Cloud connection's credential: who we are there, and for which scopes.

Its repr shows nothing. It is wiped as far as an AWS key's is (base_key.py). No address in it is one that we go to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from services._mesh.errors import Denied, Reason

# Whom an assertion for Azure is for (Microsoft Entra, "Workload identity federation").
AZURE_AUDIENCE = "api://AzureADTokenExchange"
AZURE_PURPOSE, GCP_PURPOSE = "azure.credential", "gcp.credential"
# What a grant names instead of a scope, to see which ones there are.
ALL = "*"
# What a grant may want a token for, and what the credential is sealed for then: looking at what there is and what is
# allowed. Scanning and acting will be purposes of their own, and roles of their own.
SEALED_FOR: Mapping[str, str] = {"azure.check": AZURE_PURPOSE, "gcp.check": GCP_PURPOSE}


@dataclass(frozen=True, slots=True)
class CloudKey:
    """Who we are, what shows it, and the scopes (subscriptions or projects) that the connection is for."""

    public: Mapping[str, str] = field(repr=False)
    secret: Mapping[str, str] = field(repr=False)
    scopes: frozenset[str] = field(repr=False)

    def require(self, scope_id: str) -> None:
        """Raises Denied (GRANT_INVALID) for a scope that the connection isn't for; ALL is to see which there are."""
        if scope_id != ALL and scope_id not in self.scopes:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, f"The connection isn't for {scope_id}.")


def parse(plaintext: bytearray) -> CloudKey:
    """Read the content, and overwrite the bytes that it was in. Raises ValueError, KeyError."""
    try:
        content = json.loads(plaintext)
        public, secret = ({name: str(value) for name, value in content[part].items()} for part in ("public", "secret"))
        return CloudKey(public, secret, frozenset(map(str, content["scopes"])))
    finally:
        plaintext[:] = bytes(len(plaintext))
