"""A local issuer of session tokens in Supabase's shape, and the people of the platform and two made-up organizations.

Its keys are asymmetric and its issuer ends in `local.invalid`. It signs whatever it is asked to: it must never run
anywhere but on a developer's machine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import NAMESPACE_DNS, UUID, uuid4, uuid5

from joserfc import jwt
from joserfc.jwk import ECKey

from recoup_local.ca import write_secret
from services._mesh.ids import PLATFORM

PLATFORM_SLUG = "platform"
ISSUER = "https://auth.local.invalid/auth/v1"
AUDIENCE = "authenticated"
ROLES = ("ADMIN", "FINOPS", "SECURITY", "APPROVER", "FINANCE", "AUDITOR", "VIEWER")
PLATFORM_ROLES = ("ADMIN", "SECURITY", "AUDITOR")
# Whose people there are: of each organization one with each of these roles.
ORGANIZATIONS: Mapping[str, tuple[str, ...]] = {"acme": ROLES, "globex": ROLES, PLATFORM_SLUG: PLATFORM_ROLES}
TOKEN_SECONDS = 8 * 3600


@dataclass(frozen=True)
class Person:
    """Somebody with a role in an organization; ids are stable across installations."""

    organization: str
    role: str

    @property
    def user_id(self) -> UUID:
        """The subject of their sessions."""
        return uuid5(NAMESPACE_DNS, f"{self.role.lower()}.{self.organization}.people.local.invalid")

    @property
    def email(self) -> str:
        """The address they sign in with."""
        return f"{self.role.lower()}@{self.organization}.example.com"


def organization_id(slug: str) -> UUID:
    """The id of an organization, stable across installations."""
    if slug == PLATFORM_SLUG:
        return PLATFORM
    return uuid5(NAMESPACE_DNS, f"{slug}.organizations.local.invalid")


def find_person(organization: str, role: str) -> Person:
    """The person who has `role` (any case) in `organization`. Raises KeyError that names what there is."""
    if organization not in ORGANIZATIONS:
        raise KeyError(f"no organization {organization!r}; there are {', '.join(ORGANIZATIONS)}")
    roles = ORGANIZATIONS[organization]
    if role.upper() not in roles:
        raise KeyError(f"no role {role!r} in {organization}; there are {', '.join(each.title() for each in roles)}")
    return Person(organization, role.upper())


def people_file() -> str:
    """All organizations and people as identity's bootstrap reads them (TOML)."""
    lines = []
    for slug, roles in ORGANIZATIONS.items():
        lines += ["[[organization]]", f'organization_id = "{organization_id(slug)}"', f'slug = "{slug}"']
        lines += [f'display_name = "{_display_name(slug)}"', 'time_zone = "UTC"', 'reporting_currency = "USD"']
        for role in roles:
            person = Person(slug, role)
            lines += ["[[organization.members]]", f'user_id = "{person.user_id}"']
            lines += [f'email = "{person.email}"', f'role = "{role}"']
    return "\n".join(lines) + "\n"


def _display_name(slug: str) -> str:
    return "Recoup platform" if slug == PLATFORM_SLUG else f"{slug.title()} Inc."


class Issuer:
    """Signs session tokens with one ES256 key, kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        path = folder / "issuer.key.json"
        if not path.exists():
            write_secret(path, json.dumps(ECKey.generate_key("P-256", auto_kid=True).as_dict(private=True)))
        self._key = ECKey.import_key(json.loads(path.read_text("utf-8")))

    def token(self, person: Person, *, aal: int = 2, seconds: int = TOKEN_SECONDS, **changes: object) -> str:
        """A session token. `changes` override claims, for tests of refusals; None removes one."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(person.user_id),
            "role": "authenticated",
            "aal": f"aal{aal}",
            "amr": [{"method": "password", "timestamp": now}],
            "session_id": str(uuid4()),
            "email": person.email,
            "email_verified": True,
            "is_anonymous": False,
            "app_metadata": {"organization_id": str(organization_id(person.organization))},
            "user_metadata": {},
            "iat": now,
            "exp": now + seconds,
        }
        claims = {key: value for key, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": self._key.kid, "typ": "JWT"}, claims, self._key)

    def jwks(self) -> bytes:
        """The public key, as served."""
        public = {**self._key.as_dict(private=False), "kid": self._key.kid, "alg": "ES256", "use": "sig"}
        return json.dumps({"keys": [public]}).encode()


def serve_jwks(issuer: Issuer) -> tuple[ThreadingHTTPServer, str]:
    """Serve the issuer's keys on a free loopback port, from a thread; returns the server and the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = issuer.jwks()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads these."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="jwks", daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/auth/v1/.well-known/jwks.json"
