"""The generated policies against the emulated cloud: they allow each call that is made, and hold nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recoup_local.cloud import PAYER_ACCOUNT, ProxyControl, start_cloud
from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.roles import BaseUser, create_base_user
from recoup_local.cloud.launch import CloudEndpoints
from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.resources import needed_permissions
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services.actions.clients.aws import Ec2, Threads
from services.actions.model.kinds import KINDS, ActionKind, step_statements
from services.actions.model.plan import Plan, ResourceKey
from services.broker.clients import AssumeFailed, Sts
from services.broker.model.base_key import BaseKey
from services.broker.model.purposes import ALLOWED, session_policy
from services.scanner.clients.aws import RegionReader
from services.scanner.detections import DETECTIONS
from services.scanner.model.reading import Outcome
from services.scanner.policies import aws
from services.scanner.policies.aws import (
    ACT_ROLE,
    READS,
    SCAN_ROLE,
    act_policy,
    action_types,
    permissions_of,
    plan_roles,
)

EXTERNAL_ID, REGION = "recoup-of-acme", "us-east-1"


@dataclass
class Account:
    """An account whose roles are those that were generated, for what is chosen."""

    endpoints: CloudEndpoints
    clients: AwsClients
    control: ProxyControl
    base: BaseUser
    threads: Threads
    seen: int = 0

    def install(self, *chosen: str) -> None:
        """Make the planned roles, as a customer does."""
        iam = self.clients.client("iam", PAYER_ACCOUNT)
        for role in plan_roles(self.base.arn, EXTERNAL_ID, chosen):
            trust = json.dumps(role.trust_policy)
            try:
                iam.create_role(RoleName=role.name, AssumeRolePolicyDocument=trust)
            except iam.exceptions.EntityAlreadyExistsException:
                iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=trust)
            iam.put_role_policy(RoleName=role.name, PolicyName="Access", PolicyDocument=json.dumps(role.policy))

    async def assume(
        self, role: str, policy: str | None = None, external_id: str | None = EXTERNAL_ID
    ) -> AwsCredentials:
        base = BaseKey(self.base.access_key_id, self.base.secret_access_key, "", {})
        arn = f"arn:aws:iam::{PAYER_ACCOUNT}:role/{role}"
        made = await Sts(self.threads.reads, self.settings).assume(base, arn, external_id, "scan-test", policy)
        return AwsCredentials(made.access_key_id, made.secret_access_key, made.session_token)

    @property
    def settings(self) -> AwsSettings:
        return AwsSettings(self.endpoints.url)

    def needed(self) -> set[str]:
        """The permissions of all calls under a role since the last time; none was refused."""
        lines = [line for line in self.control.log(self.seen) if line["principal"] == "session"]
        self.seen += len(self.control.log(self.seen))
        assert not [line for line in lines if line["error_code"] == "UnauthorizedOperation"]
        return {permission for line in lines for permission, _ in needed_permissions(_call(line), line["account"])}


def _call(line: dict[str, Any]) -> Call:
    return Call(line["service"], line["action"], line["region"], line["access_key_id"], "ec2", line["params"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder: Path = tmp_path_factory.mktemp("cloud")
    threads = Threads.of(8)
    with start_cloud(folder, folder / "clock", snapshot_polls=0) as cloud:
        clients = AwsClients.of(cloud.endpoints)
        made = Account(cloud.endpoints, clients, ProxyControl.of(cloud.endpoints), create_base_user(clients), threads)
        yield made
    threads.close()


async def test_reading_needs_all_of_the_scan_policy_and_nothing_else(account: Account) -> None:
    account.install()
    reader = RegionReader(
        account.threads.reads, account.settings, await account.assume(SCAN_ROLE), PAYER_ACCOUNT, REGION
    )
    account.needed()

    async def done(_: Any) -> None:
        return None

    readings = await reader.read(done)
    assert {reading.coverage.outcome for reading in readings} == {Outcome.COMPLETE}
    assert account.needed() == set(READS)


@pytest.mark.parametrize("external_id", [None, "recoup-of-globex"])
async def test_only_the_external_id_lets_in(account: Account, external_id: str | None) -> None:
    account.install()
    with pytest.raises(AssumeFailed):
        await account.assume(SCAN_ROLE, external_id=external_id)


@pytest.mark.parametrize("action_type", action_types())
async def test_an_action_type_needs_all_of_its_policy_and_nothing_else(account: Account, action_type: str) -> None:
    account.install(action_type)
    kind = KINDS[action_type]
    resource = await asyncio.to_thread(_resource, account, kind)
    account.needed()
    await _carry_out(account, kind, resource)
    assert account.needed() == permissions_of(action_type)


def _resource(account: Account, kind: ActionKind) -> ResourceKey:
    """Something in the cloud for the action to act on."""
    ec2 = account.clients.client("ec2", PAYER_ACCOUNT, REGION)
    if kind.resource_type == "ec2.address":
        made = ec2.allocate_address(Domain="vpc")["AllocationId"]
    else:
        made = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=10, VolumeType="gp2")["VolumeId"]
    return ResourceKey("aws", "aws", PAYER_ACCOUNT, REGION, kind.resource_type, made)


async def _carry_out(account: Account, kind: ActionKind, resource: ResourceKey) -> None:
    """All steps of a kind, as the worker makes them, each under the session policy that the broker gives it."""
    content = {
        "resource": resource.document(),
        "parameters": {"iops": "3000", "throughput_mibps": "125"},
        "evidence": {"available_since": "2000-01-01T00:00:00Z"},
    }
    plan, clock = Plan(b"", "0" * 64, content), Clock()
    for step in kind.steps:
        statements = [
            {"actions": list(s.actions), "resources": list(s.resources)} for s in step_statements(kind, step, resource)
        ]
        session = await account.assume(ACT_ROLE, session_policy("act", statements))
        ec2 = Ec2(account.threads, account.settings, session, REGION, clock)
        assert await ec2.observe(resource) is not None
        result = await ec2.apply(step.name, "action-1", plan, datetime.now(UTC) + timedelta(minutes=1))
        while not await ec2.is_complete(step.name, result, plan):
            pass
        assert await ec2.find_effect(step.name, "action-1", resource) == result


def test_a_change_is_never_allowed_on_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(permission.startswith("ec2:Describe") for permission in READS)
    added = replace(DETECTIONS[0], action_permissions=("ec2:ModifySnapshotAttribute",))
    monkeypatch.setattr(aws, "DETECTIONS", (added,))
    with pytest.raises(ValueError, match="ec2:ModifySnapshotAttribute"):
        act_policy([added.action_type])


def test_every_change_of_the_catalogue_is_one_that_the_broker_lets_be_asked_for() -> None:
    assert set(action_types()) == set(KINDS)
    for action_type in action_types():
        assert permissions_of(action_type) <= ALLOWED["act"]
    assert set(READS) <= ALLOWED["scan"]
