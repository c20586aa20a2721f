"""The egress rule over real sockets: rebound names, redirects, answers without end; and Azure's vaults follow it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken

from recoup_local.ca import LocalCa
from services._mesh.egress import EgressRefused
from services._mesh.egress_http import session
from services._mesh.envelope import seal
from services._mesh.errors import Problem
from services._mesh.kms.azure import AzureKms
from services._mesh.kms.interface import Kek, KeyService
from services._mesh.threads import BoundedThreads
from tests.support.kms import context

HOST, MAX_BYTES, DEADLINE_SECONDS = "hooks.example.com", 1000, 10.0
# What the name leads to at first, and what it is bound to then; both are this machine's.
OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"
BODY = b"the body"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Place:
    """A TLS server at an address that gives one answer to each connection, a byte at a time where it `trickles`."""

    listener: socket.socket
    tls: ssl.SSLContext
    answer: bytes = OK
    trickles: bool = False
    heard: list[bytes] = field(default_factory=list)

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self.tls.wrap_socket(plain, server_side=True) as connection:
                heard = connection.recv(65536)
                ends = BODY if heard.startswith(b"POST") else b"\r\n\r\n"
                while not heard.endswith(ends) and (piece := connection.recv(65536)):
                    heard += piece
                if not heard:  # Whoever came didn't like the certificate.
                    continue
                self.heard.append(heard)
                pieces = [self.answer]
                if self.trickles:
                    head, _, body = self.answer.partition(b"\r\n\r\n")
                    pieces = [head + b"\r\n\r\n", *(body[i : i + 1] for i in range(len(body)))]
                for piece in pieces:
                    connection.sendall(piece)
                    if self.trickles:
                        threading.Event().wait(0.05)


class Dns:
    """A name's server that answers differently the second time."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = answers, 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return [self.answers[min(self.asked, len(self.answers)) - 1]]


@dataclass
class Places:
    outside: Place
    inside: Place
    port: int
    ca: str

    def session(self, resolve: Callable[[str, int], Sequence[str]], deadline: float = DEADLINE_SECONDS) -> Any:
        made = session(MAX_BYTES, deadline, (self.port,), resolve, lambda address: address == OUTSIDE)
        made.verify = self.ca
        return made

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/hook?a=b"


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    ca = LocalCa(tmp_path / "ca")
    ca.issue("hooks", tmp_path / "hooks", dns=(HOST, "recoup.vault.azure.net"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "hooks" / "tls.pem", tmp_path / "hooks" / "tls.key")
    outside = socket.create_server((OUTSIDE, 0))
    port = int(outside.getsockname()[1])
    inside = socket.create_server((INSIDE, port))
    made = Places(Place(outside, tls), Place(inside, tls), port, str(ca.cert_file))
    threads = [threading.Thread(target=each.serve, daemon=True) for each in (made.outside, made.inside)]
    for thread in threads:
        thread.start()
    yield made
    for listener in (outside, inside):
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def test_a_rebound_name_leads_to_the_address_that_was_judged(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own resolver answers: a client that asks it again, as any does by itself, comes out inside."""
    dns, really = Dns(OUTSIDE, INSIDE), socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        return really(dns(HOST, 0)[0] if host == HOST else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    made = session(MAX_BYTES, DEADLINE_SECONDS, (places.port,), allowed=lambda address: address == OUTSIDE)
    made.verify = places.ca
    answer = made.post(places.url, data=BODY)
    assert (answer.status_code, answer.content, dns.asked) == (200, b"ok", 1)
    assert b"POST /hook?a=b HTTP/1.1" in places.outside.heard[0]
    assert f"Host: {HOST}:{places.port}".encode() in places.outside.heard[0]
    assert not places.inside.heard
    # The next request asks again, is judged anew, and goes nowhere.
    with pytest.raises(EgressRefused):
        made.get(places.url)
    assert not places.inside.heard


def test_the_certificate_must_be_the_name_s(places: Places) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        places.session(Dns(OUTSIDE)).get(places.url.replace(HOST, "other.example.com"))
    assert not places.outside.heard


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(places: Places, status: int) -> None:
    there = f"https://{HOST}:{places.port}/elsewhere"
    places.outside.answer = f"HTTP/1.1 {status} Go\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()
    with pytest.raises(EgressRefused, match="redirect"):
        places.session(Dns(OUTSIDE)).get(places.url)
    assert len(places.outside.heard) == 1


def test_no_proxy_of_the_machine_and_no_plain_http(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{INSIDE}:{places.port}")
    assert places.session(Dns(OUTSIDE)).get(places.url).content == b"ok"
    with pytest.raises(EgressRefused):
        places.session(Dns(OUTSIDE)).get(places.url.replace("https", "http"))
    assert not places.inside.heard


@pytest.mark.parametrize(
    "head", [b"Content-Length: 5000", b"Transfer-Encoding: chunked", b"Content-Length: 20\r\nContent-Encoding: gzip"]
)
def test_a_large_answer_is_not_read(places: Places, head: bytes) -> None:
    body = b"x" * 5000
    if b"chunked" in head:
        body = b"1388\r\n" + body + b"\r\n0\r\n\r\n"
    places.outside.answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body
    with pytest.raises(EgressRefused, match="must answer"):
        places.session(Dns(OUTSIDE)).get(places.url)


def test_an_answer_that_trickles_in_ends_at_the_deadline(places: Places) -> None:
    places.outside.answer, places.outside.trickles = b"HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n" + b"x" * 80, True
    with pytest.raises(requests.ReadTimeout):
        places.session(Dns(OUTSIDE), deadline=0.3).get(places.url)


def test_an_answer_in_chunks_is_read(places: Places) -> None:
    places.outside.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert places.session(Dns(OUTSIDE)).get(places.url).text == "abcde"


class _Credential:
    """An Azure identity that is always given a token."""

    def get_token(self, *_: str, **__: Any) -> Any:
        return AccessToken("token", 4102444800)


@pytest.mark.parametrize("address", [OUTSIDE, "169.254.169.254", "10.0.0.4", "::ffff:10.0.0.4", "fd00:ec2::254"])
async def test_a_vault_that_an_organization_names_is_reached_by_the_rule(address: str) -> None:
    """Its name ends as Azure's own do, and leads inside all the same, as a private endpoint's in our network would."""
    threads, asked = BoundedThreads(1, "azure"), list[str]()

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return [address]

    kms = AzureKms(threads, DEADLINE_SECONDS, credential=_Credential, resolve=resolve)
    kek = Kek(KeyService.AZURE, f"https://recoup.vault.azure.net/keys/recoup/{'1' * 32}")
    try:
        with pytest.raises(Problem) as refused:
            await seal(b"secret", context(), kek, kms)
    finally:
        threads.close()
    assert (refused.value.metadata, asked) == (
        {"cause": "WRONG_REGION", "kek": kek.reference},
        ["recoup.vault.azure.net"],
    )
