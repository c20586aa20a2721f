"""Opens the storage that the settings name."""

from __future__ import annotations

from services._mesh.aws import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services._mesh.threads import BoundedThreads
from services.audit.config import ArchiveBucket, ArchiveSettings
from services.audit.storage import Storage
from services.audit.storage.folder import FolderStorage
from services.audit.storage.s3 import Bucket, S3Storage

_THREADS = 4


def open_storage(settings: ArchiveSettings, clock: Clock) -> Storage:
    """The archive's storage; nothing is reached for yet."""
    threads = BoundedThreads(_THREADS, "archive")
    if settings.folder is not None:
        return FolderStorage(threads, settings.folder)
    assert settings.bucket is not None
    given = settings.bucket
    bucket = Bucket(given.name, given.region, given.prefix, given.retention_days)
    return S3Storage(threads, bucket, AwsSettings(given.endpoint_url), _credentials(given), clock.wall_now)


def _credentials(given: ArchiveBucket) -> AwsCredentials | None:
    """The key that is configured; without one the SDK looks for the process's own identity."""
    if given.secret_access_key_file is None:
        return None
    return AwsCredentials(given.access_key_id, given.secret_access_key_file.read_text("utf-8").strip(), "")
