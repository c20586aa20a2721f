"""What purposes may ask for; single use; what is left of an opened key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

import pytest

from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import Conflict, Denied, Reason, WrongState
from services._mesh.grants import CredentialScope, Grant
from services.broker import usecases as broker
from services.broker.model import base_key
from services.broker.model.purposes import OPENED_FOR, TRIED_FOR, session_policy
from services.broker.model.replay import UsedGrants
from services.broker.rewrapping import REWRAP
from services.broker.signing import DELIVER
from tests.support.things import ACME, context
from tests.unit.test_repo_shape import ROOT

# Anything that stands for more than what was planned.
PATTERNS = (
    "*", "arn:*", "arn:aws:ec2:*:111111111111:volume/vol-1", "arn:aws:ec2:us-east-1:*:volume/vol-1",
    "arn:aws:ec2:us-east-1:111111111111:volume/*", "arn:aws:ec2:us-east-1:111111111111:volume/vol-?",
    "arn:aws:ec2:us-east-1:111111111111:*", "arn:aws:ec2:us-east-1:111111111111:volume/${aws:username}",
    "arn:aws:ec2:us-east-1:111111111111:instance/i-1", "arn:aws:s3:::*", "arn:aws:s3:::*/*", "arn:aws:s3:::bucket/*",
    "arn:aws:s3:::bucket/a*/*", "arn:aws:s3:::bucket/${aws:username}/*", "arn:aws:s3:::b?cket/a/*",
)  # fmt: skip
READ = {"actions": ["ec2:DescribeVolumes"], "resources": ["*"]}
BILL = {"actions": ["s3:GetObject"], "resources": ["arn:aws:s3:::acme-billing/focus/daily/*"]}
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
    snapshots = "arn:aws:ec2:us-east-1::snapshot/*"
    given = {"actions": ["ec2:CreateSnapshot", "ec2:CreateTags"], "resources": [VOLUME, snapshots]}
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
        *(("act", [{"actions": ["ec2:DeleteVolume"], "resources": [arn]}]) for arn in PATTERNS),
        *(("bill", [{"actions": ["s3:GetObject"], "resources": [arn]}]) for arn in PATTERNS),
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


def test_a_bill_is_read_below_one_prefix() -> None:
    bucket = {"actions": ["s3:ListBucket"], "resources": ["arn:aws:s3:::acme-billing"]}
    assert BILL["resources"][0] in session_policy("bill", [bucket, BILL])


KINDS = ("verify_connection", "check_connection", "rotate_credential", "scan", "import_bill", "execute", "checkpoint")
CLOUDS = ("azure.credential", "gcp.credential")
LOOKING = {"verify_connection", "check_connection", "rotate_credential"}
MAY_OPEN = {
    "scan": {"scan", "rotate_credential"},
    "bill": {"import_bill"},
    "act": {"execute"},
    "verify": {*LOOKING, "checkpoint"},
    "probe": LOOKING,
    "azure.check": LOOKING,
    "gcp.check": LOOKING,
}


@pytest.mark.parametrize("purpose", [*MAY_OPEN, "sign", "root"])
async def test_a_purpose_is_for_the_work_that_has_it_and_no_other(purpose: str) -> None:
    """Whoever may grant that bills are read, and signs that volumes are deleted, has nothing opened."""
    unused: Any = None
    for kind in (*KINDS, "deliver_webhook", "rewrap_credentials", "expire"):
        desk = broker.Desk(unused, unused, UsedGrants(0.0), Clock(), dict.fromkeys(CLOUDS, unused))
        wanted = BILL if purpose == "bill" else READ
        statements = () if "." in purpose else (wanted,)
        scope = CredentialScope(credential_id=uuid4(), purpose=purpose, account="1" * 12, statements=statements)
        grant = Grant(
            issuer="pricing", audience=("broker",), presenter="x5t", organization_id=ACME, kind=kind, subject="s",
            job_id=uuid4(), fence=1, number=1, credential=scope, issued_at=1, expires_at=2,
        )  # fmt: skip
        with entered(context(None, grant=grant)):
            is_refused = await refuses(broker.open_credential(desk, b""))
            assert is_refused is (kind not in MAY_OPEN.get(purpose, ())), (purpose, kind)
        desk = broker.Desk(unused, unused, UsedGrants(0.0), Clock(), dict.fromkeys(CLOUDS, unused))
        with entered(context(None, grant=grant)):
            is_tried = purpose in ("scan", "act") and kind in LOOKING
            assert await refuses(broker.probe_credential(desk, b"")) is not is_tried, (purpose, kind)


async def refuses(call: Awaitable[object]) -> bool:
    """Whether a grant is refused; one that isn't leads to the credential itself, which there is none of here."""
    with pytest.raises((Denied, WrongState)) as refused:
        await call
    reasons = (Reason.ERROR_REASON_GRANT_INVALID, Reason.ERROR_REASON_CREDENTIAL_UNOPENABLE)
    assert refused.value.reason in reasons
    return refused.value.reason == reasons[0]


def test_the_work_that_the_broker_knows_is_what_its_configuration_lets_be_granted() -> None:
    settings = tomllib.loads((ROOT / "deploy" / "config" / "broker.toml").read_text())
    granted = {kind for kinds in settings["trust"]["grant_issuers"].values() for kind in kinds}
    assert granted == {*OPENED_FOR, *TRIED_FOR, DELIVER, REWRAP}
