"""That a credential past its organization's hard limit opens nothing, whoever grants it. Pure."""

from __future__ import annotations

from datetime import datetime

from services._mesh.errors import Reason, Unavailable
from services._mesh.grants import CredentialScope


def require_young(scope: CredentialScope, now: datetime) -> None:
    """Raises Unavailable (CREDENTIAL_TOO_OLD) from the moment on that the grant names; `now` is the injected clock's.

    It is no final refusal: the job waits, and goes on with the credential that takes this one's place.
    """
    if scope.refused_from is not None and now >= scope.refused_from:
        raise Unavailable(
            Reason.ERROR_REASON_CREDENTIAL_TOO_OLD,
            "The credential is older than its organization allows. Rotate it; what waits for it goes on then.",
            {"credential_id": str(scope.credential_id), "refused_from": scope.refused_from.isoformat()},
        )
