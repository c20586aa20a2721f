"""uvicorn's HTTP protocol, which answers in our terms where a request doesn't even reach the application."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway.app import Gateway


class EdgeProtocol(HttpToolsProtocol):
    """Serves a `Gateway`. Its parser bounds nothing: a request's head is counted here, and a body's trailers."""

    _in_head, _in_trailers, _came, _named = False, False, 0, 0

    def data_received(self, data: bytes) -> None:
        """Bytes of a head that goes on and on are counted before they are parsed, since the parser keeps them."""
        self._came += len(data)
        if self._in_head and self._came > self._gateway.header_bytes:
            self._refuse(too_large=True)
            return
        super().data_received(data)
        # Behind a chunk's size comes its body, which is known once it is parsed: then this is over.
        if self._in_trailers and self._came > self._gateway.header_bytes and not self.transport.is_closing():
            if self.cycle.response_started:  # There is nothing more to say of this request.
                self.transport.close()
            else:
                self._refuse(too_large=True)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._came, self._named = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        self._named += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._named += len(name) + len(value)
        super().on_header(name, value)
        if self._named > self._gateway.header_bytes:
            raise ValueError("the head is too large")  # The parser makes it one of its own, and nothing is served.

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._in_head = False
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """The size of a chunk. The last one has no body, and trailers may follow it."""
        self._in_trailers, self._came = True, 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._in_trailers = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is over."""
        self._in_trailers = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """A problem document in the place of uvicorn's plain text; nothing that follows on the connection is read."""
        self._refuse(too_large=self._named > self._gateway.header_bytes)

    @property
    def _gateway(self) -> Gateway:
        gateway = self.config.app
        assert isinstance(gateway, Gateway)
        return gateway

    def _refuse(self, *, too_large: bool) -> None:
        headers, body = self._gateway.unreadable(too_large=too_large)
        status = b"413 Content Too Large" if too_large else b"400 Bad Request"
        lines = [name + b": " + value + b"\r\n" for name, value in (*headers, (b"connection", b"close"))]
        self.transport.write(b"".join((b"HTTP/1.1 ", status, b"\r\n", *lines, b"\r\n", body)))
        self.transport.close()
