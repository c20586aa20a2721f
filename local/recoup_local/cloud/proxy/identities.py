"""Remembers who exists: users and their keys, roles with their policies, assumed sessions, bucket owners.

It learns from successful answers that pass through the proxy and evaluates nothing; see access.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.policies import MalformedPolicyError, Policy, parse_policy
from recoup_local.cloud.proxy.wire import Answer
from recoup_local.cloud.proxy.xmltree import parse_answer, text_of

TextOf = Callable[[str], str]
_ROLE_ARN = re.compile(r"arn:aws:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]+)$")


@dataclass(frozen=True)
class Principal:
    """Who signed a request. `expires_at` (wall clock) and the session fields are set for sessions only."""

    kind: Literal["admin", "user", "session"]
    account: str
    arn: str
    name: str
    access_key_id: str
    secret: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    session_name: str = ""
    source_identity: str = ""
    session_policy: Policy | None = None
    expires_at: datetime | None = None


@dataclass
class IamEntity:
    """A user or a role with its identity policies, inline by name and attached by ARN."""

    arn: str
    inline: dict[str, Policy] = field(default_factory=dict)
    attached: set[str] = field(default_factory=set)
    trust: Policy | None = None
    max_session_seconds: int = 3600


class Identities:
    """The registry of one emulated cloud; admin keys are given, everything else is observed."""

    def __init__(self, admins: dict[str, Principal]) -> None:
        self._principals: dict[str, Principal] = dict(admins)
        self._users: dict[tuple[str, str], IamEntity] = {}
        self._roles: dict[tuple[str, str], IamEntity] = {}
        self._managed: dict[str, Policy] = {}
        self._inactive: set[str] = set()
        self.bucket_owners: dict[str, str] = {}

    def find(self, access_key_id: str) -> Principal | None:
        """Who an access key id belongs to; None for unknown, deleted and inactive keys."""
        return None if access_key_id in self._inactive else self._principals.get(access_key_id)

    def find_role(self, role_arn: str) -> IamEntity | None:
        """The role of an ARN, if it exists."""
        found = _ROLE_ARN.match(role_arn)
        return self._roles.get((found.group(1), found.group(2))) if found else None

    def policies_of(self, principal: Principal) -> list[Policy]:
        """The identity policies (inline and attached) of a user or of a session's role."""
        table = self._roles if principal.kind == "session" else self._users
        entity = table.get((principal.account, principal.name))
        if entity is None:
            return []
        attached = [self._managed[arn] for arn in entity.attached if arn in self._managed]
        return [*entity.inline.values(), *attached]

    def add_session(self, session: Principal) -> None:
        """Remembers what AssumeRole handed out."""
        self._principals[session.access_key_id] = session

    def expire_session(self, access_key_id: str) -> bool:
        """Lets a session expire now (the shortest that STS gives is 15 minutes); False if it is none."""
        session = self._principals.get(access_key_id)
        if session is None or session.kind != "session":
            return False
        self._principals[access_key_id] = replace(session, expires_at=datetime.now(UTC))
        return True

    def observe(self, call: Call, account: str, answer: Answer) -> None:
        """Learns from a successful mutating call on IAM or S3."""
        if call.name == "s3:CreateBucket":
            self.bucket_owners.setdefault(call.params["Bucket"], account)
        elif call.name == "s3:DeleteBucket":
            self.bucket_owners.pop(call.params["Bucket"], None)
        elif call.service == "iam" and call.mutating:
            root, _ = parse_answer(answer)
            self._observe_users(call, account, lambda path: text_of(root, path))
            self._observe_roles(call, account, lambda path: text_of(root, path))
            self._observe_policies(call, account)
            if call.action == "CreatePolicy":
                self._managed[text_of(root, ".//Arn")] = parse_policy(call.params["PolicyDocument"])

    def _observe_users(self, call: Call, account: str, text: TextOf) -> None:
        name = call.params.get("UserName", "")
        key_id = call.params.get("AccessKeyId", "")
        match call.action:
            case "CreateUser":
                self._users[(account, name)] = IamEntity(text(".//Arn"))
            case "DeleteUser":
                self._users.pop((account, name), None)
            case "CreateAccessKey":
                user = self._users[(account, name)]
                key = text(".//AccessKeyId")
                self._principals[key] = Principal("user", account, user.arn, name, key, text(".//SecretAccessKey"))
            case "UpdateAccessKey" if call.params.get("Status") == "Inactive":
                self._inactive.add(key_id)
            case "UpdateAccessKey":
                self._inactive.discard(key_id)
            case "DeleteAccessKey":
                self._principals.pop(key_id, None)

    def _observe_roles(self, call: Call, account: str, text: TextOf) -> None:
        key = (account, call.params.get("RoleName", ""))
        match call.action:
            case "CreateRole":
                trust = parse_policy(call.params["AssumeRolePolicyDocument"])
                longest = int(call.params.get("MaxSessionDuration", "3600"))
                self._roles[key] = IamEntity(text(".//Arn"), trust=trust, max_session_seconds=longest)
            case "UpdateAssumeRolePolicy":
                self._roles[key].trust = parse_policy(call.params["PolicyDocument"])
            case "DeleteRole":
                self._roles.pop(key, None)

    def _observe_policies(self, call: Call, account: str) -> None:
        if call.action.endswith("RolePolicy") and "RoleName" in call.params:
            entity = self._roles.get((account, call.params["RoleName"]))
        elif call.action.endswith("UserPolicy"):
            entity = self._users.get((account, call.params["UserName"]))
        else:
            return
        if entity is None:
            return
        verb = re.match(r"Put|Delete|Attach|Detach", call.action)
        match verb.group(0) if verb else "":
            case "Put":
                entity.inline[call.params["PolicyName"]] = parse_policy(call.params["PolicyDocument"])
            case "Delete":
                entity.inline.pop(call.params["PolicyName"], None)
            case "Attach":
                entity.attached.add(call.params["PolicyArn"])
            case "Detach":
                entity.attached.discard(call.params["PolicyArn"])


def policy_document_error(call: Call) -> str | None:
    """Why the policy document in an IAM or STS call is malformed, or None if it is fine or absent."""
    for name in ("PolicyDocument", "AssumeRolePolicyDocument", "Policy"):
        if name in call.params and call.service in ("iam", "sts"):
            try:
                parse_policy(call.params[name])
            except MalformedPolicyError as error:
                return str(error)
    return None
