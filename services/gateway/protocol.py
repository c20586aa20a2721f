"""uvicorn's HTTP protocol, which answers in our terms where a request doesn't even reach the application."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway.app import Gateway


class EdgeProtocol(HttpToolsProtocol):
    """Serves a `Gateway`."""

    def send_400_response(self, msg: str) -> None:
        """A problem document in the place of uvicorn's plain text; nothing that follows on the connection is read."""
        gateway = self.config.app
        assert isinstance(gateway, Gateway)
        headers, body = gateway.unreadable()
        lines = [name + b": " + value + b"\r\n" for name, value in (*headers, (b"connection", b"close"))]
        self.transport.write(b"".join((b"HTTP/1.1 400 Bad Request\r\n", *lines, b"\r\n", body)))
        self.transport.close()
