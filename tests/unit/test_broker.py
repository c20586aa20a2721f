"""What purposes may ask for; single use; what is left of an opened key."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from services._mesh.errors import Conflict, Denied
from services.broker.model import base_key
from services.broker.model.purposes import session_policy
from services.broker.model.replay import UsedGrants

READ = {"actions": ["ec2:DescribeVolumes"], "resources": ["*"]}
VOLUME = "arn:aws:ec2:us-east-1:111111111111:volume/vol-1"
NOTHING, SNAPSHOTS = f"arn:aws:ec2:*:111111111111:volume/vol-{'0' * 17}", "arn:aws:ec2:*::snapshot/*"


def test_a_base_key_shows_nothing_and_its_bytes_are_overwritten() -> None:
    content = {
        "access_key_id": "AKIA",
        "secret_access_key": "s3cret",
        "external_id": "e",
        "roles": {"1": {"scan": "arn"}},
    }
    plaintext = bytearray(json.dumps(content).encode())
    base = base_key.parse(plaintext)
    assert base.secret_access_key == "s3cret"
    assert "s3cret" not in repr(base)
    assert set(plaintext) == {0}
    with pytest.raises(Denied):
        base.role("1", "act")


def test_a_session_policy_holds_the_grants_statements_and_nothing_else() -> None:
    policy = json.loads(session_policy("act", [READ, {"actions": ["ec2:DeleteVolume"], "resources": [VOLUME]}]))
    assert [statement["Action"] for statement in policy["Statement"]] == [["ec2:DescribeVolumes"], ["ec2:DeleteVolume"]]
    assert policy["Statement"][1]["Resource"] == [VOLUME]


def test_tags_are_set_only_by_the_call_that_makes_a_snapshot() -> None:
    given = {"actions": ["ec2:CreateSnapshot", "ec2:CreateTags"], "resources": [VOLUME, SNAPSHOTS]}
    making, tagging = json.loads(session_policy("act", [given]))["Statement"]
    assert (making["Action"], "Condition" in making) == (["ec2:CreateSnapshot"], False)
    assert tagging["Action"] == ["ec2:CreateTags"]
    assert tagging["Condition"] == {"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}}


def test_a_probe_may_change_only_what_there_isnt() -> None:
    assert session_policy("probe", [READ, {"actions": ["ec2:DeleteVolume"], "resources": [NOTHING]}])


@pytest.mark.parametrize(
    ("purpose", "statements"),
    [
        ("probe", [{"actions": ["ec2:DeleteVolume"], "resources": [VOLUME]}]),
        ("probe", [{"actions": ["ec2:DeleteVolume"], "resources": [NOTHING, VOLUME]}]),
        ("probe", [{"actions": ["ec2:DeleteVolume"], "resources": [NOTHING.replace("0" * 17, "*")]}]),
        ("verify", [{"actions": ["ec2:DeleteVolume"], "resources": [NOTHING]}]),
        ("scan", [{"actions": ["ec2:DeleteVolume"], "resources": [VOLUME]}]),
        ("act", [{"actions": ["iam:CreateUser"], "resources": ["*"]}]),
        ("act", [{"actions": ["ec2:DeleteVolume"], "resources": ["*"]}]),
        ("act", [{"actions": ["ec2:*"], "resources": [VOLUME]}]),
        ("act", []),
        ("act", [{"actions": [], "resources": [VOLUME]}]),
        ("root", [READ]),
        ("act", [{"actions": ["ec2:DeleteVolume"], "resources": [f"{VOLUME}{n}" for n in range(60)]}]),
    ],
)
def test_what_a_purpose_does_not_allow_is_refused(purpose: str, statements: list[dict[str, list[str]]]) -> None:
    with pytest.raises(Denied):
        session_policy(purpose, statements)


def test_a_grant_is_used_once_and_never_from_before_the_start() -> None:
    used, jti = UsedGrants(started_at=100.0), str(uuid4())
    used.use(jti, 101, 101.0)
    with pytest.raises(Denied):
        used.use(jti, 101, 102.0)
    for issued_at in (99, 100):
        with pytest.raises(Conflict):
            used.use(str(uuid4()), issued_at, 101.0)
