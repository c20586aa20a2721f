"""HTTP on loopback for fakes of key services."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """HTTP on loopback. `answer` gives status, headers and a document for method, path, headers and body."""

    daemon_threads = True

    def __init__(self, answer: Callable[..., tuple[int, dict[str, str], Any]], context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever gave up waiting isn't news."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, headers, document = self.server.answer(self.command, self.path, self.headers, body)
        if status == 0:
            self.close_connection = True
            return
        said = json.dumps(document).encode()
        self.send_response(status)
        for key, value in {**headers, "content-type": "application/json", "content-length": str(len(said))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = _any

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
