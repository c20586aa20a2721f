"""Where a browser on this machine brings the code of a sign-in (RFC 8252, section 7.3)."""

from __future__ import annotations

import secrets
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from recoup_client.rest import WrongUse

# As long as a sign-in may be on its way; and as long as a browser may hold a connection open without asking anything.
_WAIT_SECONDS, _ANSWER_SECONDS = 600.0, 2.0


class Loopback:
    """Listens on 127.0.0.1, at a path that nobody can guess, until the code has come."""

    def __init__(self, port: int = 0) -> None:
        self._path, self._code = f"/{secrets.token_urlsafe(16)}", ""
        try:
            self._server = HTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise WrongUse(f"port {port} can't be listened on; name another one with --port") from error

    @property
    def address(self) -> str:
        """Where the browser is to be sent."""
        return f"http://127.0.0.1:{self._server.server_port}{self._path}"

    def code(self) -> str:
        """The code, once the browser has brought it. Raises WrongUse where it doesn't within ten minutes."""
        end = time.monotonic() + _WAIT_SECONDS
        while not self._code:
            left = end - time.monotonic()
            if left <= 0:
                raise WrongUse("nobody signed in within ten minutes; begin again")
            self._server.timeout = left
            self._server.handle_request()
        return self._code

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _ANSWER_SECONDS

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                found = parse_qs(parts.query).get("code", [])
                good = secrets.compare_digest(parts.path.encode(), outer._path.encode()) and len(found) == 1
                if good:
                    outer._code = found[0]
                said = b"Signed in. You can close this window." if good else b"Nothing is here."
                self.send_response(200 if good else 404)
                for name, value in (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(said)))):
                    self.send_header(name, value)
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:
                """The address has the code in it, and is for nobody's eyes."""

        return Handler

    def __enter__(self) -> Loopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()
