"""Opens the storage that the settings name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from services._mesh.aws import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services._mesh.config import Between, Matches, SecretFile
from services._mesh.storage import PrunedStorage
from services._mesh.storage.folder import FolderStorage
from services._mesh.storage.s3 import Bucket, S3Storage
from services._mesh.threads import BoundedThreads

_THREADS = 4


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


def open_storage(folder: Path | None, bucket: BucketSettings | None, clock: Clock) -> PrunedStorage:
    """The storage in the folder or in the bucket; nothing is reached for yet."""
    threads = BoundedThreads(_THREADS, "storage")
    if folder is not None:
        return FolderStorage(threads, folder)
    assert bucket is not None
    known = Bucket(bucket.name, bucket.region, bucket.prefix, bucket.retention_days)
    return S3Storage(threads, known, AwsSettings(bucket.endpoint_url), _credentials(bucket), clock.wall_now)


def _credentials(given: BucketSettings) -> AwsCredentials | None:
    """The key that is configured; without one the SDK looks for the process's own identity."""
    if given.secret_access_key_file is None:
        return None
    return AwsCredentials(given.access_key_id, given.secret_access_key_file.read_text("utf-8").strip(), "")
