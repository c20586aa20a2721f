"""Channels to peers: mTLS, the remaining deadline, the trace, retries of reads only, and a new one when our
certificate changes.

A caller's deadline isn't inherited by gRPC itself; here every call gets what is left of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from opentelemetry.trace import SpanKind

from services._mesh import telemetry
from services._mesh.config import Missing
from services._mesh.context import CallContext, find_current
from services._mesh.descriptors import Effect, method_rules
from services._mesh.tls import CertificateFiles

REQUEST_ID_KEY = "recoup-request-id"
TRACE_KEY = "traceparent"
DEFAULT_SECONDS = 20.0
_DRAIN_SECONDS = 30.0
_MAX_MESSAGE = 4 * 1024 * 1024


class Channels:
    """The channels of one process, one for each peer."""

    def __init__(
        self, files: CertificateFiles, addresses: Mapping[str, str], services: Sequence[ServiceDescriptor] = ()
    ) -> None:
        self._files, self._addresses, self._services = files, addresses, services
        self._open: dict[str, _Peer] = {}

    def to(self, peer: str) -> grpc.aio.Channel:
        """The channel to `peer`. Raises Missing where configuration names no address for it."""
        found = self._open.get(peer)
        if found is None:
            if peer not in self._addresses:
                raise Missing(f"peers.{peer}", f'Say where it is, such as "{peer}.internal:8443".')
            found = self._open[peer] = _Peer(peer, self._addresses[peer], self._files, self._services)
        return found

    async def close(self) -> None:
        """Close all of them."""
        for each in self._open.values():
            await each.close()


class _Peer(grpc.aio.Channel):
    """A channel that stubs can keep: behind it stands the real one, changed when our certificate does."""

    def __init__(self, peer: str, address: str, files: CertificateFiles, services: Sequence[ServiceDescriptor]) -> None:
        self.name, self._address, self._files, self._services = peer, address, files, services
        self._generation = 0
        self._real: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def real(self) -> grpc.aio.Channel:
        """The real channel, with the certificate that is in force."""
        generation = self._files.refresh()
        if self._real is None or generation != self._generation:
            old, self._generation = self._real, generation
            self._real = grpc.aio.secure_channel(
                self._address,
                self._files.channel_credentials(),
                options=[
                    ("grpc.ssl_target_name_override", self.name),
                    ("grpc.service_config", _service_config(self._services)),
                    ("grpc.keepalive_time_ms", 30_000),
                    ("grpc.keepalive_timeout_ms", 10_000),
                    ("grpc.max_receive_message_length", _MAX_MESSAGE),
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    ("grpc.max_reconnect_backoff_ms", 2_000),
                ],
            )
            if old is not None:
                self._drain(old)
        return self._real

    def _drain(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close(_DRAIN_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # A stub asks for its callables once, so each is one that looks the real channel up when it is called.
    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Unary(self, "unary_unary", method, arguments, options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Late(self, "unary_stream", method, arguments, options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Late(self, "stream_unary", method, arguments, options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Late(self, "stream_stream", method, arguments, options)

    async def close(self, grace: float | None = None) -> None:
        if self._real is not None:
            await self._real.close(grace)
            self._real = None

    async def channel_ready(self) -> None:
        await self.real().channel_ready()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.real().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.real().wait_for_state_change(last_observed_state)

    async def __aenter__(self) -> _Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Late:
    """A callable of a stub, made anew when the channel behind it changes. It adds our own metadata and deadline to each
    call: interceptors of grpc.aio would do it in a task of their own for each, at a third of what a call costs.
    """

    def __init__(self, peer: _Peer, shape: str, method: str, arguments: Any, options: Any) -> None:
        self._peer, self._shape, self._method = peer, shape, method
        self._arguments, self._options = arguments, options
        self._default_seconds = None if shape == "unary_stream" else DEFAULT_SECONDS
        self._channel: grpc.aio.Channel | None = None
        self._callable: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The call, under the current span unless its metadata names another, with no more time than is left."""
        channel = self._peer.real()
        if channel is not self._channel:
            self._channel = channel
            self._callable = getattr(channel, self._shape)(self._method, *self._arguments, **self._options)
        seconds = options.get("timeout")
        if seconds is None:
            seconds = self._default_seconds
        options["metadata"], options["timeout"] = _within(find_current(), options.get("metadata"), seconds)
        return self._callable(*arguments, **options)


class _Unary(_Late):
    """One with one answer has a span of its own; not where its metadata names one, which is about nothing else then."""

    def __init__(self, peer: _Peer, shape: str, method: str, arguments: Any, options: Any) -> None:
        super().__init__(peer, shape, method, arguments, options)
        self._name = f"call {method.lstrip('/')}"
        self._attributes = {"rpc.system": "grpc", "server.address": peer.name}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        metadata = options.get("metadata") or ()
        if TRACE_KEY in dict(metadata):
            return super().__call__(*arguments, **options)
        span = telemetry.active().start_span(self._name, kind=SpanKind.CLIENT, attributes=self._attributes)
        options["metadata"] = (*metadata, (TRACE_KEY, telemetry.format_parent(span.get_span_context())))
        call = super().__call__(*arguments, **options)
        call.add_done_callback(lambda _: span.end())
        return call


def _within(
    context: CallContext | None, given: Iterable[tuple[str, Any]] | None, seconds: float | None
) -> tuple[grpc.aio.Metadata, float | None]:
    """The metadata of a call that is made in the course of another one, and how long it may take."""
    metadata = list(given or ())
    present = {key for key, _ in metadata}
    if TRACE_KEY not in present:
        parent = telemetry.trace_parent()
        metadata += [(TRACE_KEY, parent)] if parent else []
    if context is not None:
        if REQUEST_ID_KEY not in present:
            metadata.append((REQUEST_ID_KEY, context.request_id))
        left = context.remaining_seconds()
        if left is not None:
            seconds = left if seconds is None else min(seconds, left)
    return grpc.aio.Metadata(*metadata), seconds


def _service_config(services: Sequence[ServiceDescriptor]) -> str:
    """Retries where nobody is there, and only for RPCs that change nothing."""
    reads = [
        {"service": rule.name.partition("/")[0], "method": rule.method}
        for service in services
        for rule in method_rules(service)
        if rule.effect is Effect.READ and not rule.response_streaming
    ]
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        # A server that ends cancels what comes before everybody knows.
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    methods = [{"name": reads, "retryPolicy": policy}] if reads else []
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": methods})
