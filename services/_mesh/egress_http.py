"""HTTP to where a tenant's URL leads: to the address that was checked, without redirects, in bounded time and size."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError

from services._mesh.egress import HTTPS_PORT, EgressRefused, Resolve, check_url, is_public, look_up, pin

_CHUNK_BYTES = 64 * 1024


def session(
    max_bytes: int,
    deadline_seconds: float,
    ports: Sequence[int] = (HTTPS_PORT,),
    resolve: Resolve = look_up,
    allowed: Callable[[str], bool] = is_public,
) -> requests.Session:
    """A session that goes nowhere else; it has no proxy and no netrc. `resolve` and `allowed`: see egress.pin."""
    made = requests.Session()
    made.trust_env = False
    made.mount("https://", _PinnedAdapter(max_bytes, deadline_seconds, ports, resolve, allowed))
    made.mount("http://", _NoAdapter())
    return made


class _NoAdapter(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        raise EgressRefused("must be an https URL")


class _PinnedAdapter(HTTPAdapter):
    """Connects to the address that was judged, and shows the certificate's name instead of it."""

    def __init__(
        self,
        max_bytes: int,
        deadline_seconds: float,
        ports: Sequence[int],
        resolve: Resolve,
        allowed: Callable[[str], bool],
    ) -> None:
        super().__init__()
        self._max_bytes, self._deadline, self._ports = max_bytes, deadline_seconds, tuple(ports)
        self._resolve, self._allowed = resolve, allowed

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> HTTPConnectionPool:
        """A connection to the pinned address; a kept one only to the same address, for the same name."""
        target = check_url(str(request.url), self._ports)
        try:
            pinned = pin(target, self._resolve, self._allowed)
        except OSError as error:
            raise requests.ConnectionError("the host's name can't be looked up now") from error
        where, tls = self.build_connection_pool_key_attributes(request, verify, cert)
        where["host"] = pinned.address
        tls |= {"server_hostname": pinned.host, "assert_hostname": pinned.host}
        return self.poolmanager.connection_from_host(**where, pool_kwargs=tls)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """The answer, read whole. Raises EgressRefused, requests.RequestException."""
        ends_at = time.monotonic() + self._deadline
        target = check_url(str(request.url), self._ports)
        # urllib3 would name the address. No encoding: a small answer can't grow when it is unpacked.
        request.headers["Host"] = target.host if target.port == HTTPS_PORT else f"{target.host}:{target.port}"
        request.headers["Accept-Encoding"] = "identity"
        answer = super().send(request, True, timeout or self._deadline, verify, cert)
        try:
            if answer.is_redirect:
                raise EgressRefused("must not redirect: name the address that it leads to")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise EgressRefused("must answer without an encoding, as it is asked to")
            content = self._read(answer, ends_at)
        finally:
            answer.close()
        headers = {name: value for name, value in answer.raw.headers.items() if name.lower() != "transfer-encoding"}
        raw = HTTPResponse(io.BytesIO(content), headers, answer.status_code, preload_content=False)
        raw.reason = answer.reason
        return self.build_response(request, raw)

    def _read(self, answer: requests.Response, ends_at: float) -> bytes:
        """All of a body, each piece as it comes: one that trickles in doesn't outlast the deadline."""
        content = bytearray()
        try:
            while piece := answer.raw.read1(_CHUNK_BYTES, decode_content=False):
                content += piece
                if len(content) > self._max_bytes:
                    raise EgressRefused(f"must answer with {self._max_bytes} bytes at most")
                if time.monotonic() > ends_at:
                    raise requests.ReadTimeout("the answer takes longer than its deadline")
        except ReadTimeoutError as error:
            raise requests.ReadTimeout("the answer stops") from error
        except HTTPError as error:
            raise requests.ConnectionError("the answer breaks off") from error
        return bytes(content)
