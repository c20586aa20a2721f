"""Opens the storage that the settings name."""

from __future__ import annotations

from pathlib import Path

from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services._mesh.storage import PrunedStorage
from services._mesh.storage.folder import FolderStorage
from services._mesh.storage.s3 import Bucket, S3Storage
from services._mesh.storage.settings import BucketSettings
from services._mesh.threads import BoundedThreads

_THREADS = 4


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
