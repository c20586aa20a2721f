"""A valid request for every RPC, so that the isolation suite can vary it. An RPC without one fails the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.support import mesh as support
from tests.support.mesh import TestMesh


@dataclass(frozen=True)
class Case:
    """A valid request: the REST body, query and path variables, and what an allowed caller gets for it.

    `answer` is 200 where the call can succeed again and again; a change that can't names the domain's own refusal,
    which shows just as well that the caller was let in.
    """

    variables: Mapping[str, str]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    answer: tuple[int, str] = (200, "")


Factory = Callable[[TestMesh], Case]
# What the events are of that the cases name.
EVENT = "actions.receipt.issue"


def _member(made: TestMesh) -> dict[str, Any]:
    found: dict[str, Any] = made.rest("acme", "Admin").get("/members", pageSize=500)
    return next(member for member in found["members"] if member["role"] == "ROLE_VIEWER")


def _role(made: TestMesh) -> str:
    admin = made.rest("acme", "Admin")
    found: list[dict[str, Any]] = admin.get("/roles", pageSize=1)["roles"]
    if not found:
        found = [admin.post("/roles", {"name": "night-watch", "permissions": ["scanner.finding.read"]})["role"]]
    return str(found[0]["roleId"])


def _named_domain(made: TestMesh) -> Case:
    """One that the organization has named already."""
    body = {"name": "isolation.example"}
    assert made.rest("acme", "Admin").call("POST", "/domains", json=body).status_code in (200, 409)
    return Case({}, body, answer=(409, "RESOURCE_EXISTS"))


def _scan(made: TestMesh) -> str:
    finops = made.rest("acme", "FinOps")
    scans = finops.get("/scans", pageSize=1)["scans"]
    return str(scans[0]["scanId"]) if scans else str(support.scan(made, finops)["scanId"])


def _finding(made: TestMesh) -> str:
    _scan(made)
    found: list[dict[str, Any]] = made.rest("acme", "Viewer").get("/findings", pageSize=1)["findings"]
    return str(found[0]["findingId"])


def _event(made: TestMesh) -> str:
    """One that every role which may read events may see."""
    found: list[dict[str, Any]] = made.rest("acme", "Auditor").get("/events", pageSize=1, action=EVENT)["events"]
    return str(found[0]["eventId"])


def _published(made: TestMesh) -> Case:
    """The organization's head is there as soon as heads were published once."""
    auditor = made.rest("acme", "Auditor")
    support.until(lambda: auditor.call("GET", "/log/head").status_code == 200 or None)
    return Case({})


def _executed(made: TestMesh) -> dict[str, Any]:
    """An action that was executed: whatever is decided about it now is refused."""
    found: list[dict[str, Any]] = made.rest("acme", "Viewer").get("/actions", pageSize=500)["actions"]
    return next(action for action in found if action.get("executedAt"))


def _export(made: TestMesh) -> str:
    auditor = made.rest("acme", "Auditor")
    found: list[dict[str, Any]] = auditor.get("/evidenceExports", pageSize=1)["exports"]
    if not found:
        period = {"beginsAt": f"{made.day0 - timedelta(days=60):%FT%TZ}", "endsAt": f"{made.day0:%FT%TZ}"}
        found = [auditor.post("/evidenceExports", period)["export"]]
    return str(found[0]["exportId"])


def _receipt(made: TestMesh) -> str:
    found: list[dict[str, Any]] = made.rest("acme", "Finance").get("/receipts", pageSize=1)["receipts"]
    return str(found[0]["receiptId"])


def _bill(made: TestMesh, path: str, key: str, name: str) -> str:
    found: list[dict[str, Any]] = made.rest("acme", "Finance").get(path, pageSize=1)[key]
    return str(found[0][name])


def _costs(made: TestMesh) -> dict[str, str]:
    resource = _executed(made)["resource"]
    through = made.day0.date()
    days = {"fromDay": f"{through - timedelta(days=20)}", "toDay": f"{through}"}
    return {"account": resource["account"], "resourceId": resource["id"], **days}


def _baseline(made: TestMesh) -> dict[str, str]:
    resource = {f"resource.{name}": value for name, value in _executed(made)["resource"].items()}
    return {**resource, "throughDay": f"{made.day0.date() - timedelta(days=1)}"}


def _decided(made: TestMesh, **body: str) -> Case:
    return Case({"action_id": _executed(made)["actionId"]}, body, answer=(400, "STATE_WRONG"))


def _service_account(made: TestMesh) -> str:
    admin = made.rest("acme", "Admin")
    found: list[dict[str, Any]] = admin.get("/serviceAccounts", pageSize=1)["serviceAccounts"]
    account = found[0] if found else admin.post("/serviceAccounts", {"displayName": "nightly"})["serviceAccount"]
    return str(account["serviceAccountId"])


def _new_token() -> dict[str, Any]:
    ends_at = datetime.now(UTC) + timedelta(days=1)
    return {"displayName": "x", "permissions": ["identity.organization.read"], "expiresAt": f"{ends_at:%FT%TZ}"}


def _etag_refused(variables: Mapping[str, str], **body: Any) -> Case:
    """A change under an etag that is never current: let in, and refused by the resource itself."""
    return Case(variables, {**body, "etag": "stale"}, answer=(409, "ETAG_MISMATCH"))


def _refused_access(made: TestMesh) -> Case:
    """An operator's request that was refused: whatever is decided about it now is refused too."""
    admin = made.rest("acme", "Admin")
    found: list[dict[str, Any]] = [
        each for each in admin.get("/operatorAccesses")["accesses"] if each["state"] == "OPERATOR_ACCESS_STATE_REFUSED"
    ]
    if not found:
        asked = made.rest("platform", "Security").client.post(
            f"/v1/platform/organizations/{admin.organization_id}/operatorAccesses", json=_ASKED
        )
        path = f"/operatorAccesses/{asked.json()['access']['accessId']}:refuse"
        found = [admin.post(path, {})["access"]]
    return Case({"access_id": str(found[0]["accessId"])}, {}, answer=(400, "STATE_WRONG"))


_ASKED = {"role": "ROLE_VIEWER", "reason": "a scan stands still", "hours": 1}


def _elevation(made: TestMesh) -> str:
    admin = made.rest("acme", "Admin")
    found: list[dict[str, Any]] = admin.get("/elevations", pageSize=1)["elevations"]
    if not found:
        wanted = {"permissions": ["audit.hold.release"], "reason": "the isolation suite", "minutes": 1}
        found = [admin.post("/elevations", wanted)["elevation"]]
    return str(found[0]["elevationId"])


def _excepted(made: TestMesh, hours: int) -> dict[str, str]:
    """An exception that begins now, by the movable clock, and lasts so long."""
    ends = made.mesh.clock.now() + timedelta(hours=hours)
    wanted = {"kind": "EXCEPTION_KIND_ACCESS", "target": "things/1", "reason": "the isolation suite"}
    return {**wanted, "expiresAt": f"{ends:%FT%TZ}"}


def _exception(made: TestMesh) -> str:
    admin = made.rest("acme", "Admin")
    found: list[dict[str, Any]] = admin.get("/exceptions", pageSize=1)["exceptions"]
    if not found:
        found = [admin.post("/exceptions", _excepted(made, hours=48))["exception"]]
    return str(found[0]["exceptionId"])


def _review(made: TestMesh) -> str:
    elevation = made.rest("acme", "Admin").get(f"/elevations/{_elevation(made)}")["elevation"]
    return str(elevation["reviewId"])


def _provider(made: TestMesh) -> dict[str, str]:
    admin = made.rest("acme", "Admin")
    found: list[dict[str, Any]] = admin.get("/identityProviders")["providers"]
    if not found:
        found = [admin.post("/identityProviders", {"displayName": "for the suite"})["provider"]]
    return {"provider_id": str(found[0]["providerId"])}


_SSO = "recoup.identity.v1.SsoService"
_CONNECTION = "recoup.scanner.v1.ScannerService"
_ROTATION = "recoup.scanner.v1.RotationService"
_KEKS = "recoup.scanner.v1.KekService"
_KEYS = "recoup.scanner.v1.KeyService"
_OPERATORS = "recoup.identity.v1.OperatorService"
_ORGANIZATIONS = "recoup.identity.v1.OrganizationService"
_BROWSERS = "recoup.identity.v1.BrowserService"
_ORIGINS = "recoup.identity.v1.OriginService"
_PERSONS = "recoup.identity.v1.PersonService"
_INVITATIONS = "recoup.identity.v1.InvitationService"
_IDENTITY = "recoup.identity.v1.IdentityService"
_ELEVATIONS = "recoup.identity.v1.ElevationService"
_EXCEPTIONS = "recoup.identity.v1.ExceptionService"
_REVIEWS = "recoup.identity.v1.ReviewService"
_TOKENS = "recoup.identity.v1.TokenService"
_ROLES = "recoup.identity.v1.RoleService"
_SCIM = "recoup.identity.v1.ScimService"
_AUDIT = "recoup.audit.v1.AuditService"
_ERASURES = "recoup.audit.v1.ErasureService"
_EVIDENCE = "recoup.audit.v1.EvidenceService"
# A period without a moment in it: let in, and refused by the use case itself.
_NO_TIME = {"beginsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-01T00:00:00Z"}
_BILLS = "recoup.pricing.v1.BillService"
_ACTIONS = "recoup.actions.v1.ActionsService"
_NOWHERE = {"account": "1" * 12, "region": "us-east-1", "bucket": "some-bucket", "prefix": "some/prefix"}

FACTORIES: Mapping[str, Factory] = {
    f"{_IDENTITY}/GetOrganization": lambda made: Case({}),
    f"{_IDENTITY}/UpdateOrganization": lambda made: _etag_refused({}, displayName="x"),
    f"{_IDENTITY}/ListMembers": lambda made: Case({}),
    f"{_IDENTITY}/GetMember": lambda made: Case({"member_id": _member(made)["memberId"]}),
    f"{_IDENTITY}/AddMember": lambda made: Case(
        {}, {"userId": str(uuid4()), "email": "new@acme.example.com", "role": "ROLE_VIEWER"}
    ),
    f"{_IDENTITY}/UpdateMember": lambda made: _etag_refused(
        {"member_id": _member(made)["memberId"]}, role="ROLE_AUDITOR"
    ),
    f"{_IDENTITY}/RemoveMember": lambda made: Case({"member_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_IDENTITY}/RevokeMemberSessions": lambda made: Case(
        {"member_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    # The platform's people are members of the platform, so that they need nobody's consent there.
    f"{_OPERATORS}/RequestOperatorAccess": lambda made: Case({}, dict(_ASKED), answer=(409, "RESOURCE_EXISTS")),
    f"{_OPERATORS}/ListOperatorAccesses": lambda made: Case({}),
    f"{_OPERATORS}/GrantOperatorAccess": _refused_access,
    f"{_OPERATORS}/RefuseOperatorAccess": _refused_access,
    f"{_OPERATORS}/RevokeOperatorAccess": _refused_access,
    f"{_ELEVATIONS}/RequestElevation": lambda made: Case(
        {},
        {"permissions": ["identity.review.decide"], "reason": "the isolation suite", "minutes": 1},
        answer=(400, "FIELD_INVALID"),
    ),
    f"{_ELEVATIONS}/EndElevation": lambda made: Case(
        {"elevation_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ELEVATIONS}/GetElevation": lambda made: Case({"elevation_id": _elevation(made)}),
    f"{_ELEVATIONS}/ListElevations": lambda made: Case({}),
    f"{_EXCEPTIONS}/CreateException": lambda made: Case({}, _excepted(made, hours=0), answer=(400, "FIELD_INVALID")),
    f"{_EXCEPTIONS}/EndException": lambda made: Case(
        {"exception_id": str(uuid4())}, {"reason": "over"}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_EXCEPTIONS}/GetException": lambda made: Case({"exception_id": _exception(made)}),
    f"{_EXCEPTIONS}/ListExceptions": lambda made: Case({}),
    "recoup.identity.v1.PostureService/GetPosture": lambda made: Case({}),
    f"{_REVIEWS}/GetReview": lambda made: Case({"review_id": _review(made)}),
    f"{_REVIEWS}/ListReviews": lambda made: Case({}),
    f"{_REVIEWS}/DecideReview": lambda made: Case(
        {"review_id": str(uuid4())},
        {"verdict": "REVIEW_VERDICT_JUSTIFIED", "note": "seen"},
        answer=(404, "RESOURCE_NOT_FOUND"),
    ),
    f"{_TOKENS}/CreateServiceAccount": lambda made: Case({}, {"displayName": "x"}),
    f"{_TOKENS}/ListServiceAccounts": lambda made: Case({}),
    f"{_TOKENS}/UpdateServiceAccount": lambda made: _etag_refused({"service_account_id": _service_account(made)}),
    f"{_TOKENS}/DisableServiceAccount": lambda made: Case(
        {"service_account_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_TOKENS}/CreateToken": lambda made: Case({}, _new_token()),
    f"{_TOKENS}/ListTokens": lambda made: Case({}),
    f"{_TOKENS}/RotateToken": lambda made: Case({"token_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_TOKENS}/RevokeToken": lambda made: Case({"token_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_ROLES}/CreateRole": lambda made: Case(
        {}, {"name": "odd", "permissions": ["no.such.permission"]}, answer=(400, "FIELD_INVALID")
    ),
    f"{_ROLES}/UpdateRole": lambda made: _etag_refused({"role_id": _role(made)}),
    f"{_ROLES}/DeleteRole": lambda made: Case({"role_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_ROLES}/GetRole": lambda made: Case({"role_id": _role(made)}),
    f"{_ROLES}/ListRoles": lambda made: Case({}),
    f"{_ROLES}/AssignRole": lambda made: _etag_refused({"member_id": _member(made)["memberId"]}, role="ROLE_AUDITOR"),
    f"{_ROLES}/ConfirmApprover": lambda made: _etag_refused({"member_id": _member(made)["memberId"]}),
    # A group twice: let in, and refused by the use case itself.
    f"{_SCIM}/UpdateScimRoles": lambda made: Case(
        {}, {"roles": [{"group": "x", "role": "ROLE_VIEWER"}] * 2}, answer=(400, "FIELD_INVALID")
    ),
    f"{_SCIM}/CreateScimToken": lambda made: Case({}, {"name": "isolation"}),
    f"{_SCIM}/ListScimTokens": lambda made: Case({}),
    f"{_SCIM}/RevokeScimToken": lambda made: Case({"token_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_SCIM}/GetScimStatus": lambda made: Case({}),
    # The platform's own organization, which isn't to be suspended, isn't suspended, and has no such member.
    f"{_ORGANIZATIONS}/CreateOrganization": lambda made: Case(
        {},
        {"slug": "acme", "displayName": "Another Acme", "adminEmail": "a@x.example.com"},
        answer=(409, "RESOURCE_EXISTS"),
    ),
    f"{_ORGANIZATIONS}/SuspendOrganization": lambda made: Case({}, {"reason": "x"}, answer=(400, "FIELD_INVALID")),
    f"{_ORGANIZATIONS}/ResumeOrganization": lambda made: Case({}, {"reason": "x"}, answer=(400, "STATE_WRONG")),
    f"{_ORGANIZATIONS}/ReassignOwnership": lambda made: Case(
        {}, {"memberId": str(uuid4()), "reason": "x"}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ORGANIZATIONS}/TransferOwnership": lambda made: Case(
        {}, {"memberId": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ORGANIZATIONS}/LeaveOrganization": lambda made: Case(
        {}, {"confirmSlug": "another"}, answer=(400, "FIELD_INVALID")
    ),
    f"{_ORGANIZATIONS}/SetDefaultOrganization": lambda made: Case({}, {}),
    f"{_BROWSERS}/CreateBrowserSession": lambda made: Case({}, {}),
    f"{_BROWSERS}/ListBrowserSessions": lambda made: Case({}),
    f"{_BROWSERS}/EndBrowserSession": lambda made: Case(
        {"session_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ORIGINS}/GetAllowedOrigins": lambda made: Case({}),
    f"{_ORIGINS}/SetAllowedOrigins": lambda made: _etag_refused({}, origins=["https://x.acme.example"]),
    f"{_PERSONS}/LinkMember": lambda made: Case(
        {"member_id": str(uuid4())}, {"sameAsMemberId": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_PERSONS}/UnlinkMember": lambda made: Case({"member_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_PERSONS}/ListLinkedIdentities": lambda made: Case({}),
    f"{_INVITATIONS}/CreateInvitation": lambda made: Case({}, {"email": "guest@x.example.com", "role": "ROLE_VIEWER"}),
    f"{_INVITATIONS}/ListInvitations": lambda made: Case({}),
    f"{_INVITATIONS}/RevokeInvitation": lambda made: Case(
        {"invitation_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_SSO}/CreateIdentityProvider": lambda made: Case({}, {"displayName": "another"}),
    f"{_SSO}/GetIdentityProvider": lambda made: Case(_provider(made)),
    f"{_SSO}/ListIdentityProviders": lambda made: Case({}),
    f"{_SSO}/UpdateIdentityProvider": lambda made: _etag_refused(_provider(made), emailAttribute="email"),
    f"{_SSO}/ImportMetadata": lambda made: _etag_refused(_provider(made), metadata="<a/>"),
    f"{_SSO}/SetGroupRoles": lambda made: _etag_refused(_provider(made)),
    f"{_SSO}/EnableIdentityProvider": lambda made: _etag_refused(_provider(made)),
    f"{_SSO}/ConfirmIdentityProvider": lambda made: _etag_refused(_provider(made)),
    f"{_SSO}/DisableIdentityProvider": lambda made: Case(
        {"provider_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_SSO}/SetEnforcement": lambda made: _etag_refused(_provider(made), enforcement="ENFORCEMENT_OFF"),
    f"{_SSO}/StartTestLogin": lambda made: Case(_provider(made), {}, answer=(400, "STATE_WRONG")),
    f"{_SSO}/GetTestResult": lambda made: Case({"test_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_SSO}/AddDomain": _named_domain,
    f"{_SSO}/ListDomains": lambda made: Case({}),
    f"{_SSO}/VerifyDomain": lambda made: Case({"domain_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_SSO}/RemoveDomain": lambda made: Case({"domain_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    "recoup.scanner.v1.ConnectingService/PlanConnection": lambda made: Case({}, {"principalArn": made.base_user.arn}),
    "recoup.scanner.v1.ConnectingService/SetStaticKeys": lambda made: Case({}, {"staticKeys": "STATIC_KEYS_ALLOWED"}),
    "recoup.scanner.v1.ConnectingService/CheckConnection": lambda made: Case(
        {"connection_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_CONNECTION}/CreateConnection": lambda made: Case({}, support.new_connection(made)),
    f"{_CONNECTION}/VerifyConnection": lambda made: Case(
        {"connection_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_CONNECTION}/DisableConnection": lambda made: _etag_refused({"connection_id": made.connection_id}),
    f"{_CONNECTION}/GetConnection": lambda made: Case({"connection_id": made.connection_id}),
    f"{_CONNECTION}/ListConnections": lambda made: Case({}),
    # An alias: let in, and refused by the use case itself.
    f"{_KEKS}/RegisterKek": lambda made: Case(
        {},
        {"provider": "KEK_PROVIDER_AWS", "keyId": "alias/recoup", "region": "us-east-1"},
        answer=(400, "FIELD_INVALID"),
    ),
    f"{_KEKS}/ListKeks": lambda made: Case({}),
    f"{_ROTATION}/RotateCredential": lambda made: Case(
        {"connection_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ROTATION}/CancelRotation": lambda made: Case(
        {"connection_id": made.connection_id}, {}, answer=(400, "STATE_WRONG")
    ),
    # Never rotated: let in, and there is none.
    f"{_ROTATION}/GetRotation": lambda made: Case(
        {"connection_id": made.connection_id}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ROTATION}/SetRotationRules": lambda made: Case({}, {"remindAfterDays": 90}),
    f"{_ROTATION}/GetRotationRules": lambda made: Case({}),
    "recoup.scanner.v1.SecretsService/GetSecretsPosture": lambda made: Case({}),
    # Let in, and refused where there is none of its own.
    f"{_KEKS}/RotateKek": lambda made: Case({}, {}, answer=(400, "STATE_WRONG")),
    f"{_KEKS}/RetireKek": lambda made: Case({"version": "999"}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    # No key: let in, and refused by the use case itself.
    f"{_KEYS}/CreateKey": lambda made: Case(
        {}, {"purpose": "KEY_PURPOSE_AI", "name": "isolation", "secret": "short"}, answer=(400, "FIELD_INVALID")
    ),
    f"{_KEYS}/RotateKey": lambda made: Case({"key_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_KEYS}/RevokeKey": lambda made: Case({"key_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_KEYS}/ListKeys": lambda made: Case({}),
    f"{_CONNECTION}/StartScan": lambda made: Case(
        {}, {"connectionId": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_CONNECTION}/WatchScan": lambda made: Case({"scan_id": _scan(made)}),
    f"{_CONNECTION}/GetScan": lambda made: Case({"scan_id": _scan(made)}),
    f"{_CONNECTION}/ListScans": lambda made: Case({}),
    f"{_CONNECTION}/GetFinding": lambda made: Case({"finding_id": _finding(made)}),
    f"{_CONNECTION}/ListFindings": lambda made: Case({}),
    f"{_CONNECTION}/SuppressFinding": lambda made: Case(
        {"finding_id": str(uuid4())},
        {name: _excepted(made, hours=48)[name] for name in ("reason", "expiresAt")},
        answer=(404, "RESOURCE_NOT_FOUND"),
    ),
    "recoup.pricing.v1.PricingService/ListPrices": lambda made: Case({}, query={"region": "us-east-1"}),
    f"{_BILLS}/CreateBillSource": lambda made: Case(
        {}, {"connectionId": str(uuid4()), **_NOWHERE}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_BILLS}/GetBillSource": lambda made: Case(
        {"bill_source_id": _bill(made, "/billSources", "billSources", "billSourceId")}
    ),
    f"{_BILLS}/ListBillSources": lambda made: Case({}),
    f"{_BILLS}/ImportBill": lambda made: Case({"bill_source_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_BILLS}/DisableBillSource": lambda made: _etag_refused(
        {"bill_source_id": _bill(made, "/billSources", "billSources", "billSourceId")}
    ),
    f"{_BILLS}/GetBillImport": lambda made: Case(
        {"bill_import_id": _bill(made, "/billImports", "billImports", "billImportId")}
    ),
    f"{_BILLS}/ListBillImports": lambda made: Case({}),
    f"{_BILLS}/ListDailyCosts": lambda made: Case({}, query=_costs(made)),
    f"{_BILLS}/GetBaseline": lambda made: Case({}, query=_baseline(made)),
    f"{_ACTIONS}/RequestAction": lambda made: Case({}, {"findingId": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_ACTIONS}/ApproveAction": lambda made: _decided(made, planHash="0" * 64),
    f"{_ACTIONS}/RejectAction": lambda made: _decided(made, comment="no"),
    f"{_ACTIONS}/CancelAction": lambda made: _decided(made),
    f"{_ACTIONS}/WatchAction": lambda made: Case({"action_id": _executed(made)["actionId"]}),
    f"{_ACTIONS}/GetAction": lambda made: Case({"action_id": _executed(made)["actionId"]}),
    f"{_ACTIONS}/ListActions": lambda made: Case({}),
    f"{_ACTIONS}/ListReceipts": lambda made: Case({}),
    f"{_ACTIONS}/GetReceipt": lambda made: Case({"receipt_id": _receipt(made)}),
    f"{_ACTIONS}/GetLedger": lambda made: Case({}),
    f"{_AUDIT}/ListEvents": lambda made: Case({}),
    f"{_AUDIT}/GetEvent": lambda made: Case({"event_id": _event(made)}),
    f"{_AUDIT}/GetEventProof": lambda made: Case({"event_id": _event(made)}),
    f"{_EVIDENCE}/StartEvidenceExport": lambda made: Case({}, dict(_NO_TIME), answer=(400, "FIELD_INVALID")),
    f"{_EVIDENCE}/GetEvidenceExport": lambda made: Case({"export_id": _export(made)}),
    f"{_EVIDENCE}/ListEvidenceExports": lambda made: Case({}),
    f"{_EVIDENCE}/DownloadEvidence": lambda made: Case({"export_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_AUDIT}/GetCheckpoint": lambda made: Case({}),
    f"{_AUDIT}/GetOrganizationHead": lambda made: _published(made),
    f"{_AUDIT}/GetLogCheckpoint": lambda made: Case({}),
    f"{_AUDIT}/GetLogTile": lambda made: Case({"tile": "0/000.p/1"}),
    f"{_AUDIT}/GetConsistencyProof": lambda made: Case({}, query={"fromSize": "1", "toSize": "2"}),
    f"{_ERASURES}/RequestErasure": lambda made: Case(
        {}, {"subject": f"user:{uuid4()}", "reason": "case 1"}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ERASURES}/ApproveErasure": lambda made: Case(
        {"erasure_id": str(uuid4())}, {"subject": f"user:{uuid4()}"}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ERASURES}/RejectErasure": lambda made: Case(
        {"erasure_id": str(uuid4())}, {"comment": "no"}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ERASURES}/ListErasures": lambda made: Case({}),
    f"{_ERASURES}/PlaceLegalHold": lambda made: Case({}, {"subject": f"user:{uuid4()}", "reason": "case 1"}),
    f"{_ERASURES}/ReleaseLegalHold": lambda made: Case(
        {"hold_id": str(uuid4())}, {"reason": "over"}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_ERASURES}/ListLegalHolds": lambda made: Case({}),
}
