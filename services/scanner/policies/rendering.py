"""Planned roles as a customer installs them: JSON, Terraform, or what the cloud's own tool takes."""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Mapping, Sequence

from services._mesh.errors import invalid_field
from services.scanner.model.cloud import Provider
from services.scanner.policies import azure, gcp
from services.scanner.policies.aws import RolePlan


class PolicyFormat(enum.StrEnum):
    """How roles are written; the names are those of `recoup.scanner.v1.PolicyFormat`."""

    JSON = "JSON"
    TERRAFORM = "TERRAFORM"
    CLOUDFORMATION = "CLOUDFORMATION"
    BICEP = "BICEP"
    YAML = "YAML"


_FORMATS: Mapping[Provider, tuple[PolicyFormat, ...]] = {
    Provider.AWS: (PolicyFormat.JSON, PolicyFormat.TERRAFORM, PolicyFormat.CLOUDFORMATION),
    Provider.AZURE: (PolicyFormat.JSON, PolicyFormat.TERRAFORM, PolicyFormat.BICEP),
    Provider.GCP: (PolicyFormat.JSON, PolicyFormat.TERRAFORM, PolicyFormat.YAML),
}


def require_format(provider: Provider, style: PolicyFormat) -> None:
    """Raises Invalid for a format that isn't one of the cloud's tools'."""
    if style not in _FORMATS[provider]:
        known = " or ".join(each.value for each in _FORMATS[provider])
        raise invalid_field("format", f"must be {known} for {provider.brand}")


def render_reading(provider: Provider, scopes: Sequence[str], style: PolicyFormat) -> tuple[str, str, str]:
    """The role for reading of another cloud than AWS: its name, what it may do as JSON, and the whole as one text."""
    role = azure.role_definition(scopes) if provider is Provider.AZURE else gcp.role_definition()
    if style is PolicyFormat.TERRAFORM:
        document = azure.terraform(scopes) if provider is Provider.AZURE else gcp.terraform(scopes)
    elif style is PolicyFormat.JSON:
        document = _json(role)
    else:
        document = azure.bicep() if provider is Provider.AZURE else gcp.yaml()
    return azure.ROLE if provider is Provider.AZURE else gcp.ROLE, json.dumps(role), document


def render(roles: Sequence[RolePlan], style: PolicyFormat) -> str:
    """AWS's roles as one text."""
    if style is PolicyFormat.TERRAFORM:
        return "\n".join(_terraform(role) for role in roles)
    if style is PolicyFormat.CLOUDFORMATION:
        return _json(
            {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {r.name: _cloudformation(r) for r in roles}}
        )
    return _json([{"RoleName": r.name, "AssumeRolePolicyDocument": r.trust_policy, "Policy": r.policy} for r in roles])


def _terraform(role: RolePlan) -> str:
    """Two resources. JSON is an expression of Terraform's own language, so that nothing needs escaping but its
    interpolation, which no policy of ours has.
    """
    label = f"recoup_{role.use}"
    trust, policy = (textwrap.indent(_json(each).rstrip(), "  ").lstrip() for each in (role.trust_policy, role.policy))
    return (
        f'resource "aws_iam_role" "{label}" {{\n  name = "{role.name}"\n'
        f"  assume_role_policy = jsonencode({trust})\n}}\n\n"
        f'resource "aws_iam_role_policy" "{label}" {{\n  name = "{role.name}Access"\n'
        f"  role = aws_iam_role.{label}.id\n  policy = jsonencode({policy})\n}}\n"
    )


def _cloudformation(role: RolePlan) -> dict[str, object]:
    policy = {"PolicyName": f"{role.name}Access", "PolicyDocument": role.policy}
    properties = {"RoleName": role.name, "AssumeRolePolicyDocument": role.trust_policy, "Policies": [policy]}
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"
