"""Whom the emulated S3 lets at a bucket: its owner's people, and only where it is the owner that they expect."""

from __future__ import annotations

import pytest

from recoup_local.cloud.proxy.access import Access
from recoup_local.cloud.proxy.calls import Call, recognize
from recoup_local.cloud.proxy.identities import Identities, Principal
from recoup_local.cloud.proxy.wire import Answer, Request

OWNER, OTHER = "111111111111", "222222222222"
ADMIN = Principal("admin", OWNER, f"arn:aws:iam::{OWNER}:root", "root", "AKIAADMIN", "secret")
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIAADMIN/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def call(target: str, expected: str = "", method: str = "GET") -> Call:
    headers = [("Authorization", _SIGNED)]
    headers += [("x-amz-expected-bucket-owner", expected)] if expected else []
    return recognize(Request(method, target, tuple(headers)))


@pytest.fixture
def access() -> Access:
    identities = Identities({ADMIN.access_key_id: ADMIN})
    identities.observe(call("/bills", method="PUT"), OWNER, Answer(200))
    return Access(identities)


@pytest.mark.parametrize("target", ["/bills/a/file.csv.gz", "/bills?list-type=2&prefix=a", "/bills"])
def test_a_bucket_of_another_owner_than_expected_is_refused_to_everybody(access: Access, target: str) -> None:
    assert access.authorize(ADMIN, call(target), {}) is None
    assert access.authorize(ADMIN, call(target, OWNER), {}) is None
    refused = access.authorize(ADMIN, call(target, OTHER), {})
    assert refused is not None
    assert (refused.status, b"<Code>AccessDenied</Code>" in refused.body) == (403, True)


def test_a_bucket_that_is_not_there_is_left_to_s3(access: Access) -> None:
    assert access.authorize(ADMIN, call("/nowhere/x", OTHER), {}) is None
