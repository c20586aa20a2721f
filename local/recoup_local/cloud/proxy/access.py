"""Decides whether a principal may make a call: keys, signature, expiry, denied regions, policies, trust.

It holds what AWS holds and moto doesn't. Admin keys (the seeder's own) bypass policies, not signatures.
Stricter than AWS in one point: AssumeRole within an account needs the caller's own policy as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from recoup_local.cloud.proxy import answers
from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.identities import Identities, Principal, policy_document_error
from recoup_local.cloud.proxy.policies import Context, allows, parse_policy, trusts
from recoup_local.cloud.proxy.resources import UNCONDITIONAL, needed_permissions
from recoup_local.cloud.proxy.signature import signed_with
from recoup_local.cloud.proxy.wire import Answer, Request
from recoup_local.cloud.proxy.xmltree import parse_answer, text_of

MAX_SESSION_POLICY_CHARS = 2048
_GLOBAL_SERVICES = frozenset({"sts", "iam"})
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}")


@dataclass
class Access:
    """Authentication and authorization over the observed identities; `denied_regions` as by an SCP."""

    identities: Identities
    denied_regions: set[tuple[str, str]] = field(default_factory=set)

    def authenticate(self, request: Request, call: Call) -> Principal | Answer:
        """Who signed the request, or the refusal that AWS gives."""
        wall_now = datetime.now(UTC)
        principal = self.identities.find(call.access_key_id)
        if principal is None:
            return answers.unknown_key(call)
        if principal.session_token and request.header("x-amz-security-token") != principal.session_token:
            return answers.unknown_key(call)
        if not signed_with(request, principal.secret, wall_now):
            return answers.wrong_signature(call)
        if principal.expires_at is not None and wall_now >= principal.expires_at:
            return answers.expired(call)
        return principal

    def needs_tags(self, principal: Principal) -> bool:
        """Whether judging this principal needs the tags of the resource acted on."""
        policies = self.identities.policies_of(principal)
        policies += [principal.session_policy] if principal.session_policy else []
        return any(policy.mentions_resource_tags() for policy in policies)

    def authorize(self, principal: Principal, call: Call, tags: dict[str, str]) -> Answer | None:
        """None if the call may be made, else the refusal. `tags`: those of the resource acted on."""
        if self._is_other_owner(call):
            return answers.error_answer(call, 403, "AccessDenied", "Access Denied")
        if principal.kind == "admin" or call.name in UNCONDITIONAL:
            return None
        if call.service not in _GLOBAL_SERVICES and (principal.account, call.region) in self.denied_regions:
            return answers.denied(call, principal.arn, "with an explicit deny in a service control policy")
        context = _context(principal, call, tags)
        identity = self.identities.policies_of(principal)
        for action, resource in needed_permissions(call, principal.account):
            if not allows(identity, action, resource, context):
                reason = f"on resource: {resource} because no identity-based policy allows the {action} action"
                return answers.denied(call, principal.arn, reason)
            session = principal.session_policy
            if session is not None and not allows([session], action, resource, context):
                reason = f"on resource: {resource} because no session policy allows the {action} action"
                return answers.denied(call, principal.arn, reason)
        return self._foreign_bucket(principal, call)

    def check_assume_role(self, principal: Principal, call: Call) -> Answer | None:
        """None if the role's trust policy lets the (already authorized) caller in, else the refusal."""
        if problem := _assume_role_problem(call):
            return answers.error_answer(call, 400, *problem)
        role = self.identities.find_role(call.params["RoleArn"])
        reason = f"on resource: {call.params['RoleArn']}"
        if role is None or role.trust is None:
            return answers.denied(call, principal.arn, reason)
        names = (principal.arn, f"arn:aws:iam::{principal.account}:root", principal.account)
        context = _context(principal, call, {})
        for action, _ in needed_permissions(call, principal.account):
            if principal.kind != "admin" and not trusts(role.trust, action, names, context):
                return answers.denied(call, principal.arn, reason)
        if int(call.params.get("DurationSeconds", "3600")) > role.max_session_seconds:
            message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            return answers.error_answer(call, 400, "ValidationError", message)
        return None

    def remember_session(self, call: Call, answer: Answer) -> Principal:
        """Registers the session that a successful AssumeRole answer carries."""
        root, _ = parse_answer(answer)
        role_arn = call.params["RoleArn"]
        policy = call.params.get("Policy")
        session = Principal(
            kind="session",
            account=role_arn.split(":")[4],
            arn=text_of(root, ".//AssumedRoleUser/Arn"),
            name=role_arn.rpartition("/")[2],
            access_key_id=text_of(root, ".//Credentials/AccessKeyId"),
            secret=text_of(root, ".//Credentials/SecretAccessKey"),
            session_token=text_of(root, ".//Credentials/SessionToken"),
            session_name=call.params["RoleSessionName"],
            source_identity=call.params.get("SourceIdentity", ""),
            session_policy=parse_policy(policy) if policy else None,
            expires_at=datetime.now(UTC) + timedelta(seconds=int(call.params.get("DurationSeconds", "3600"))),
        )
        self.identities.add_session(session)
        return session

    def _is_other_owner(self, call: Call) -> bool:
        """Whether the bucket isn't of the account that the caller expects; S3 refuses it to whoever asks."""
        owner = self.identities.bucket_owners.get(call.params.get("Bucket", ""))
        return call.service == "s3" and owner not in (None, call.params.get("ExpectedBucketOwner", owner))

    def _foreign_bucket(self, principal: Principal, call: Call) -> Answer | None:
        """Another account's bucket needs a bucket policy as well; none is emulated, so it is refused."""
        bucket = call.params.get("Bucket", "")
        owner = self.identities.bucket_owners.get(bucket, principal.account)
        if call.service == "s3" and owner != principal.account:
            return answers.error_answer(call, 403, "AccessDenied", "Access Denied")
        return None


def _context(principal: Principal, call: Call, tags: dict[str, str]) -> Context:
    context = {
        "aws:RequestedRegion": call.region,
        "aws:PrincipalAccount": principal.account,
        "aws:PrincipalArn": principal.arn,
    }
    if principal.source_identity:
        context["aws:SourceIdentity"] = principal.source_identity
    if call.name == "sts:AssumeRole":
        named = {"ExternalId": "sts:ExternalId", "RoleSessionName": "sts:RoleSessionName"}
        named["SourceIdentity"] = "sts:SourceIdentity"
        context |= {key: call.params[name] for name, key in named.items() if name in call.params}
    if call.service == "s3" and "prefix" in call.params:
        context["s3:prefix"] = call.params["prefix"]
    for key, value in tags.items():
        context |= {f"aws:ResourceTag/{key}": value, f"ec2:ResourceTag/{key}": value}
    for key, value in call.params.items():
        if key.startswith("TagSpecification.") and key.endswith(".ResourceType"):
            # On the tagging that the creation implies; a condition on the creation itself would go by it too.
            context["ec2:CreateAction"] = call.action
        if key.startswith("TagSpecification.") and key.endswith(".Key"):
            context[f"aws:RequestTag/{value}"] = call.params.get(key.removesuffix("Key") + "Value", "")
    return context


def _assume_role_problem(call: Call) -> tuple[str, str] | None:
    """(error code, message) of a malformed AssumeRole request, or None."""
    for name in ("RoleArn", "RoleSessionName"):
        if name not in call.params:
            return (
                "ValidationError",
                f"Value null at '{name}' failed to satisfy constraint: must not be null",
            )
    if not _SESSION_NAME.fullmatch(call.params["RoleSessionName"]):
        return ("ValidationError", "Value at 'roleSessionName' failed to satisfy constraint")
    duration = call.params.get("DurationSeconds", "3600")
    if not duration.isdecimal() or not 900 <= int(duration) <= 43200:
        return ("ValidationError", "Value at 'durationSeconds' must be between 900 and 43200")
    # AWS packs the policy; its plain-text limit is 2,048 characters.
    if len(call.params.get("Policy", "")) > MAX_SESSION_POLICY_CHARS:
        return ("PackedPolicyTooLarge", "Packed size of session policy exceeds the allowed limit")
    if problem := policy_document_error(call):
        return ("MalformedPolicyDocument", problem)
    return None
