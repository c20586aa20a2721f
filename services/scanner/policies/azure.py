"""The least-privilege custom role of Azure: reading, of what the catalogue names, and nothing else.

It must never hold a data action, a key or a change: no action type is offered for Azure yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.scanner.detections.announced import AZURE, AZURE_DISCOVERY, reads

ROLE = "RecoupRead"
READS: tuple[str, ...] = reads(AZURE, AZURE_DISCOVERY)
_DESCRIPTION = "What Recoup reads: configuration and metrics, no data"


def role_definition(subscriptions: Sequence[str]) -> dict[str, Any]:
    """The custom role as `az role definition create` takes it."""
    scopes = [f"/subscriptions/{each}" for each in subscriptions] or ["/subscriptions/SUBSCRIPTION_ID"]
    return {
        "Name": ROLE,
        "IsCustom": True,
        "Description": _DESCRIPTION,
        "Actions": list(READS),
        "NotActions": [],
        "DataActions": [],
        "NotDataActions": [],
        "AssignableScopes": scopes,
    }


def terraform(subscriptions: Sequence[str]) -> str:
    """The role and its assignment to the application, subscription by subscription."""
    made = role_definition(subscriptions)
    scopes = json.dumps(made["AssignableScopes"])
    return (
        'variable "recoup_principal_id" {\n  type = string\n'
        '  description = "The object id of the application\'s service principal"\n}\n\n'
        f'resource "azurerm_role_definition" "recoup_read" {{\n  name = "{ROLE}"\n'
        f"  scope = {json.dumps(made['AssignableScopes'][0])}\n  description = {json.dumps(_DESCRIPTION)}\n"
        f"  assignable_scopes = {scopes}\n  permissions {{\n    actions = {_list(READS, 4)}\n  }}\n}}\n\n"
        f'resource "azurerm_role_assignment" "recoup_read" {{\n  for_each = toset({scopes})\n'
        "  scope = each.value\n  role_definition_id = azurerm_role_definition.recoup_read.role_definition_resource_id\n"
        "  principal_id = var.recoup_principal_id\n}\n"
    )


def bicep() -> str:
    """The role and its assignment in one subscription, to be deployed into each (`az deployment sub create`)."""
    actions = "\n".join(f"        '{each}'" for each in READS)
    return (
        "targetScope = 'subscription'\n\n@description('The object id of the application\\'s service principal')\n"
        "param recoupPrincipalId string\n\n"
        "resource recoupRead 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {\n"
        f"  name: guid(subscription().id, '{ROLE}')\n  properties: {{\n    roleName: '{ROLE}'\n"
        f"    description: '{_DESCRIPTION}'\n    type: 'CustomRole'\n    permissions: [\n      {{\n"
        f"        actions: [\n{actions}\n        ]\n        notActions: []\n      }}\n    ]\n"
        "    assignableScopes: [\n      subscription().id\n    ]\n  }\n}\n\n"
        "resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {\n"
        f"  name: guid(subscription().id, recoupPrincipalId, '{ROLE}')\n  properties: {{\n"
        "    roleDefinitionId: recoupRead.id\n    principalId: recoupPrincipalId\n"
        "    principalType: 'ServicePrincipal'\n  }\n}\n"
    )


def _list(values: Sequence[str], indent: int) -> str:
    inner = "".join(f"{' ' * (indent + 2)}{json.dumps(each)},\n" for each in values)
    return f"[\n{inner}{' ' * indent}]"
