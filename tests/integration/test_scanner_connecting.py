"""Before a cloud is connected: the organization's external id and the planned roles, on a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from recoup.scanner.v1 import connecting_service_pb2 as pb
from services._mesh.context import entered
from services._mesh.errors import Invalid
from services._mesh.uow import Store
from services.scanner.cloud_checking import READS
from services.scanner.model.cloud import Provider
from services.scanner.rpc.connecting import ConnectingRpc
from services.scanner.usecases.connecting import KeyRules, check_key
from tests.support.identity import MovableClock
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("scanner")

SUBSCRIPTION = "33333333-3333-4333-8333-333333333333"
BASE_USER = "arn:aws:iam::111111111111:user/recoup-base"


@dataclass
class Desk:
    """The RPCs, and the database behind them."""

    rpc: ConnectingRpc
    store: Store
    database: TestDatabase

    async def plan(self, organization: UUID = ACME, **asked: Any) -> pb.PlanConnectionResponse:
        request = pb.PlanConnectionRequest(organization_id=str(organization), **{"principal_arn": BASE_USER, **asked})
        with entered(context(organization, "scanner.connection.plan", rpc="scanner/PlanConnection")):
            return await self.rpc.PlanConnection(request, None)

    async def set_static_keys(self, choice: str) -> None:
        chosen = pb.StaticKeys.Value(f"STATIC_KEYS_{choice}")
        request = pb.SetStaticKeysRequest(organization_id=str(ACME), static_keys=chosen)
        with entered(context(ACME, "scanner.static_keys.set", rpc="scanner/SetStaticKeys")):
            await self.rpc.SetStaticKeys(request, None)

    async def key_refused(self, key: str, **rules: Any) -> str:
        """Why a connection with this key isn't made under these rules; "" when it would be."""
        with entered(context(ACME)) as call:
            async with self.store.begin(ACME, call, interim=True) as work:
                try:
                    await check_key(work, KeyRules(**rules), key)
                except Invalid as problem:
                    return problem.field_violations[0].description
        return ""

    async def refused(self, **asked: Any) -> tuple[str, str]:
        with pytest.raises(Invalid) as caught:
            await self.plan(**asked)
        (violation,) = caught.value.field_violations
        return violation.field, violation.description

    async def events(self) -> list[str]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch("SELECT action FROM scanner.outbox ORDER BY counter")
        await superuser.close()
        return [row["action"] for row in rows]


@asynccontextmanager
async def opened(database: TestDatabase) -> AsyncIterator[Desk]:
    role = database.role("scanner_api")
    store, unused = Store(role, "scanner", MovableClock()), None
    yield Desk(ConnectingRpc(store, unused, KeyRules()), store, database)  # type: ignore[arg-type]  # No job is planned.
    await role.close()


@pytest.fixture
async def desk(database: TestDatabase) -> AsyncIterator[Desk]:
    async with opened(database) as made:
        yield made


async def test_an_organization_has_one_external_id_and_no_other_sees_it(desk: Desk) -> None:
    first, again, other = await desk.plan(), await desk.plan(), await desk.plan(GLOBEX)
    assert first.external_id == again.external_id != other.external_id
    assert len(first.external_id) == len("recoup-") + 32
    (role,) = first.roles
    trust = json.loads(role.trust_policy)["Statement"][0]
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": first.external_id}}
    assert trust["Principal"] == {"AWS": BASE_USER}
    assert await desk.events() == ["scanner.connection.plan"] * 3


async def test_writing_is_asked_for_action_type_by_action_type(desk: Desk) -> None:
    assert [role.use for role in (await desk.plan()).roles] == ["scan"]
    scan, act = (await desk.plan(action_types=["aws.ebs.convert_gp3"])).roles
    allowed = {
        action
        for statement in json.loads(act.policy)["Statement"]
        for action in statement["Action"]
        if statement["Effect"] == "Allow"
    }
    assert allowed == {"ec2:DescribeVolumes", "ec2:DescribeVolumesModifications", "ec2:ModifyVolume"}
    assert "ModifyVolume" not in scan.policy


async def test_the_roles_are_written_in_three_ways(desk: Desk) -> None:
    everything: Any = {"action_types": ["aws.ebs.delete_volume", "aws.ec2.release_address"]}
    found = await desk.plan(format=pb.POLICY_FORMAT_CLOUDFORMATION, **everything)
    resources = json.loads(found.document)["Resources"]
    assert {each["Type"] for each in resources.values()} == {"AWS::IAM::Role"}
    assert resources["RecoupAct"]["Properties"]["Policies"][0]["PolicyDocument"] == json.loads(found.roles[1].policy)
    written = (await desk.plan(format=pb.POLICY_FORMAT_TERRAFORM, **everything)).document
    assert written.count('resource "aws_iam_role"') == written.count('resource "aws_iam_role_policy"') == 2
    # The arguments of jsonencode are JSON; nothing in them is an interpolation.
    documents = [part.rpartition("\n}\n")[0].rstrip()[:-1] for part in written.split("jsonencode(")[1:]]
    assert [json.loads(each) for each in documents] == [
        json.loads(text) for role in found.roles for text in (role.trust_policy, role.policy)
    ]
    assert "${" not in written
    assert [each["RoleName"] for each in json.loads((await desk.plan()).document)] == ["RecoupScan"]


async def test_the_bill_is_readable_only_where_it_is_asked_for(desk: Desk) -> None:
    assert "s3:" not in (await desk.plan()).roles[0].policy
    found = await desk.plan(bill_bucket="acme-bills", bill_prefix="focus/daily")
    assert json.loads(found.roles[0].policy)["Statement"][1:] == [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::acme-bills"]},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::acme-bills/focus/daily/*"]},
    ]


async def test_what_is_wrong_is_said_with_the_way_out(desk: Desk) -> None:
    for wrong in ("", "AIDA", "arn:aws:iam::111111111111:root", "arn:aws:iam::1:user/x", f"{BASE_USER} "):
        field, rule = await desk.refused(principal_arn=wrong)
        assert field == "principal_arn"
        assert "arn:aws:iam::123456789012:user/recoup-base" in rule
    assert await desk.refused(action_types=["aws.ebs.convert_gp3", "aws.iam.pass_role"]) == (
        "action_types[1]",
        "must be one of aws.ebs.convert_gp3, aws.ebs.delete_volume, aws.ec2.release_address",
    )
    assert (await desk.refused(bill_bucket="acme-bills"))[0] == "bill_prefix"
    assert await desk.events() == []


async def test_long_lived_keys_are_taken_only_where_the_organization_allows_them(desk: Desk) -> None:
    ours, key = {"principal_arn": "arn:aws:iam::999999999999:role/recoup"}, "A" * 20
    assert await desk.key_refused(key) == (
        "this organization allows no long-lived keys. Have an Admin allow them: recoup connect static-keys allowed"
    )
    assert (await desk.key_refused(key, **ours)).startswith(
        "this organization allows no long-lived keys. Leave it empty"
    )
    assert await desk.key_refused(key, static_keys=True) == ""
    assert await desk.key_refused("", **ours) == ""
    assert (await desk.key_refused("", static_keys=True)).startswith("must be given: ")
    await desk.set_static_keys("ALLOWED")
    assert await desk.key_refused(key) == ""
    await desk.set_static_keys("FORBIDDEN")
    assert "no long-lived keys" in await desk.key_refused(key, static_keys=True)
    assert await desk.events() == ["scanner.static_keys.set"] * 2


async def test_the_roles_of_other_clouds_are_written_in_their_own_ways(desk: Desk) -> None:
    azure: Any = {"principal_arn": "", "provider": pb.CLOUD_PROVIDER_AZURE, "scope_ids": [SUBSCRIPTION]}
    found = await desk.plan(**azure)
    (role,) = found.roles
    assert (role.name, role.use, role.trust_policy, found.external_id) == ("RecoupRead", "scan", "", "")
    made = json.loads(found.document)
    assert made == json.loads(role.policy)
    assert made["AssignableScopes"] == [f"/subscriptions/{SUBSCRIPTION}"]
    assert made["Actions"] == list(READS[Provider.AZURE])
    assert made["DataActions"] == made["NotActions"] == []
    bicep = (await desk.plan(**azure, format=pb.POLICY_FORMAT_BICEP)).document
    assert all(f"        '{action}'\n" in bicep for action in made["Actions"])
    assert (await desk.plan(**azure, format=pb.POLICY_FORMAT_TERRAFORM)).document.count(SUBSCRIPTION) == 3
    google: Any = {"principal_arn": "", "provider": pb.CLOUD_PROVIDER_GCP, "scope_ids": ["acme-prod"]}
    made = json.loads((await desk.plan(**google)).document)
    assert made["includedPermissions"] == list(READS[Provider.GCP])
    written = (await desk.plan(**google, format=pb.POLICY_FORMAT_YAML)).document
    assert [line[2:] for line in written.splitlines() if line.startswith("- ")] == made["includedPermissions"]
    assert 'toset(["acme-prod"])' in (await desk.plan(**google, format=pb.POLICY_FORMAT_TERRAFORM)).document
    assert await desk.events() == ["scanner.connection.plan"] * 6


def test_other_clouds_are_read_and_nothing_else() -> None:
    """No data, no keys, no change: by the last word of each operation, and by what it is about."""
    assert all(action.endswith("/read") and "*" not in action for action in READS[Provider.AZURE])
    assert all(permission.rpartition(".")[2] in ("list", "get") for permission in READS[Provider.GCP])
    assert not any("listkeys" in each.lower() or "blob" in each.lower() for each in READS[Provider.AZURE])
    assert [each for each in READS[Provider.GCP] if each.endswith(".get")] == ["resourcemanager.projects.get"]


async def test_what_only_aws_has_isnt_planned_for_another_cloud(desk: Desk) -> None:
    azure: Any = {"principal_arn": "", "provider": pb.CLOUD_PROVIDER_AZURE}
    assert await desk.refused(**{**azure, "principal_arn": BASE_USER}) == (
        "principal_arn", "must be empty: it is AWS's, and the plan is for Azure",
    )  # fmt: skip
    assert (await desk.refused(**azure, bill_bucket="b"))[0] == "bill_bucket"
    field, rule = await desk.refused(**azure, action_types=["aws.ebs.convert_gp3"])
    assert (field, "no action is offered for Azure yet" in rule) == ("action_types", True)
    assert await desk.refused(**azure, format=pb.POLICY_FORMAT_YAML) == (
        "format", "must be JSON or TERRAFORM or BICEP for Azure",
    )  # fmt: skip
    assert (await desk.refused(format=pb.POLICY_FORMAT_BICEP))[0] == "format"
    assert await desk.events() == []
