"""Connections to Azure and Google Cloud: made, checked and refused, on a real database and by the official SDKs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services._mesh.context import entered
from services._mesh.errors import Denied, Invalid, Problem, Reason, WrongState
from services._mesh.grants import CredentialScope, Grant
from services._mesh.kms.interface import Binding, Kek, KmsCause, failure
from services._mesh.kms.opening import Sealer
from services.broker import usecases as broker
from services.scanner import wire
from services.scanner.cloud_checking import READS
from services.scanner.model.cloud import Identity, Provider
from services.scanner.model.connection import Account, Connection, ConnectionState, NewConnection
from services.scanner.model.given import NewSecret
from services.scanner.store.rotation_rules import find_deadlines
from services.scanner.usecases import scanning
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.kinds import SCAN, VERIFY
from services.scanner.usecases.policies import Policies
from services.scanner.usecases.rotating import seal_candidate
from services.scanner.usecases.rotation_rules import set_rotation_rules
from services.scanner.usecases.secrets_posture import get_secrets_posture
from tests.support.bills import Active
from tests.support.clouds import (
    CLIENT,
    CLIENT_SECRET,
    DEV,
    EMAIL,
    ISSUER,
    POOL,
    PROD,
    TENANT,
    FakeAzure,
    FakeGoogle,
    certificate,
    certificate_pem,
    parts,
    pem,
    private_key,
    service_account_key,
)
from tests.support.connecting import Office, opened, refused
from tests.support.kms import KEK, CarelessKms
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, Uncounted, context

pytestmark = pytest.mark.services("scanner")

DAY = timedelta(days=1)
EVERYTHING = {"actions": ["*/read"], "notActions": []}
AZURE, GCP = READS[Provider.AZURE], READS[Provider.GCP]
ON_PROD = f"subscriptions/{PROD}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeAzure, FakeGoogle]]:
    azure, google = FakeAzure(tmp_path_factory.mktemp("azure")), FakeGoogle()
    yield azure, google
    azure.server.stop()
    google.server.stop()


@pytest.fixture
def azure(servers: tuple[FakeAzure, FakeGoogle]) -> FakeAzure:
    found = servers[0]
    found.roles, found.registered, found.expired, found.away, found.asked = {PROD: [EVERYTHING]}, [], False, False, []
    found.elsewhere = found.trusts = ""
    return found


@pytest.fixture
def google(servers: tuple[FakeAzure, FakeGoogle]) -> FakeGoogle:
    found = servers[1]
    found.held, found.accepts = {"acme-prod": list(GCP)}, private_key().public_key()
    found.trusts, found.may_act, found.disabled_api, found.asked = "", True, False, []
    return found


@pytest.fixture
async def office(database: TestDatabase, azure: FakeAzure, google: FakeGoogle, tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(database, None, tmp_path, lambda threads: parts(azure, google, threads)) as made:
        yield made


def on_azure(*subscriptions: str, client: str = CLIENT, tenant: str = TENANT, **secret: str) -> NewConnection:
    identity = Identity({"tenant_id": tenant, "client_id": client}, secret or {"client_secret": CLIENT_SECRET})
    accounts = tuple(Account(each, "", "") for each in subscriptions)
    return NewConnection("acme", "", "", accounts, (), Provider.AZURE, identity)


def on_gcp(*projects: str, named: str = "", **changes: Any) -> NewConnection:
    identity = Identity({"service_account": named}, {"key": json.dumps(service_account_key(**changes))})
    accounts = tuple(Account(each, "", "") for each in projects)
    return NewConnection("acme", "", "", accounts, (), Provider.GCP, identity)


async def verified(office: Office, given: NewConnection) -> Connection:
    return await office.verify(await office.make(given))


async def test_every_permission_in_azure_is_probed_and_the_scopes_are_said(office: Office, azure: FakeAzure) -> None:
    azure.roles[DEV] = []
    found = await verified(office, on_azure(PROD))
    assert (found.state, found.problem, refused(found)) == (ConnectionState.ACTIVE, "", {})
    assert [check.permission for check in found.permission_checks] == list(AZURE)
    assert [(check.role_arn, check.with_external_id) for check in found.role_checks] == [
        (f"applications/{CLIENT}", "ALLOWED"), (ON_PROD, "ALLOWED"),
    ]  # fmt: skip
    assert [(each.scope_id, each.display_name) for each in found.discovered] == [
        (PROD, "name of 33"),
        (DEV, "name of 44"),
    ]
    assert await office.events() == ["create", "verify", "activate"]
    # A long-lived secret, as which it gets old (rotation rules).
    assert found.access_key_id == CLIENT
    # Each call says in Azure's own trail which connection it is for.
    assert {reason for _, reason in azure.asked} == {str(found.connection_id)}
    assert not any(DEV in path for path, _ in azure.asked)


async def test_a_certificate_signs_in_and_one_that_isnt_registered_doesnt(office: Office, azure: FakeAzure) -> None:
    key, made = private_key(), certificate(private_key())
    given = on_azure(PROD, certificate=certificate_pem(made) + pem(key))
    found = await verified(office, given)
    assert found.problem == (
        f"applications/{CLIENT} refuses us (AADSTS700027): azure_certificate isn't registered with the application: "
        "upload it there. Then connect again."
    )
    azure.registered.append(made)
    assert (await office.verify(found)).state is ConnectionState.ACTIVE


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        (on_azure(PROD, client_secret="x" * 40), "AADSTS7000215", "azure_client_secret"),
        (on_azure(PROD, client=DEV), "AADSTS700016", "azure.client_id"),
        (on_azure(PROD, tenant=DEV), "invalid_tenant", "azure.tenant_id"),
        (on_azure(DEV), "SubscriptionNotFound", "azure.subscription_ids"),
        (on_azure(), "names no subscriptions", PROD),
    ],
)
async def test_what_azure_refuses_names_the_field_and_the_way_out(
    office: Office, given: NewConnection, code: str, field: str
) -> None:
    found = await verified(office, given)
    assert found.state is ConnectionState.FAILED
    assert code in found.problem
    assert field in found.problem
    assert "connect again" in found.problem.lower()
    assert "x" * 40 not in found.problem


async def test_without_a_permission_in_azure_it_isnt_accepted_and_what_is_lost_is_drift(
    office: Office, azure: FakeAzure
) -> None:
    lacking = "Microsoft.Compute/snapshots/read"
    azure.roles[PROD] = [{"actions": ["*"], "notActions": ["microsoft.compute/SNAPSHOTS/*"]}]
    found = await verified(office, on_azure(PROD))
    assert (found.state, refused(found)) == (ConnectionState.FAILED, {lacking: "REFUSED"})
    assert found.problem == (
        f"{ON_PROD} lacks {lacking}. Add {lacking} to the role RecoupRead, and have it hold on {ON_PROD} "
        "(recoup connect azure --print-policy); then check again."
    )
    azure.roles[PROD].append({"actions": [lacking], "notActions": []})
    assert (await office.verify(found)).state is ConnectionState.ACTIVE
    azure.roles[PROD].pop()
    office.clock.ahead += DAY
    now = await office.run(found)
    assert (now.state, refused(now)) == (ConnectionState.ACTIVE, {lacking: "LOST"})
    azure.expired = True
    office.clock.ahead += DAY
    now = await office.run(found)
    assert (now.state, "azure_client_secret is expired" in now.problem) == (ConnectionState.FAILED, True)
    assert (await office.events())[-2:] == ["drift", "drift"]


async def test_a_page_on_another_host_isnt_followed(office: Office, azure: FakeAzure) -> None:
    """Our token would go with it."""
    azure.roles[DEV], azure.elsewhere = [], azure.url.replace("localhost", "127.0.0.1")
    found = await verified(office, on_azure(PROD))
    assert [each.scope_id for each in found.discovered] == [PROD]
    assert len([path for path, _ in azure.asked if path.startswith("/subscriptions?")]) == 1


async def test_what_azure_doesnt_answer_changes_nothing(office: Office, azure: FakeAzure) -> None:
    before = await verified(office, on_azure(PROD))
    azure.away = True
    office.clock.ahead += DAY
    assert await office.run(before) == before
    azure.away = False
    office.clock.ahead += timedelta(hours=1)
    assert (await office.run(before)).checked_at != before.checked_at


async def test_every_permission_in_google_cloud_is_probed(office: Office, google: FakeGoogle) -> None:
    google.held["acme-dev"] = list(GCP[1:])
    found = await verified(office, on_gcp("acme-prod", "acme-dev"))
    assert (found.state, refused(found)) == (ConnectionState.FAILED, {GCP[0]: "REFUSED"})
    assert f"projects/acme-dev lacks {GCP[0]}. Add {GCP[0]} to the role RecoupRead" in found.problem
    google.held["acme-dev"].append(GCP[0])
    found = await office.verify(found)
    assert (found.state, found.problem) == (ConnectionState.ACTIVE, "")
    assert [check.role_arn for check in found.role_checks] == [
        f"serviceAccounts/{EMAIL}", "projects/acme-prod", "projects/acme-dev",
    ]  # fmt: skip
    assert [each.scope_id for each in found.discovered] == ["acme-dev", "acme-prod"]
    assert {reason for _, reason in google.asked} == {f"gcp.check-{found.connection_id}"}


async def test_what_google_refuses_names_the_field_and_the_way_out(office: Office, google: FakeGoogle) -> None:
    assert (
        "projects/acme-dev refuses us (PERMISSION_DENIED)"
        in (await verified(office, on_gcp("acme-dev", named=EMAIL))).problem
    )
    assert "correct gcp.project_ids" in (await verified(office, on_gcp("acme-dev", named=EMAIL))).problem
    google.disabled_api = True
    assert "cloudresourcemanager.googleapis.com isn't enabled" in (await verified(office, on_gcp("acme-prod"))).problem
    google.accepts = private_key(1).public_key()
    found = await verified(office, on_gcp("acme-prod"))
    assert (found.state, "gcp_service_account_key isn't accepted" in found.problem) == (ConnectionState.FAILED, True)
    assert "It names no projects; it could read: none." not in found.problem


async def test_a_key_of_a_service_account_is_taken_only_where_keys_are_allowed(office: Office) -> None:
    office.rules = KeyRules()
    with pytest.raises(Invalid) as caught:
        await office.make(on_gcp("acme-prod"))
    assert caught.value.field_violations[0].field == "gcp_service_account_key"
    assert "recoup connect static-keys allowed" in caught.value.field_violations[0].description
    assert (await office.make(on_azure(PROD))).state is ConnectionState.PENDING
    assert await office.fetch("SELECT provider FROM scanner.connections") == ["azure"]


async def test_what_is_wrong_is_refused_before_anything_is_kept(office: Office) -> None:
    wrong = (on_azure(PROD, client_secret=f"{CLIENT_SECRET}\n"), on_gcp("acme-dev"), on_gcp("acme-prod", type="x"))
    for given in wrong:
        with pytest.raises(Invalid):
            await office.make(given)
    for table in ("connections", "credentials", "jobs"):
        assert await office.fetch(f"SELECT 1 FROM scanner.{table}") == []


@pytest.mark.parametrize("cause", [KmsCause.UNREACHABLE, KmsCause.DISABLED, KmsCause.DENIED])
async def test_without_its_key_service_nothing_half_made_is_kept(office: Office, cause: KmsCause) -> None:
    class Away(CarelessKms):
        async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
            raise failure(cause, kek)

    async def kek(_: UUID) -> Kek:
        return KEK

    office.sealer = Sealer(Away(), kek)
    for given in (on_azure(PROD), on_gcp("acme-prod")):
        with pytest.raises(Problem) as refused:
            await office.make(given)
        assert refused.value.metadata == {"cause": cause.value, "kek": KEK.reference}
    for table in ("connections", "credentials", "jobs", "outbox"):
        assert await office.fetch(f"SELECT 1 FROM scanner.{table}") == []


async def test_what_has_no_detections_isnt_scanned(office: Office) -> None:
    found = await verified(office, on_azure(PROD))
    with entered(context(ACME, "scanner.scan.start")) as call:
        async with office.api.begin(ACME, call, interim=True) as work:
            with pytest.raises(WrongState) as caught:
                await scanning.start_scan(work, office.planner, found.connection_id)
    assert caught.value.reason == Reason.ERROR_REASON_CLOUD_NOT_SCANNED
    assert "Scan a connection of AWS" in caught.value.message


async def test_a_token_is_for_the_connections_scopes_and_the_grants_own_purpose(office: Office) -> None:
    made = await office.make(on_azure(PROD))
    (envelope,) = await office.fetch("SELECT envelope FROM scanner.credentials")
    assert await office.fetch("SELECT purpose FROM scanner.credentials") == ["azure.credential"]
    peers: Any = office.tools.desk  # The broker's desk is in its peers' stead.
    desk = peers._desk

    async def asked(purpose: str, account: str, *actions: str) -> None:
        statements = ({"actions": actions, "resources": ("*",)},) if actions else ()
        scope = CredentialScope(
            credential_id=made.credential_id, purpose=purpose, account=account, statements=statements
        )
        grant = Grant(
            issuer="scanner", audience=("broker",), presenter="x5t", organization_id=ACME,
            kind=SCAN if purpose == "scan" else VERIFY, subject="s",
            job_id=UUID(int=1), fence=1, number=len(desk.used._used) + 1, credential=scope, issued_at=1, expires_at=2,
        )  # fmt: skip
        with entered(context(None, grant=grant)):
            await broker.open_credential(desk, bytes(envelope))

    await asked("azure.check", PROD)
    for wrong in (("azure.check", DEV), ("azure.check", PROD, "Microsoft.Compute/disks/delete"), ("azure.act", PROD)):
        with pytest.raises(Denied):
            await asked(*wrong)
    for purpose in ("gcp.check", "scan"):  # Sealed for another purpose, it doesn't open.
        with pytest.raises(WrongState) as caught:
            await asked(purpose, PROD, *(["ec2:DescribeVolumes"] if purpose == "scan" else []))
        assert caught.value.reason == Reason.ERROR_REASON_CREDENTIAL_UNOPENABLE


async def test_a_scan_that_was_planned_all_the_same_gets_no_credential(office: Office) -> None:
    found = await verified(office, on_gcp("acme-prod"))
    policies: Any = Policies(office.api, Active())  # type: ignore[arg-type]  # It stands in.
    superuser = await office.database.superuser()
    await superuser.execute("SET session_replication_role = replica")  # No event: nobody could have planned it.
    await superuser.execute(
        "INSERT INTO scanner.scans (organization_id, scan_id, connection_id, state, units_total, created_at)"
        " VALUES ($1, $2, $3, 'QUEUED', 0, now())", ACME, UUID(int=9), found.connection_id,
    )  # fmt: skip
    await superuser.close()
    job: Any = type("Job", (), {"organization_id": ACME, "subject_id": UUID(int=9)})()
    with pytest.raises(WrongState):
        await policies.scan(job)


async def test_azure_trusts_the_brokers_assertion_for_one_connection(office: Office, azure: FakeAzure) -> None:
    office.rules = KeyRules(issuer=ISSUER)
    made, other = [await office.make(on_azure(PROD, client_secret="")) for _ in range(2)]
    azure.trusts = str(made.credential_id)
    assert (await office.verify(made)).state is ConnectionState.ACTIVE
    assert made.access_key_id == ""
    found = await office.verify(other)
    assert "no federated credential of the application names our issuer and subject: add it" in found.problem
    shown = wire.connection(made)
    assert (shown.federation.issuer, shown.federation.subject, shown.federation.audience) == (
        ISSUER, str(made.credential_id), "api://AzureADTokenExchange",
    )  # fmt: skip
    sealed = await office.make(on_azure(PROD))
    assert not wire.connection(sealed).HasField("federation")
    secret = NewSecret(azure_client_secret=CLIENT_SECRET)
    with entered(context(ACME)), pytest.raises(Invalid, match="which holds no secret"):
        await seal_candidate(office.api, office.sealer, made.connection_id, secret)
    # Where there is no secret, none gets old: it couldn't be rotated, and is never refused.
    office.clock.ahead += 400 * DAY
    with entered(context(ACME, "scanner.rotation_rules.set")):
        async with office.api.begin() as work:
            _, late = await set_rotation_rules(work, 20, 30)
            refusals = [(await find_deadlines(work.connection, each)).refused_from for each in (made, sealed)]
        posture = await get_secrets_posture(office.api, Uncounted(), office.clock.now())  # type: ignore[arg-type]
    assert (late, refusals[0], refusals[1] is not None, posture.unrotated) == (1, None, True, 1)
    limits = {row.credential_id: deadlines.refused_from for row, deadlines in posture.oldest}
    assert [limits[each.credential_id] for each in (made, sealed)] == refusals


async def test_azure_isnt_accepted_where_it_trusts_any_subject_of_ours(office: Office, azure: FakeAzure) -> None:
    office.rules = KeyRules(issuer=ISSUER)
    made = await office.make(on_azure(PROD, client_secret=""))
    azure.trusts = "*"
    found = await office.verify(made)
    assert found.state is ConnectionState.FAILED
    assert "(AnySubject): the trust is in every subject of our issuer" in found.problem
    azure.trusts = str(made.credential_id)
    assert (await office.verify(made)).state is ConnectionState.ACTIVE


@pytest.mark.parametrize("cloud", ["azure", "google"])
async def test_who_was_told_to_trust_another_issuer_than_the_broker_is_refused(
    office: Office, azure: FakeAzure, google: FakeGoogle, cloud: str
) -> None:
    office.rules = KeyRules(issuer="https://elsewhere.example.com/federation")
    identity = Identity({"service_account": EMAIL, "workload_identity_provider": POOL})
    on_google = NewConnection("acme", "", "", (Account("acme-prod", "", ""),), (), Provider.GCP, identity)
    made = await office.make(on_azure(PROD, client_secret="") if cloud == "azure" else on_google)
    azure.trusts = google.trusts = str(made.credential_id)  # In the broker's issuer: only the names differ.
    found = await office.verify(made)
    assert found.state is ConnectionState.FAILED
    assert "(OtherIssuer): this installation isn't the issuer that you were told to trust" in found.problem
    assert "federation_issuer the broker's [federation] issuer" in found.problem


async def test_google_trusts_the_brokers_assertion_for_one_connection(office: Office, google: FakeGoogle) -> None:
    office.rules = KeyRules(issuer=ISSUER)
    identity = Identity({"service_account": EMAIL, "workload_identity_provider": POOL})
    given = NewConnection("acme", "", "", (Account("acme-prod", "", ""),), (), Provider.GCP, identity)
    made = await office.make(given)
    found = await office.verify(made)
    assert "(sts_invalid_grant): the workload identity provider doesn't accept our issuer" in found.problem
    google.trusts = str(made.credential_id)
    google.may_act = False
    found = await office.verify(made)
    assert "(impersonation_refused): gcp.service_account may not be acted as" in found.problem
    google.may_act, google.trusts = True, "*"
    found = await office.verify(made)
    assert "(AnySubject): the trust is in every subject of our issuer" in found.problem
    google.trusts = str(made.credential_id)
    assert (await office.verify(made)).state is ConnectionState.ACTIVE
    assert wire.connection(made).federation.audience == f"//iam.googleapis.com/{POOL}"
    assert wire.connection(made).gcp.workload_identity_provider == POOL
