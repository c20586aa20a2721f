"""Generated from the protos: the services of each process."""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor

from recoup.actions.v1 import actions_service_pb2
from recoup.audit.v1 import audit_service_pb2
from recoup.audit.v1 import erasure_service_pb2
from recoup.audit.v1 import evidence_service_pb2
from recoup.audit.v1 import signer_service_pb2
from recoup.broker.v1 import broker_service_pb2
from recoup.broker.v1 import failure_service_pb2
from recoup.identity.v1 import browser_service_pb2
from recoup.identity.v1 import credential_service_pb2
from recoup.identity.v1 import elevation_service_pb2
from recoup.identity.v1 import exception_service_pb2
from recoup.identity.v1 import identity_service_pb2
from recoup.identity.v1 import invitation_service_pb2
from recoup.identity.v1 import operator_service_pb2
from recoup.identity.v1 import organization_service_pb2
from recoup.identity.v1 import origin_service_pb2
from recoup.identity.v1 import person_service_pb2
from recoup.identity.v1 import posture_service_pb2
from recoup.identity.v1 import review_service_pb2
from recoup.identity.v1 import role_service_pb2
from recoup.identity.v1 import scim_service_pb2
from recoup.identity.v1 import sso_service_pb2
from recoup.identity.v1 import token_service_pb2
from recoup.pricing.v1 import bill_service_pb2
from recoup.pricing.v1 import pricing_service_pb2
from recoup.scanner.v1 import connecting_service_pb2
from recoup.scanner.v1 import kek_service_pb2
from recoup.scanner.v1 import key_service_pb2
from recoup.scanner.v1 import rotation_service_pb2
from recoup.scanner.v1 import scanner_service_pb2
from recoup.scanner.v1 import sealing_service_pb2
from recoup.scanner.v1 import secrets_service_pb2

SERVICES: dict[str, tuple[ServiceDescriptor, ...]] = {
    "actions": (
        actions_service_pb2.DESCRIPTOR.services_by_name["ActionsService"],
    ),
    "audit": (
        audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
        erasure_service_pb2.DESCRIPTOR.services_by_name["ErasureService"],
        evidence_service_pb2.DESCRIPTOR.services_by_name["EvidenceService"],
    ),
    "audit-signer": (
        signer_service_pb2.DESCRIPTOR.services_by_name["SignerService"],
    ),
    "broker": (
        broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"],
        failure_service_pb2.DESCRIPTOR.services_by_name["FailureService"],
    ),
    "identity": (
        browser_service_pb2.DESCRIPTOR.services_by_name["BrowserService"],
        credential_service_pb2.DESCRIPTOR.services_by_name["CredentialService"],
        elevation_service_pb2.DESCRIPTOR.services_by_name["ElevationService"],
        exception_service_pb2.DESCRIPTOR.services_by_name["ExceptionService"],
        identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"],
        invitation_service_pb2.DESCRIPTOR.services_by_name["InvitationService"],
        operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"],
        organization_service_pb2.DESCRIPTOR.services_by_name["OrganizationService"],
        origin_service_pb2.DESCRIPTOR.services_by_name["OriginService"],
        person_service_pb2.DESCRIPTOR.services_by_name["PersonService"],
        posture_service_pb2.DESCRIPTOR.services_by_name["PostureService"],
        review_service_pb2.DESCRIPTOR.services_by_name["ReviewService"],
        role_service_pb2.DESCRIPTOR.services_by_name["RoleService"],
        scim_service_pb2.DESCRIPTOR.services_by_name["ScimService"],
        sso_service_pb2.DESCRIPTOR.services_by_name["SsoService"],
        token_service_pb2.DESCRIPTOR.services_by_name["TokenService"],
    ),
    "pricing": (
        bill_service_pb2.DESCRIPTOR.services_by_name["BillService"],
        pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"],
    ),
    "scanner": (
        connecting_service_pb2.DESCRIPTOR.services_by_name["ConnectingService"],
        kek_service_pb2.DESCRIPTOR.services_by_name["KekService"],
        key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
        rotation_service_pb2.DESCRIPTOR.services_by_name["RotationService"],
        scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"],
        sealing_service_pb2.DESCRIPTOR.services_by_name["SealingService"],
        secrets_service_pb2.DESCRIPTOR.services_by_name["SecretsService"],
    ),
}
