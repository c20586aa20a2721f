"""The provider's token service: AWS STS, in bounded threads and with deadlines."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services._mesh.aws import Failure, classify, client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.threads import BoundedThreads
from services.broker.model.base_key import BaseKey

SESSION_SECONDS = 900
STS_DEADLINE_SECONDS = 20.0
_STS_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class CloudSession:
    """A short-lived session of an assumed role."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class AssumeFailed(Exception):
    """The role couldn't be assumed: what that means, and the cloud's code."""

    def __init__(self, failure: Failure, code: str) -> None:
        super().__init__(f"{failure.value}: {code}")
        self.failure, self.code = failure, code


class Sts:
    """Assumes roles with a base key."""

    def __init__(self, threads: BoundedThreads, settings: AwsSettings) -> None:
        self._threads, self._settings = threads, settings

    async def assume(
        self, base: BaseKey, role_arn: str, external_id: str | None, identity: str, policy: str | None
    ) -> CloudSession:
        """A session of `role_arn`. `identity` is what the cloud's own trail shows. Raises AssumeFailed."""
        arguments: dict[str, Any] = {
            "RoleArn": role_arn,
            "RoleSessionName": identity[:64],
            "SourceIdentity": identity[:64],
            "DurationSeconds": SESSION_SECONDS,
        }
        if external_id is not None:
            arguments["ExternalId"] = external_id
        if policy is not None:
            arguments["Policy"] = policy
        try:
            answer = await self._threads.run(STS_DEADLINE_SECONDS, self._call, base, arguments)
        except Exception as error:  # classify() raises again what isn't the cloud's.
            raise AssumeFailed(*classify(error)) from None
        found = answer["Credentials"]
        return CloudSession(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], found["Expiration"])

    def _call(self, base: BaseKey, arguments: dict[str, Any]) -> dict[str, Any]:
        # Without a key it is the broker's own principal, as the machine knows it; the external id is what keeps one
        # organization from naming another one's role.
        has_key = bool(base.access_key_id)
        credentials = AwsCredentials(base.access_key_id, base.secret_access_key, "") if has_key else None
        answer: dict[str, Any] = client("sts", _STS_REGION, self._settings, credentials).assume_role(**arguments)
        return answer
