"""Fetches a provider's export from its bucket: bounded, with deadlines, in bounded threads.

It must not read anything that the manifest doesn't name, and never judges what it fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from services._mesh.aws import CALL_DEADLINE_SECONDS, Failure, classify, client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.errors import Reason, Unavailable, WrongState
from services._mesh.threads import BoundedThreads
from services.pricing.model.bill import BillSource
from services.pricing.model.manifest import (
    MAX_MANIFEST_BYTES,
    Delivery,
    metadata_prefix,
    period_of,
    read_manifest,
)
from services.pricing.model.refusal import BillRefused, refusing_unforeseen

R = TypeVar("R")
# An export keeps three years by default; older periods than these are closed and were fetched long ago.
MAX_PERIODS = 60
MAX_PAGES = 20
FILE_DEADLINE_SECONDS = 1800.0
_CHUNK_BYTES = 1024 * 1024


class Downloaded(NamedTuple):
    """A file that was fetched: its size, and when it was written into the bucket."""

    size: int
    written_at: datetime


class Export:
    """One bill source's export, read with one session."""

    def __init__(
        self, threads: BoundedThreads, settings: AwsSettings, credentials: AwsCredentials, source: BillSource
    ) -> None:
        self._threads, self._settings, self._credentials, self._source = threads, settings, credentials, source
        self._client: Any = None
        # A bucket's name says nothing about whose it is: somebody else may have made it again after it was deleted.
        self._bucket = {"Bucket": source.bucket, "ExpectedBucketOwner": source.account}

    async def manifests(self) -> list[str]:
        """The keys of the current manifests, one a billing period, the earliest period first.

        Raises BillRefused, WrongState (CLOUD_REFUSED), Unavailable.
        """
        return await self._run(CALL_DEADLINE_SECONDS * MAX_PAGES, self._list)

    async def delivery(self, key: str) -> Delivery:
        """What a manifest says now. Raises as `manifests` does."""
        return await self._run(CALL_DEADLINE_SECONDS, self._read, key)

    async def download(self, key: str, path: Path, took: Callable[[bytes], object], most_bytes: int) -> Downloaded:
        """Write a file of the export to `path`, telling `took` each chunk. Raises as above."""
        return await self._run(FILE_DEADLINE_SECONDS, self._download, key, path, took, most_bytes)

    async def _run(self, seconds: float, call: Callable[..., R], *arguments: Any) -> R:
        try:
            return await self._threads.run(seconds, call, *arguments)
        except TimeoutError as error:
            raise self._unreachable("Timeout") from error

    def _list(self) -> list[str]:
        prefix, keys = self._source.prefix, list[str]()
        token: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            with self._translated("s3:ListBucket"):
                page = self._s3().list_objects_v2(**self._bucket, Prefix=metadata_prefix(prefix), **token)
            keys += [entry["Key"] for entry in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return _newest(prefix, keys)
            token = {"ContinuationToken": page["NextContinuationToken"]}
        raise BillRefused(
            "manifest", f"there are too many objects below {metadata_prefix(prefix)}.", "Remove what isn't a manifest."
        )

    def _read(self, key: str) -> Delivery:
        with self._translated("s3:GetObject", missing=f"{key} isn't there any more."):
            found = self._s3().get_object(**self._bucket, Key=key)
            content = found["Body"].read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise BillRefused("manifest", f"{key} is larger than {MAX_MANIFEST_BYTES} bytes.", "Export it again.")
        # Where a bucket has no versions, S3 says none, or "null" for one that had them once.
        version = found.get("VersionId") or ""
        version = version if version not in ("", "null") else str(found["ETag"]).strip('"')
        with refusing_unforeseen(key):
            return read_manifest(content, self._source.bucket, self._source.prefix, key, version, found["LastModified"])

    def _download(self, key: str, path: Path, took: Callable[[bytes], object], most_bytes: int) -> Downloaded:
        size = 0
        with self._translated("s3:GetObject", missing=f"the manifest names {key}, which isn't there."):
            found = self._s3().get_object(**self._bucket, Key=key)
        with path.open("wb") as file:
            while chunk := self._chunk(found["Body"]):
                size += len(chunk)
                if size > most_bytes:
                    raise BillRefused(
                        "size", f"{key} makes the delivery larger than we fetch.", "Split the export by account."
                    )
                took(chunk)
                file.write(chunk)
        return Downloaded(size, found["LastModified"])

    def _chunk(self, body: Any) -> bytes:
        with self._translated("s3:GetObject"):
            chunk: bytes = body.read(_CHUNK_BYTES)
            return chunk

    def _s3(self) -> Any:
        if self._client is None:
            self._client = client("s3", self._source.region, self._settings, self._credentials)
        return self._client

    @contextmanager
    def _translated(self, operation: str, missing: str = "") -> Iterator[None]:
        """The cloud's refusals and failures as ours; `missing` says what it means if there is no such object."""
        try:
            yield
        except Exception as error:  # classify() raises again what isn't the cloud's.
            failure, code = classify(error)
            if missing and code == "NoSuchKey":
                raise BillRefused("file_missing", missing, "Have the export delivered again.") from error
            if failure in (Failure.DENIED, Failure.REFUSED):
                raise self._refused(code, operation) from error
            raise self._unreachable(code, throttled=failure is Failure.THROTTLED, operation=operation) from error

    def _refused(self, code: str, operation: str) -> WrongState:
        where = f"s3://{self._source.bucket}/{self._source.prefix}"
        return WrongState(
            Reason.ERROR_REASON_CLOUD_REFUSED,
            f"{operation} on {where} was refused ({code}). Let the account's scan role list the bucket and read it.",
            {"code": code, "account": self._source.account, "operation": operation},
        )

    def _unreachable(self, code: str, *, throttled: bool = False, operation: str = "s3") -> Unavailable:
        reason = Reason.ERROR_REASON_CLOUD_THROTTLED if throttled else Reason.ERROR_REASON_CLOUD_UNREACHABLE
        message = f"The bucket of the export can't be read now ({code})."
        return Unavailable(reason, message, {"account": self._source.account, "operation": operation})


def _newest(prefix: str, keys: list[str]) -> list[str]:
    """The manifests of the newest periods, the earliest first. Raises BillRefused where a period has two."""
    by_period: dict[date, str] = {}
    for key in keys:
        period = period_of(prefix, key)
        if period is None:
            continue
        if period in by_period:
            raise BillRefused(
                "manifest", f"{key} and {by_period[period]} are of one period.", "Give each export its own prefix."
            )
        by_period[period] = key
    return [key for _, key in sorted(by_period.items())][-MAX_PERIODS:]
