"""A storage in a bucket of S3, or of what speaks its language: conditional puts, and a retention lock if asked for.

The lock is the bucket's own promise (object lock, COMPLIANCE): until it ends, not even the account's root deletes or
replaces a version. The bucket must have been made with object lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from services._mesh.aws import CALL_DEADLINE_SECONDS, Failure, classify, client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.storage import MAX_OBJECT_BYTES, Missing, Occupied, StorageFailed, StorageLocked
from services._mesh.threads import BoundedThreads

R = TypeVar("R")
# 16 TiB of parts, which no backup of ours has.
_PAGE, _MOST_PAGES = 500, 4000
_THERE_ALREADY = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, what stands before the names in it, and for how long each object is locked (0: not at all)."""

    name: str
    region: str
    prefix: str
    retention_days: int


class S3Storage:
    """Objects of one bucket. `now` is the wall clock, which the lock is reckoned by."""

    def __init__(
        self,
        threads: BoundedThreads,
        bucket: Bucket,
        settings: AwsSettings,
        credentials: AwsCredentials | None,
        now: Callable[[], datetime],
    ) -> None:
        self._threads, self._bucket, self._now = threads, bucket, now
        self._settings, self._credentials = settings, credentials
        self._made: Any = None

    @property
    def where(self) -> str:
        """The bucket and the prefix."""
        return f"s3://{self._bucket.name}/{self._bucket.prefix}"

    async def put(self, name: str, content: bytes) -> None:
        """Write an object that stays. Raises Occupied, StorageFailed."""
        if not await self._run(name, self._put, self._key(name), content) and await self.get(name) != content:
            raise Occupied(f"{self.where}{name}")

    async def get(self, name: str) -> bytes:
        """An object's content. Raises Missing, StorageFailed."""
        content = await self._run(name, self._get, self._key(name))
        if content is None:
            raise Missing(name)
        if len(content) > MAX_OBJECT_BYTES:
            raise StorageFailed(f"{self.where}{name} is larger than any object of ours")
        return content

    async def holds(self, name: str) -> bool:
        """Whether an object lies under the name. Raises StorageFailed."""
        return await self._run(name, self._holds, self._key(name))

    async def first(self, folder: str, count: int, after: str = "") -> list[str]:
        """See Storage."""
        keys = await self._run(folder, self._first, self._key(f"{folder}/"), count, after and self._key(after))
        return [key.removeprefix(self._bucket.prefix) for key in keys]

    async def delete(self, name: str) -> None:
        """See PrunedStorage."""
        await self._emptied(name, exact=True)

    async def delete_below(self, folder: str) -> int:
        """See PrunedStorage."""
        return await self._emptied(f"{folder}/", exact=False)

    async def _emptied(self, name: str, *, exact: bool) -> int:
        """Delete page by page, each call within its deadline; returns how many versions and marks were deleted."""
        deleted = 0
        for _ in range(_MOST_PAGES):
            done = await self._run(name, self._delete_page, self._key(name), exact)
            deleted += done
            if not done:
                return deleted
        raise StorageFailed(f"{self.where}{name}: there is more each time that it is deleted")

    async def _run(self, name: str, call: Callable[..., R], *arguments: Any) -> R:
        try:
            return await self._threads.run(CALL_DEADLINE_SECONDS, call, *arguments)
        except Exception as error:
            failure, code = classify(error)  # Raises again what isn't the cloud's.
            if failure is Failure.DENIED:
                raise StorageLocked(f"{self.where}{name}: {failure} ({code})") from error
            raise StorageFailed(f"{self.where}{name}: {failure} ({code})") from error

    def _key(self, name: str) -> str:
        return self._bucket.prefix + name

    def _put(self, key: str, content: bytes) -> bool:
        """Whether it was written; else something lies there already."""
        lock: dict[str, Any] = {}
        if self._bucket.retention_days:
            until = self._now() + timedelta(days=self._bucket.retention_days)
            lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until.replace(microsecond=0)}
        try:
            self._client().put_object(
                Bucket=self._bucket.name, Key=key, Body=content, IfNoneMatch="*", ChecksumAlgorithm="SHA256", **lock
            )
        except Exception as error:
            if classify(error)[1] in _THERE_ALREADY:
                return False
            raise
        return True

    def _get(self, key: str) -> bytes | None:
        try:
            found = self._client().get_object(Bucket=self._bucket.name, Key=key)
            content: bytes = found["Body"].read(MAX_OBJECT_BYTES + 1)
        except Exception as error:
            if classify(error)[1] == "NoSuchKey":
                return None
            raise
        return content

    def _holds(self, key: str) -> bool:
        try:
            self._client().head_object(Bucket=self._bucket.name, Key=key)
        except Exception as error:
            if classify(error)[1] in ("404", "NoSuchKey"):
                return False
            raise
        return True

    def _first(self, prefix: str, count: int, after: str) -> list[str]:
        beyond = {"StartAfter": after} if after else {}
        found = self._client().list_objects_v2(Bucket=self._bucket.name, Prefix=prefix, MaxKeys=count, **beyond)
        return [str(each["Key"]) for each in found.get("Contents", [])]

    def _delete_page(self, prefix: str, exact: bool) -> int:
        """Every version by its own name: without one, a bucket with versions only hides what it keeps."""
        found = self._client().list_object_versions(Bucket=self._bucket.name, Prefix=prefix, MaxKeys=_PAGE)
        versions = [
            {"Key": str(each["Key"]), "VersionId": str(each["VersionId"])}
            for each in (*found.get("Versions", ()), *found.get("DeleteMarkers", ()))
            if not exact or each["Key"] == prefix
        ]
        if versions:
            answer = self._client().delete_objects(
                Bucket=self._bucket.name, Delete={"Objects": versions, "Quiet": True}, ChecksumAlgorithm="SHA256"
            )
            for refused in answer.get("Errors", ()):
                raise StorageLocked(f"{self.where}: {refused['Key']} stays ({refused['Code']})")
        return len(versions)

    def _client(self) -> Any:
        if self._made is None:
            # A put names the object and its whole content, and never replaces one: repeating it is safe.
            self._made = client("s3", self._bucket.region, self._settings, self._credentials)
        return self._made
