"""Planned roles as a customer installs them: JSON, Terraform, or a CloudFormation template."""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Sequence

from services.scanner.policies.aws import RolePlan


class PolicyFormat(enum.StrEnum):
    """How roles are written; the names are those of `recoup.scanner.v1.PolicyFormat`."""

    JSON = "JSON"
    TERRAFORM = "TERRAFORM"
    CLOUDFORMATION = "CLOUDFORMATION"


def render(roles: Sequence[RolePlan], style: PolicyFormat) -> str:
    """The roles as one text."""
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
