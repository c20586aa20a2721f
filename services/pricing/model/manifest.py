"""Reads what a provider says about a delivery of its export: AWS Data Exports' layout and manifest.

Strict about what we need, and indifferent to what else stands there. A delivery that names a file outside of its own
export is refused: the credential may read no more, and neither do we.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.pricing.model.completeness import Manifest
from services.pricing.model.dialects import PLAUSIBLE, is_plausible
from services.pricing.model.refusal import BillRefused

MAX_MANIFEST_BYTES = 1024 * 1024
MAX_FILES = 1000
_KEY = re.compile(r"billing_period=([0-9]{4}-(?:0[1-9]|1[0-2]))/[^/]+-Manifest\.json", re.IGNORECASE)
_ASK = "Check the export's settings at the provider, and have it delivered again."


@dataclass(frozen=True, slots=True)
class Delivery:
    """One version of one billing period's export: what its manifest says, and the keys of its files in the bucket.

    `version` and `written_at` are the manifest's, as the store says.
    """

    manifest: Manifest
    key: str
    version: str
    written_at: datetime
    keys: tuple[str, ...]
    gzipped: bool


def is_mixed(delivery: Delivery, again: Delivery, written_at: Iterable[datetime]) -> bool:
    """Whether files that were read one after the other may be of two deliveries: an export can write over its own.

    Either the manifest is another one by now, or the next delivery was under way: files on both sides of the manifest,
    whichever of the two the provider writes first.
    """
    return again.version != delivery.version or len({at > delivery.written_at for at in written_at}) > 1


def metadata_prefix(prefix: str) -> str:
    """Below which an export's manifests lie."""
    return f"{prefix}/metadata/"


def period_of(prefix: str, key: str) -> date | None:
    """The billing period whose current manifest a key names; None for any other object. Raises BillRefused."""
    found = _KEY.fullmatch(key.removeprefix(metadata_prefix(prefix)))
    if not found or not key.startswith(metadata_prefix(prefix)) or not key.isprintable():
        return None
    return _day(f"{found[1]}-01", f"the folder of {key}")


def read_manifest(content: bytes, bucket: str, prefix: str, key: str, version: str, written_at: datetime) -> Delivery:
    """The delivery that a manifest describes. Raises BillRefused."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused("manifest", f"{key} isn't JSON.") from error
    if not isinstance(document, dict):
        raise _refused("manifest", f"{key} isn't a JSON object.")
    period = period_of(prefix, key)
    if period is None or _period(document) != period:
        raise _refused("manifest", f"billingPeriod in {key} isn't the month of its folder.")
    if _text(document, "format") != "TEXT_OR_CSV":
        raise BillRefused("manifest", "the export isn't CSV.", "Set the export's format to text/csv, with GZIP.")
    manifest = Manifest(
        period,
        _text(document, "executionId"),
        _moment(_text(document, "createdAt")),
        _is_closed(document),
        tuple(_files(document)),
    )
    keys = tuple(_key_within(file, bucket, prefix) for file in manifest.files)
    return Delivery(manifest, key, version, written_at, keys, _is_gzipped(document))


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise _refused("manifest", f"{name} must be a text.")
    return value


def _period(document: Mapping[str, Any]) -> date:
    """The month that `billingPeriod` spans, from its first day to the first day after it."""
    period = document.get("billingPeriod")
    if not isinstance(period, dict):
        raise _refused("manifest", "billingPeriod is missing.")
    start, end = (_day(_text(period, name)[:10], f"billingPeriod.{name}") for name in ("start", "end"))
    if start.day != 1 or end != (start + timedelta(days=31)).replace(day=1):
        raise _refused("manifest", "billingPeriod must be one calendar month.")
    return start


def _day(text: str, where: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise _refused("manifest", f"{where} must have an ISO 8601 day that there is.") from error
    return _plausible(day, where)


def _plausible(day: date, where: str) -> date:
    if not is_plausible(day):
        raise _refused("date_range", f"{where} has {day.isoformat()}. {PLAUSIBLE}")
    return day


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _refused("manifest", "createdAt must be an ISO 8601 moment.") from error
    if moment.tzinfo is None:
        raise _refused("manifest", "createdAt must have a time zone.")
    _plausible(moment.date(), "createdAt")  # Before it becomes UTC: the first and last days of the calendar can't.
    return moment.astimezone(UTC)


def _is_closed(document: Mapping[str, Any]) -> bool:
    status = _text(document, "billingPeriodStatus")
    if status not in ("OPEN", "CLOSED"):
        raise _refused("manifest", f"billingPeriodStatus {status[:40]!r} is neither OPEN nor CLOSED.")
    return status == "CLOSED"


def _is_gzipped(document: Mapping[str, Any]) -> bool:
    compression = _text(document, "compression")
    if compression not in ("GZIP", "NONE"):
        raise BillRefused("manifest", f"compression {compression[:40]!r} isn't read.", "Set the export's to GZIP.")
    return compression == "GZIP"


def _files(document: Mapping[str, Any]) -> list[str]:
    files = document.get("dataFiles")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise _refused("manifest", "dataFiles must be a list of addresses.")
    if not 0 < len(files) <= MAX_FILES or len(set(files)) != len(files):
        raise _refused("manifest", f"dataFiles must name from 1 to {MAX_FILES} files, each once.")
    for file in files:
        if not file.isprintable():  # A lone surrogate can't be sent, and the database takes no NUL.
            raise _refused("manifest", f"dataFiles names {file[:200]!r}, which has characters that no key has.")
    return files


def _key_within(file: str, bucket: str, prefix: str) -> str:
    """A file's key. Raises BillRefused for one that lies outside of the export."""
    start = f"s3://{bucket}/"
    key = file.removeprefix(start)
    outside = not file.startswith(start) or not key.startswith(f"{prefix}/")
    if outside or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise _refused("file_outside", f"{file[:200]} lies outside of {start}{prefix}/.")
    return key


def _refused(rule: str, message: str) -> BillRefused:
    return BillRefused(rule, message, _ASK)
