"""A name server on loopback that knows TXT records which tests and developers put there, and nothing else.

It stands in for a customer's DNS where a domain is to be proven. It must never be asked about real names.
"""

from __future__ import annotations

import socketserver
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

_TTL_SECONDS = 1


class LocalDns:
    """The server; `records` are texts by name, without a last dot. It runs from `start` to `shutdown`."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self._server: socketserver.UDPServer | None = None

    def start(self) -> str:
        """Answer, from a thread; returns the address."""
        records = self.records

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                packet, socket = self.request
                answer = _answer(packet, records)
                if answer:
                    socket.sendto(answer, self.client_address)

        server = self._server = socketserver.UDPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), name="dns", daemon=True).start()
        return f"127.0.0.1:{server.server_address[1]}"

    def shutdown(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()

    def server_close(self) -> None:
        """Give the port back."""
        if self._server is not None:
            self._server.server_close()


def _answer(packet: bytes, records: dict[str, list[str]]) -> bytes:
    try:
        query = dns.message.from_wire(packet)
    except Exception:  # What isn't a question gets no answer.
        return b""
    answer = dns.message.make_response(query)
    answer.flags |= dns.flags.AA
    for question in query.question:
        texts = records.get(question.name.to_text(omit_final_dot=True).lower(), [])
        if texts and question.rdtype == dns.rdatatype.TXT:
            quoted = [f'"{text}"' for text in texts]
            answer.answer.append(
                dns.rrset.from_text(question.name, _TTL_SECONDS, dns.rdataclass.IN, dns.rdatatype.TXT, *quoted)
            )
        elif not texts:
            answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer.to_wire()
