"""Writes deploy/kms: what each process's identity may do with a KEK, for each key service; `--check` compares instead.

An API process may wrap and nothing else; the broker alone may unwrap, and wraps too, to seal under a newer KEK what it
unwrapped. What stands in ${…} is the installation's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kms"
# The processes that seal, and the one that opens; everybody else has no right to any KEK.
# `recoup backup` wraps, to find out before a restore whether each KEK is still there.
SEALS: Sequence[str] = ("scanner", "backup")
OPENS = "broker"
ORGANIZATION = "kms:EncryptionContext:recoup:organization"
# All that an envelope's binding has (Binding.pairs): none may be left out, none added.
PAIRS = ("recoup:organization", "recoup:credential", "recoup:purpose", "recoup:kek")
_WRAP = {"aws": "kms:Encrypt", "azure": "keys/wrap/action", "google": "cloudkms.cryptoKeyVersions.useToEncrypt"}
_UNWRAP = {"aws": "kms:Decrypt", "azure": "keys/unwrap/action", "google": "cloudkms.cryptoKeyVersions.useToDecrypt"}
_KEEP = (
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:GetKeyPolicy",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
)


def documents() -> Mapping[str, Any]:
    """Each file's content by its name under deploy/kms."""
    made: dict[str, Any] = {"aws/key_policy.json": _key_policy()}
    for process in (*SEALS, OPENS):
        does = [_WRAP, _UNWRAP] if process == OPENS else [_WRAP]
        made[f"aws/{process}.json"] = _identity_policy([each["aws"] for each in does])
        made[f"azure/{process}.json"] = _azure_role(process, [each["azure"] for each in does])
        made[f"google/{process}.json"] = _google_role(process, [each["google"] for each in does])
    return made


def _key_policy() -> dict[str, Any]:
    """Of one organization's key. It doesn't leave its rights to the account's own policies, as AWS's default does."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow("Keep", "${KEY_KEEPER_ROLE_ARN}", _KEEP),
            *(_allow(f"Seal{name.title()}", _role(name), [_WRAP["aws"]], bound=True) for name in SEALS),
            _allow("Open", _role(OPENS), [_WRAP["aws"], _UNWRAP["aws"]], bound=True),
            {
                "Sid": "NobodyElseOpens",
                "Effect": "Deny",
                "Principal": "*",
                "Action": ["kms:CreateGrant", "kms:Decrypt", "kms:ReEncryptFrom"],
                "Resource": "*",
                "Condition": {"ArnNotEquals": {"aws:PrincipalArn": _role(OPENS)}},
            },
        ],
    }


def _allow(sid: str, role: str, actions: Sequence[str], *, bound: bool = False) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": role},
        "Action": sorted(actions),
        "Resource": "*",
    }
    if bound:
        statement["Condition"] = {
            "StringEquals": {ORGANIZATION: "${ORGANIZATION_ID}"},
            "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": list(PAIRS)},
            "Null": {f"kms:EncryptionContext:{name}": "false" for name in PAIRS},
        }
    return statement


def _role(process: str) -> str:
    return f"${{{process.upper()}_ROLE_ARN}}"


def _identity_policy(actions: Sequence[str]) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": "arn:aws:kms:${REGION}:${ACCOUNT_ID}:key/*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _azure_role(process: str, actions: Sequence[str]) -> dict[str, Any]:
    return {
        "Name": f"Recoup {process}",
        "IsCustom": True,
        "Description": f"What Recoup's {process} may do with organizations' KEKs.",
        "Actions": [],
        "DataActions": [f"Microsoft.KeyVault/vaults/{action}" for action in actions],
        "AssignableScopes": ["/subscriptions/${SUBSCRIPTION_ID}"],
    }


def _google_role(process: str, permissions: Sequence[str]) -> dict[str, Any]:
    return {
        "title": f"Recoup {process}",
        "description": f"What Recoup's {process} may do with organizations' KEKs.",
        "stage": "GA",
        "includedPermissions": sorted(permissions),
    }


def main() -> int:
    """Write the files, or compare them. 1 where one is stale, missing or too many."""
    wanted = {name: json.dumps(document, indent=2) + "\n" for name, document in documents().items()}
    if "--check" in sys.argv[1:]:
        found = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*.json")}
        return int(found != wanted)
    for name, text in wanted.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
