"""Recognizes which AWS call an HTTP request is: service, action, region, access key, parameters, resources.

It decides nothing. Protocols: EC2/query (form body), JSON and CBOR (target header or path), REST (S3).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from recoup_local.cloud.proxy.wire import Request

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/(\d{8})/([^/]*)/([^/]*)/aws4_request")
_CBOR_PATH = re.compile(r"/service/[^/]+/operation/([A-Za-z0-9]+)$")
_SERVICE_NAMES = {"monitoring": "cloudwatch"}
_READ_PREFIXES = ("Describe", "Get", "List", "Head", "Search", "Lookup", "Simulate", "AssumeRole")

# (method, marker in the query) -> action on an object or a bucket; the first match wins.
_S3_BUCKET_ACTIONS = (
    ("PUT", "versioning", "PutBucketVersioning"), ("PUT", "policy", "PutBucketPolicy"),
    ("PUT", "tagging", "PutBucketTagging"), ("PUT", "", "CreateBucket"),
    ("GET", "versioning", "GetBucketVersioning"), ("GET", "versions", "ListObjectVersions"),
    ("GET", "location", "GetBucketLocation"), ("GET", "policy", "GetBucketPolicy"),
    ("GET", "list-type=2", "ListObjectsV2"), ("GET", "", "ListObjects"), ("HEAD", "", "HeadBucket"),
    ("POST", "delete", "DeleteObjects"), ("DELETE", "", "DeleteBucket"),
)  # fmt: skip
_S3_OBJECT_ACTIONS = (
    ("PUT", "tagging", "PutObjectTagging"), ("PUT", "uploadId", "UploadPart"), ("PUT", "", "PutObject"),
    ("GET", "tagging", "GetObjectTagging"), ("GET", "attributes", "GetObjectAttributes"),
    ("GET", "", "GetObject"), ("HEAD", "", "HeadObject"), ("POST", "uploads", "CreateMultipartUpload"),
    ("POST", "uploadId", "CompleteMultipartUpload"), ("DELETE", "", "DeleteObject"),
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One recognized AWS call. `protocol` is ec2, query, json, cbor or rest; `params` are flat strings."""

    service: str
    action: str
    region: str
    access_key_id: str
    protocol: str
    params: dict[str, str]

    @property
    def name(self) -> str:
        """Like `ec2:DeleteVolume`."""
        return f"{self.service}:{self.action}"

    @property
    def dry_run(self) -> bool:
        """Whether EC2 was asked only to check the permission."""
        return self.params.get("DryRun", "").lower() == "true"

    @property
    def mutating(self) -> bool:
        """Whether the call is meant to change the cloud."""
        return not self.action.startswith(_READ_PREFIXES) and not self.dry_run

    def values(self, prefix: str) -> tuple[str, ...]:
        """The values of a query list, e.g. `VolumeId` gives VolumeId, VolumeId.1, VolumeId.2, …"""
        pattern = re.compile(rf"{re.escape(prefix)}(\.\d+)?$")
        return tuple(value for key, value in self.params.items() if pattern.match(key))


def recognize(request: Request) -> Call:
    """Reads a request as an AWS call; what isn't signed has an empty access key and service."""
    found = _CREDENTIAL.search(request.header("authorization"))
    access_key, _, region, service = found.groups() if found else ("", "", "", "")
    service = _SERVICE_NAMES.get(service, service)
    content_type = request.header("content-type")
    target = request.header("x-amz-target")
    cbor = _CBOR_PATH.search(request.path)
    if cbor:
        return Call(service, cbor.group(1), region, access_key, "cbor", {})
    if target:
        return Call(service, target.rpartition(".")[2], region, access_key, "json", _json_params(request.body))
    if content_type.startswith("application/x-www-form-urlencoded"):
        params = dict(parse_qsl(request.body.decode("utf-8"), keep_blank_values=True))
        action = params.pop("Action", "")
        params.pop("Version", None)
        return Call(service, action, region, access_key, "ec2" if service == "ec2" else "query", params)
    if service in ("s3", ""):
        return _recognize_s3(request, region, access_key)
    return Call(service, f"{request.method} {request.path}", region, access_key, "rest", {})


def _recognize_s3(request: Request, region: str, access_key: str) -> Call:
    bucket, _, key = request.path.lstrip("/").partition("/")
    params = dict(parse_qsl(request.raw_query, keep_blank_values=True))
    query = f"&{request.raw_query}"
    owner = request.header("x-amz-expected-bucket-owner")
    named = (("Bucket", bucket), ("Key", key), ("ExpectedBucketOwner", owner))
    params |= {name: value for name, value in named if value}
    if not bucket:
        return Call("s3", "ListBuckets", region, access_key, "rest", params)
    table = _S3_OBJECT_ACTIONS if key else _S3_BUCKET_ACTIONS
    for method, marker, action in table:
        if method == request.method and (not marker or re.search(rf"&{re.escape(marker)}(=|&|$)", query)):
            return Call("s3", action, region, access_key, "rest", params)
    return Call("s3", f"{request.method} {'Object' if key else 'Bucket'}", region, access_key, "rest", params)


def _json_params(body: bytes) -> dict[str, str]:
    try:
        document = json.loads(body or b"{}")
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}
