"""Between the scanner's messages and its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from recoup.mesh.v1 import resource_pb2
from recoup.scanner.v1 import rotation_service_pb2, scanner_service_pb2
from recoup.scanner.v1 import scanner_pb2 as pb
from services._mesh.errors import invalid_field
from services._mesh.times import moment, stamp
from services.scanner.model.cloud import Identity, Provider, audience_of
from services.scanner.model.connection import Account, Connection, NewConnection, PermissionCheck, RoleCheck
from services.scanner.model.rotation_rules import RotationRules
from services.scanner.model.suppression import Suppression


def new_connection(request: scanner_service_pb2.CreateConnectionRequest) -> NewConnection:
    """What a person gives to connect a cloud scope. Raises Invalid where it is of several clouds."""
    provider, scopes, identity = Provider.AWS, [], Identity()
    azure_secret = {"client_secret": request.azure_client_secret, "certificate": request.azure_certificate}
    gcp_secret = {"key": request.gcp_service_account_key}
    if request.HasField("azure"):
        public = {"tenant_id": request.azure.tenant_id.lower(), "client_id": request.azure.client_id.lower()}
        provider, identity = Provider.AZURE, Identity(public, azure_secret)
        scopes = [Account(each.lower(), "", "") for each in request.azure.subscription_ids]
    elif request.HasField("gcp"):
        public = {
            "service_account": request.gcp.service_account,
            "workload_identity_provider": request.gcp.workload_identity_provider,
        }
        provider, identity = Provider.GCP, Identity(public, gcp_secret)
        scopes = [Account(each, "", "") for each in request.gcp.project_ids]
    _require_one_cloud(request, provider)
    accounts = [Account(a.account_id, a.scan_role_arn, a.act_role_arn) for a in request.aws_accounts] or scopes
    return NewConnection(
        request.display_name,
        request.aws_access_key_id,
        request.aws_secret_access_key,
        tuple(accounts),
        tuple(request.regions),
        provider,
        identity,
    )


def _require_one_cloud(request: scanner_service_pb2.CreateConnectionRequest, provider: Provider) -> None:
    """Raises Invalid for what belongs to another cloud than the one that is connected."""
    others = {
        "aws_accounts": (Provider.AWS, bool(request.aws_accounts)),
        "azure": (Provider.AZURE, request.HasField("azure")),
        "azure_client_secret": (Provider.AZURE, bool(request.azure_client_secret)),
        "azure_certificate": (Provider.AZURE, bool(request.azure_certificate)),
        "gcp": (Provider.GCP, request.HasField("gcp")),
        "gcp_service_account_key": (Provider.GCP, bool(request.gcp_service_account_key)),
    }
    for field, (its, is_given) in others.items():
        if is_given and its is not provider:
            rule = f"is {its.brand}'s, and the connection is one of {provider.brand}; make a connection for each cloud"
            raise invalid_field(field, rule)


def role_checks(found: Sequence[RoleCheck]) -> list[pb.RoleCheck]:
    """How roles answered."""
    return [
        pb.RoleCheck(
            role_arn=check.role_arn,
            without_external_id=check.without_external_id,
            with_wrong_external_id=check.with_wrong_external_id,
            with_external_id=check.with_external_id,
        )
        for check in found
    ]


def permission_checks(found: Sequence[PermissionCheck]) -> list[pb.PermissionCheck]:
    """What came of permissions, with what to do."""
    return [
        pb.PermissionCheck(
            role_arn=check.role_arn,
            use=check.use,
            region=check.region,
            permission=check.permission,
            outcome=check.outcome,
            error_code=check.error_code,
            fix=check.fix,
        )
        for check in found
    ]


def rotation_rules(found: RotationRules) -> rotation_service_pb2.RotationRules:
    """How old secrets may get."""
    return rotation_service_pb2.RotationRules(
        remind_after_days=found.remind_after_days,
        rotate_within_days=found.rotate_within_days,
        enforced_from=stamp(found.enforced_from),
    )


def connection(found: Connection) -> pb.Connection:
    """A connection as it is read; never its secret."""
    return pb.Connection(
        connection_id=str(found.connection_id),
        organization_id=str(found.organization_id),
        display_name=found.display_name,
        provider=found.provider.value,
        aws_accounts=[
            pb.AwsAccount(account_id=a.account_id, scan_role_arn=a.scan_role_arn, act_role_arn=a.act_role_arn)
            for a in found.accounts
            if found.provider is Provider.AWS
        ],
        azure=_azure(found),
        gcp=_gcp(found),
        federation=_federation(found),
        discovered=[pb.CloudScope(scope_id=s.scope_id, display_name=s.display_name) for s in found.discovered],
        regions=found.regions,
        external_id=found.external_id,
        credential_id=str(found.credential_id),
        access_key_id=found.access_key_id,
        state=pb.ConnectionState.Value(f"CONNECTION_STATE_{found.state.value}"),
        problem=found.problem,
        role_checks=role_checks(found.role_checks),
        etag=found.etag,
        created_at=stamp(found.created_at),
        verified_at=stamp(found.verified_at),
        permission_checks=permission_checks(found.permission_checks),
        checked_at=stamp(found.checked_at),
    )


def _azure(found: Connection) -> pb.AzureCloud | None:
    if found.provider is not Provider.AZURE:
        return None
    return pb.AzureCloud(
        tenant_id=found.identity["tenant_id"],
        client_id=found.identity["client_id"],
        subscription_ids=[account.account_id for account in found.accounts],
    )


def _gcp(found: Connection) -> pb.GcpCloud | None:
    if found.provider is not Provider.GCP:
        return None
    projects = [account.account_id for account in found.accounts]
    return pb.GcpCloud(
        service_account=found.identity["service_account"],
        project_ids=projects,
        workload_identity_provider=found.identity.get("workload_identity_provider", ""),
    )


def _federation(found: Connection) -> pb.Federation | None:
    if "issuer" not in found.identity:
        return None
    audience = audience_of(found.provider, found.identity)
    return pb.Federation(issuer=found.identity["issuer"], subject=str(found.credential_id), audience=audience)


def scan(row: Any, units: Sequence[Any], *, with_coverage: bool) -> pb.Scan:
    """A scan with its progress, and its completeness record where asked for."""
    return pb.Scan(
        scan_id=str(row.scan_id),
        organization_id=str(row.organization_id),
        connection_id=str(row.connection_id),
        state=pb.ScanState.Value(f"SCAN_STATE_{row.state}"),
        units_total=row.units_total,
        units_done=len(units),
        resources_seen=max(row.resources_seen, sum(unit.resources for unit in units)),
        findings_open=row.findings_open,
        api_calls=sum(unit.calls for unit in units),
        coverage=[_coverage(unit) for unit in units] if with_coverage else [],
        created_at=stamp(row.created_at),
        started_at=stamp(row.started_at),
        finished_at=stamp(row.finished_at),
        problem=row.problem,
    )


def _coverage(unit: Any) -> pb.Coverage:
    return pb.Coverage(
        account=unit.account,
        region=unit.region,
        api=unit.api,
        outcome=unit.outcome,
        pages=unit.pages,
        resources=unit.resources,
        throttles=unit.throttles,
        error_code=unit.error_code,
    )


def finding(row: Any, in_force: Mapping[UUID, datetime] = MappingProxyType({})) -> pb.Finding:
    """A finding as it is read. `in_force` has the ends of the exceptions that leave findings alone, by their ids."""
    until = in_force.get(row.exception_id) if row.state == "OPEN" else None
    saving = None
    if row.saving is not None:
        saving = resource_pb2.Money(amount=f"{row.saving:f}", currency=row.currency)
    return pb.Finding(
        finding_id=str(row.finding_id),
        organization_id=str(row.organization_id),
        connection_id=str(row.connection_id),
        scan_id=str(row.scan_id),
        detection_id=row.detection_id,
        resource=resource_pb2.ResourceKey(
            provider=row.provider,
            partition=row.partition,
            account=row.account,
            region=row.region,
            type=row.type,
            id=row.id,
        ),
        resource_name=row.resource_name,
        state=pb.FindingState.Value(f"FINDING_STATE_{'SUPPRESSED' if until else row.state}"),
        actionability=pb.Actionability.Value(f"ACTIONABILITY_{row.actionability}"),
        monthly_saving=saving,
        price_version=row.price_version,
        severity=row.severity,
        confidence=row.confidence,
        evidence=row.evidence,
        action_type=row.action_type,
        first_seen_at=stamp(row.first_seen_at),
        last_seen_at=stamp(row.last_seen_at),
        tags=getattr(row, "tags", None),
        exception_id=str(row.exception_id) if until else "",
        suppressed_until=stamp(until),
    )


def finding_filter(request: scanner_service_pb2.ListFindingsRequest) -> dict[str, Any]:
    """What a list is narrowed to, column by column; open findings where no state is asked for."""
    state = pb.FindingState.Name(request.state).removeprefix("FINDING_STATE_")
    narrowed: dict[str, Any] = {"state": "OPEN" if state == "UNSPECIFIED" else state}
    if request.detection_id:
        narrowed["detection_id"] = request.detection_id
    if request.connection_id:
        narrowed["connection_id"] = request.connection_id
    if request.actionability:
        narrowed["actionability"] = pb.Actionability.Name(request.actionability).removeprefix("ACTIONABILITY_")
    return narrowed


def suppression(request: scanner_service_pb2.SuppressFindingRequest) -> Suppression:
    """The exception that somebody asks for."""
    return Suppression(
        UUID(request.finding_id),
        request.reason,
        moment(request.expires_at),
        tuple(request.reviewers),
        request.request_id,
    )
