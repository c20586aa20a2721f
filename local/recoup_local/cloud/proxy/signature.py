"""Checks AWS Signature Version 4 on a request, since moto accepts any signature.

Pure; presigned URLs are not supported. Source: AWS General Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from recoup_local.cloud.proxy.wire import Request

MAX_SKEW = timedelta(minutes=15)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/(\d{8})/([^/]+)/([^/]+)/aws4_request, *"
    r"SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})$"
)


def signed_with(request: Request, secret: str, wall_now: datetime) -> bool:
    """Whether the request was signed with `secret`, less than 15 minutes from the wall clock's `wall_now`."""
    found = _AUTHORIZATION.match(request.header("authorization"))
    if not found:
        return False
    day, region, service, signed_headers, signature = found.groups()
    stamp = request.header("x-amz-date")
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    if abs(wall_now - signed_at) > MAX_SKEW or not stamp.startswith(day):
        return False
    canonical = _canonical(request, service, signed_headers)
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode("utf-8")).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = _sign(f"AWS4{secret}".encode(), day)
    for part in (region, service, "aws4_request"):
        key = _sign(key, part)
    return hmac.compare_digest(_sign(key, text).hex(), signature)


def _canonical(request: Request, service: str, signed_headers: str) -> str:
    values: dict[str, list[str]] = {}
    for name, value in request.headers:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    headers = "".join(f"{name}:{','.join(values.get(name, []))}\n" for name in signed_headers.split(";"))
    # S3 signs the path as sent; the other services encode it once more.
    path = request.raw_path if service == "s3" else quote(request.raw_path, safe="/-_.~")
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in request.raw_query.split("&") if part))
    payload = request.header("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()
    return "\n".join((request.method, path or "/", query, headers, signed_headers, payload))


def _sign(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8"), hashlib.sha256).digest()
