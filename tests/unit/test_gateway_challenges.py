"""What `WWW-Authenticate` says of a refusal: RFC 6750's errors, and RFC 9470's where a second factor would help."""

from __future__ import annotations

import pytest

from services._mesh.errors import Denied, Exhausted, NotFound, Problem, Reason, Unauthenticated
from services.gateway.problems import challenge, status_of


@pytest.mark.parametrize(
    ("problem", "status", "said"),
    [
        (Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_MISSING, "Send one."), 401, 'Bearer realm="recoup"'),
        (
            Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "It has expired."),
            401,
            'Bearer realm="recoup", error="invalid_token", error_description="It has expired."',
        ),
        (
            Denied(Reason.ERROR_REASON_PERMISSION_MISSING, "No.", {"permission": "identity.member.read"}),
            403,
            'Bearer realm="recoup", error="insufficient_scope", error_description="No.", scope="identity.member.read"',
        ),
        (
            Denied(Reason.ERROR_REASON_ASSURANCE_TOO_LOW, "More.", {"required_aal": "2"}),
            403,
            'Bearer realm="recoup", error="insufficient_user_authentication", error_description="More.", '
            'acr_values="aal2"',
        ),
        (
            Denied(Reason.ERROR_REASON_REAUTHENTICATION_REQUIRED, "Again.", {"max_auth_age_seconds": "900"}),
            403,
            'Bearer realm="recoup", error="insufficient_user_authentication", error_description="Again.", '
            'max_age="900"',
        ),
        (Denied(Reason.ERROR_REASON_REQUESTER_IS_APPROVER, "Not you."), 403, ""),
        (NotFound("scan"), 404, ""),
        (Exhausted(Reason.ERROR_REASON_RATE_LIMITED, "Later."), 429, ""),
    ],
    ids=lambda each: each.reason_name if isinstance(each, Problem) else "",
)
def test_a_refusal_says_what_would_help(problem: Problem, status: int, said: str) -> None:
    assert (status_of(problem), challenge(problem)) == (status, said)


def test_a_challenge_holds_nothing_that_ends_its_quotes_or_its_line() -> None:
    hostile = 'x" , realm="evil\\\r\nset-cookie: a=b\x00é'
    said = challenge(Denied(Reason.ERROR_REASON_PERMISSION_MISSING, hostile, {"permission": hostile}))
    assert said.count('"') == 8
    assert said.isascii()
    assert said.isprintable()
    assert "\\" not in said
