"""REST calls to the gateway, with a deadline each, and its problems as exceptions."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn
from urllib.parse import quote

import httpx

CALL_SECONDS, STREAM_SECONDS = 30.0, 300.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class GatewayRefused(Exception):
    """The gateway answered with a problem (RFC 9457). `reason` is one of `recoup.errors.v1.ErrorReason`."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"the gateway answered {status}"))
        self.status = status
        self.reason = str(problem.get("reason", ""))
        self.metadata: dict[str, str] = dict(problem.get("metadata") or {})
        self.violations: list[dict[str, str]] = list(problem.get("violations") or [])
        self.request_id = str(problem.get("requestId", ""))


class GatewayUnreachable(Exception):
    """No answer came, or none that is the gateway's."""


class WrongUse(Exception):
    """What was given can't be used: an address, a token, a CA or an id. Nothing was sent."""


class Answer(dict[str, Any]):
    """An object of an answer. A gateway leaves out no field, so who leaves out one that is read is something else."""

    def __missing__(self, key: str) -> NoReturn:
        raise GatewayUnreachable(f"what answered isn't a Recoup gateway of this version (no {key!r} in its answer)")


ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Rest:
    """A connection to one gateway with one session token."""

    def __init__(self, gateway: str, token: str, ca: Path | None = None, elevation: str | None = None) -> None:
        """Act under break-glass access, if its id is given. Raises WrongUse. The token is never part of its text."""
        # RFC 6750 allows less; what matters is that it can stand in a header.
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise WrongUse("the session token holds a line break, a space or another character that no token has")
        if elevation and not ID.fullmatch(elevation):
            raise WrongUse("--elevation must be the id of a break-glass access, as `recoup elevate list` shows it")
        headers = {
            **({"authorization": f"Bearer {token}"} if token else {}),
            **({"elevation-id": elevation} if elevation else {}),
        }
        verify = _trusting(ca) if ca else True
        try:
            self._client = httpx.Client(
                base_url=_address(gateway),
                verify=verify,
                headers=headers,
                timeout=CALL_SECONDS,
            )
        except (OSError, ValueError, httpx.InvalidURL) as error:
            # httpx takes proxies and CAs from the environment, too (HTTPS_PROXY, SSL_CERT_FILE).
            raise WrongUse(f"the environment's proxy or CA can't be used: {error}") from error

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, parameters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer's JSON. Raises GatewayRefused, GatewayUnreachable, WrongUse."""
        answer = self._send(method, path, body, parameters)
        document = _document(answer)
        if answer.is_error:
            raise GatewayRefused(answer.status_code, document)
        return document

    def octets(self, path: str, media_type: str) -> bytes:
        """The body of an answer that isn't JSON, as it came. Raises as `call` does."""
        answer = self._send("GET", path, None, None)
        if answer.is_error:
            raise GatewayRefused(answer.status_code, _document(answer))
        found = answer.headers.get("content-type", "").partition(";")[0]
        if found != media_type:
            raise GatewayUnreachable(f"what answered isn't a Recoup gateway ({found or 'no type'} for {media_type})")
        return answer.content

    def stream(self, path: str) -> Iterator[dict[str, Any]]:
        """The answers of a stream, as they come. Raises as `call` does, on the way too."""
        request = self._client.build_request("GET", path, timeout=STREAM_SECONDS)
        try:
            answer = self._client.send(request, stream=True)
            with closing(answer):
                if answer.is_error:
                    answer.read()
                    raise GatewayRefused(answer.status_code, _document(answer))
                for line in answer.iter_lines():
                    found = _read(answer, line)
                    if "error" in found:
                        raise GatewayRefused(int(found["error"].get("status", 500)), found["error"])
                    yield found
        except httpx.HTTPError as error:
            raise GatewayUnreachable(f"the gateway didn't answer ({type(error).__name__})") from error

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, parameters: dict[str, Any] | None
    ) -> httpx.Response:
        try:
            request = self._client.build_request(method, path, json=body, params=parameters)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise WrongUse(f"an argument can't be sent: {error}") from error
        try:
            return self._client.send(request)
        except httpx.HTTPError as error:
            raise GatewayUnreachable(f"the gateway didn't answer ({type(error).__name__})") from error
        except UnicodeError as error:  # from the socket module, for a label that no name in the DNS can have
            raise WrongUse(f"{self._client.base_url} isn't an address: no host can have that name") from error

    def __enter__(self) -> Rest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()


def at(pattern: str, *segments: str) -> str:
    """A path whose {} are these segments, each quoted so that it stays one. Raises WrongUse."""
    for segment in segments:
        # Dots can't be quoted: RFC 3986 has %2E and a dot mean the same (sections 2.3 and 5.2.4).
        if segment in ("", ".", ".."):
            raise WrongUse(f"an id can't be {segment!r}")
    return pattern.format(*(quote(segment, safe="", errors="surrogateescape") for segment in segments))


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca))
    except ssl.SSLError as error:
        raise WrongUse(f"the CA {ca} isn't a certificate in PEM") from error
    except OSError as error:
        raise WrongUse(f"the CA {ca} can't be read: {error.strerror}") from error


def _address(gateway: str) -> httpx.URL:
    try:
        found = httpx.URL(gateway)
    except httpx.InvalidURL as error:
        raise WrongUse(f"{gateway} isn't an address: {error}") from error
    if found.scheme not in ("https", "http") or not found.host:
        raise WrongUse(f"{gateway} isn't an address such as https://recoup.example.com")
    if found.scheme == "http" and found.host not in _LOOPBACK:
        raise WrongUse(f"{gateway} would carry the session in the clear: only this machine is asked without https")
    return found


def _document(answer: httpx.Response) -> dict[str, Any]:
    """What the gateway answered. All its problems have a reason; a load balancer's, say, have none."""
    document = _read(answer, answer.content)
    if answer.is_error and "reason" not in document:
        raise GatewayUnreachable(f"what answered isn't a Recoup gateway (status {answer.status_code})")
    return document


def _read(answer: httpx.Response, content: str | bytes) -> Answer:
    """An object of an answer."""
    try:
        document = json.loads(content, object_hook=Answer)
    except (ValueError, RecursionError) as error:
        raise GatewayUnreachable(
            f"what answered isn't a Recoup gateway (status {answer.status_code}, no JSON)"
        ) from error
    if not isinstance(document, Answer):
        raise GatewayUnreachable(f"what answered isn't a Recoup gateway (status {answer.status_code})")
    return document
