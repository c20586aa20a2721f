"""A project that signs sessions with any algorithm and any header, and serves any key set: for tests of refusals."""

from __future__ import annotations

import base64
import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from recoup_local.issuer import AUDIENCE, ISSUER, find_person, organization_id

PERSON = find_person("acme", "Admin")
ACME = organization_id("acme")
_RSA = RSAKey.generate_key(2048)


class Project:
    """The keys of one project, by algorithm, and the document that it publishes."""

    def __init__(self) -> None:
        self.keys: dict[str, ECKey | OKPKey | RSAKey] = {
            "ES256": ECKey.generate_key("P-256"),
            "RS256": _RSA,
            "EdDSA": OKPKey.generate_key("Ed25519"),
        }
        self.published: list[dict[str, Any]] = [self.public(name) for name in self.keys]
        self.answer: bytes | None = None
        self.status = 200
        self.asked = 0

    def public(self, algorithm: str) -> dict[str, Any]:
        """A public key as it is published."""
        return {**self.keys[algorithm].as_dict(private=False), "kid": f"key-{algorithm}", "alg": algorithm}

    def token(self, algorithm: str = "ES256", **changes: object) -> str:
        """A session token; `changes` override claims, None removes one."""
        return self.signed(json.dumps(claims(**changes)).encode(), algorithm)

    def signed(self, payload: bytes, algorithm: str = "ES256", **header: object) -> str:
        """A token of any payload and header, under a good signature."""
        protected = {"alg": algorithm, "kid": f"key-{algorithm}", "typ": "JWT", **header}
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # Projects call it EdDSA.
            return jws.serialize_compact(protected, payload, self.keys[algorithm], registry=registry)

    def document(self) -> bytes:
        """What is served."""
        return json.dumps({"keys": self.published}).encode() if self.answer is None else self.answer


def claims(**changes: object) -> dict[str, object]:
    """The claims of a good session, changed."""
    now = int(time.time())
    good: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(PERSON.user_id),
        "role": "authenticated",
        "aal": "aal2",
        "amr": [{"method": "totp", "timestamp": now}, {"method": "password", "timestamp": now - 60}],
        "session_id": str(uuid4()),
        "email": PERSON.email,
        "is_anonymous": False,
        "app_metadata": {"organization_id": str(ACME)},
        "user_metadata": {},
        "iat": now,
        "exp": now + 3600,
    }
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def part(content: bytes) -> str:
    """base64url, as a token's parts are written."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def with_header(token: str, raw: bytes) -> str:
    """The token under another header, and the signature that it had."""
    return ".".join([part(raw), *token.split(".")[1:]])


@contextmanager
def serving(project: Project) -> Iterator[str]:
    """Serve the project's keys on a free loopback port; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            project.asked += 1
            body = project.document()
            self.send_response(project.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads these."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="jwks", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/auth/v1/.well-known/jwks.json"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
