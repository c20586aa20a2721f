"""Which storage a process uses, as its settings say it. Loads no SDK: also processes without a storage read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from services._mesh.config import Between, Matches, SecretFile


@dataclass(frozen=True, kw_only=True)
class BucketSettings:
    """A bucket of S3, or of what speaks its language. Without a key, the SDK finds the process's own identity.

    With `retention_days` each object is locked for so long; the bucket must have object lock.
    """

    name: str
    region: str
    prefix: Annotated[str, Matches(r"([A-Za-z0-9._-]+/)*", 'empty or a path that ends in "/"')] = ""
    retention_days: Annotated[int, Between(0, 36_500)] = 0
    endpoint_url: Annotated[str, Matches(r"|https://\S+|http://127\.0\.0\.1:\d+", "an https address")] = ""
    access_key_id: str = ""
    secret_access_key_file: SecretFile | None = None

    def __post_init__(self) -> None:
        if bool(self.access_key_id) != (self.secret_access_key_file is not None):
            raise ValueError("access_key_id and secret_access_key_file go together")
