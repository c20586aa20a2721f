"""What carries a secret shows none of it: by repr, by str, in a format, in a list, and in a traceback."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from uuid import UUID

import pytest

from recoup_local.cloud.estate.roles import BaseUser
from recoup_local.cloud.launch import AdminKey
from services._mesh.aws_settings import AwsCredentials
from services._mesh.clouds import CloudToken
from services.backup.model.manifest import Header, LogHead, Manifest
from services.backup.usecases.keeping import Attempt, Kept
from services.broker.clients import CloudSession
from services.broker.model.base_key import BaseKey, parse
from services.broker.model.cloud_key import CloudKey
from services.scanner.model.cloud import Identity, Provider
from services.scanner.model.connection import NewConnection, SealedConnection
from services.scanner.model.key import KeyPurpose, NewKey

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYcanary0001"
NEW = NewConnection("acme", "AKIA", SECRET, (), ())
IDENTITY = Identity({"client_id": "1"}, {"client_secret": SECRET})
HEADER = Header(UUID(int=1), datetime.now(UTC), "source", {"main": b"sealed"})
CARRIERS = (
    BaseKey("AKIA", SECRET, "external", {}),
    AwsCredentials("ASIA", SECRET, SECRET),
    CloudSession("ASIA", SECRET, SECRET, datetime.now(UTC)),
    NEW,
    NewKey(UUID(int=1), KeyPurpose.AI, b"sealed", SECRET),
    SealedConnection(NEW, "external", UUID(int=1), b"sealed"),
    IDENTITY,
    NewConnection("acme", "", "", (), (), Provider.AZURE, IDENTITY),
    CloudKey({"client_id": "1"}, {"client_secret": SECRET}, frozenset()),
    CloudToken(SECRET, "scope", "identity", datetime.now(UTC)),
    BaseUser("arn", "AKIA", SECRET),
    AdminKey("1", "AKIA", SECRET),
    Attempt(HEADER, {"main": SECRET.encode()}),
    Kept(HEADER, Manifest("", {}, [], LogHead(0, 0, "")), {"main": SECRET.encode()}),
)


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda each: type(each).__name__)
def test_what_carries_a_secret_shows_none_of_it(carrier: object) -> None:
    try:
        raise RuntimeError(carrier)
    except RuntimeError as error:
        told = "".join(traceback.format_exception(error))
    for shown in (repr(carrier), str(carrier), f"{carrier}", repr([carrier]), told):
        assert SECRET[:12] not in shown
        assert SECRET[-12:] not in shown


def test_what_is_sealed_and_unreadable_shows_none_of_it() -> None:
    """JSON's error keeps the whole document, and says where in it the fault is, not what stands there."""
    content = bytearray(f'{{"secret_access_key": "{SECRET}" oops'.encode())
    with pytest.raises(ValueError, match="Expecting") as failed:
        parse(content)
    assert SECRET not in "".join(traceback.format_exception(failed.value)) + repr(failed.value)
    assert not any(content)
