"""The least-privilege custom role of Google Cloud: reading, of what the catalogue names, and nothing else.

It must never hold a permission to read data, to act as a service account, or to change anything: no action type is
offered for Google Cloud yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.scanner.detections.announced import GCP, GCP_DISCOVERY, reads

ROLE = "RecoupRead"
READS: tuple[str, ...] = reads(GCP, GCP_DISCOVERY)
_TITLE, _DESCRIPTION = "Recoup, reading", "What Recoup reads: configuration and metrics, no data"


def role_definition() -> dict[str, Any]:
    """The custom role as `gcloud iam roles create RecoupRead --file` takes it, for each project."""
    return {"title": _TITLE, "description": _DESCRIPTION, "stage": "GA", "includedPermissions": list(READS)}


def yaml() -> str:
    """The same as YAML, which `gcloud` takes too. Nothing in it needs quotes but the description's colon."""
    permissions = "".join(f"- {each}\n" for each in READS)
    return f"title: {_TITLE}\ndescription: {json.dumps(_DESCRIPTION)}\nstage: GA\nincludedPermissions:\n{permissions}"


def terraform(projects: Sequence[str]) -> str:
    """The role and who holds it, project by project."""
    named = json.dumps(list(projects) or ["PROJECT_ID"])
    permissions = "".join(f"    {json.dumps(each)},\n" for each in READS)
    return (
        'variable "recoup_service_account" {\n  type = string\n  description = "Its e-mail address"\n}\n\n'
        f'resource "google_project_iam_custom_role" "recoup_read" {{\n  for_each = toset({named})\n'
        f'  project = each.value\n  role_id = "{ROLE}"\n  title = {json.dumps(_TITLE)}\n'
        f"  description = {json.dumps(_DESCRIPTION)}\n  permissions = [\n{permissions}  ]\n}}\n\n"
        'resource "google_project_iam_member" "recoup_read" {\n'
        "  for_each = google_project_iam_custom_role.recoup_read\n  project = each.key\n  role = each.value.id\n"
        '  member = "serviceAccount:${var.recoup_service_account}"\n}\n'
    )
