"""boto3 clients of the emulated cloud for the seeder, the bill simulator and tests, with deadlines.

It signs with the admin keys; Recoup's own processes never use it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from recoup_local.cloud.launch import AdminKey, CloudEndpoints

_CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 3})


class AwsClients:
    """One client per (service, account, region), made on first use and kept."""

    def __init__(self, url: str, admins: dict[str, AdminKey]) -> None:
        self._url = url
        self._admins = admins
        self._clients: dict[tuple[str, str, str], Any] = {}

    @classmethod
    def of(cls, endpoints: CloudEndpoints) -> AwsClients:
        """Those of a cloud started by `start_cloud`."""
        return cls(endpoints.url, endpoints.admins)

    @classmethod
    def from_admin_file(cls, url: str, path: Path) -> AwsClients:
        """Those of a running cloud, from its admin.json."""
        keys = [AdminKey(**item) for item in json.loads(path.read_text("utf-8"))["keys"]]
        return cls(url, {key.account: key for key in keys})

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts there are admin keys for; the payer first."""
        return tuple(self._admins)

    def client(self, service: str, account: str, region: str = "us-east-1") -> Any:
        """A boto3 client (untyped: its methods exist only at run time)."""
        key = (service, account, region)
        if key not in self._clients:
            admin = self._admins[account]
            # The stubs know a client's type only for a literal service name.
            make: Any = boto3.session.Session().client
            self._clients[key] = make(
                service,
                region_name=region,
                endpoint_url=self._url,
                aws_access_key_id=admin.access_key_id,
                aws_secret_access_key=admin.secret_access_key,
                config=_CONFIG,
            )
        return self._clients[key]
