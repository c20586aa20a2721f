"""Signs webhooks with the one key that a grant names, as Standard Webhooks 1.0 has it.

The key never leaves this process. Which key it is, and whose, the grant says; what is sealed for anything else doesn't
open.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.errors import Denied, Reason, WrongState, invalid_field
from services._mesh.kms.interface import EnvelopeBroken, SecretContext
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener

DELIVER, SIGN, PURPOSE = "deliver_webhook", "sign", "webhook.key"
# What receivers tolerate (Standard Webhooks 1.0, "Verifying the timestamp").
_TOLERANCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Message:
    """What is signed: the headers webhook-id and webhook-timestamp (whole seconds), and the body as it is sent."""

    webhook_id: str
    timestamp: int
    body: bytes


class Signer:
    """The broker's webhook keys, for signing alone."""

    def __init__(self, opener: Opener, used: UsedGrants, clock: Clock) -> None:
        self._opener, self._used, self._clock = opener, used, clock

    async def sign_webhook(self, sealed: bytes, message: Message) -> str:
        """The signature as webhook-signature lists it.

        Raises Denied (GRANT_INVALID), Conflict (GRANT_PREDATES_BROKER), Invalid, WrongState (CREDENTIAL_UNOPENABLE),
        Unavailable (KMS_UNAVAILABLE, KMS_KEY_UNUSABLE).
        """
        grant = current().grant
        if grant is None or grant.kind != DELIVER or grant.credential is None or grant.credential.purpose != SIGN:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for signing a webhook.")
        now = self._clock.wall_seconds()
        if abs(now - message.timestamp) > _TOLERANCE_SECONDS:
            raise invalid_field("timestamp", f"must be within {_TOLERANCE_SECONDS} s of now: receivers take no other")
        self._used.use(grant.jti, grant.issued_at, now)
        key_id = grant.credential.credential_id
        try:
            key = await self._opener.open(sealed, SecretContext(grant.organization_id, key_id, PURPOSE))
        except EnvelopeBroken:
            raise WrongState(
                Reason.ERROR_REASON_CREDENTIAL_UNOPENABLE,
                "The webhook key doesn't open. Rotate it.",
                {"credential_id": str(key_id)},
            ) from None
        try:
            return signature(key, message)
        finally:
            key[:] = bytes(len(key))


def signature(key: bytearray, message: Message) -> str:
    """HMAC-SHA256 over id, time and body, with full stops between."""
    signed = b".".join((message.webhook_id.encode(), str(message.timestamp).encode(), message.body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
