"""JetStream: streams declared in code, made when they're missing, made again when they're lost.

A stream is fast transport that may lose what it acknowledged; nothing here is a truth. One stream for each service
with jobs, `JOBS_<SERVICE>`, and one durable consumer for its workers. A job's subject is
`jobs.<service>.<kind>.<job id>`, of which the stream keeps one message: announcing again replaces, and never piles up.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from uuid import UUID

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from services._mesh.settings import NatsSettings, TlsSettings

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
_AGAIN_SECONDS = 0.1
PUBLISH_SECONDS = 5.0
ACK_WAIT_SECONDS = 30.0
MAX_MESSAGES = 1_000_000
MAX_AGE_SECONDS = 24 * 3600.0
TRACE_HEADER = "traceparent"
# nats-py's pull subscriptions can go silent after a restart of the server (nats.py #504, #986): one that has brought
# nothing for so many fetches is made anew, which costs two short messages.
SILENT_FETCHES = 10
# How long a worker waits for a consumer that isn't there: the API declares it, which a worker isn't told of.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 2.0


def stream_name(service: str) -> str:
    """The name of a service's job stream."""
    return f"JOBS_{service.upper()}"


def subject(service: str, kind: str, job_id: UUID) -> str:
    """The subject of one job."""
    return f"jobs.{service}.{kind}.{job_id.hex}"


def consumer_name(service: str) -> str:
    """The durable consumer that a service's workers share."""
    return f"{service}-worker"


def api_permissions(service: str) -> tuple[str, ...]:
    """The subjects that an API process with jobs publishes to; it subscribes to its own inbox only."""
    stream, consumer = stream_name(service), consumer_name(service)
    return (
        f"jobs.{service}.>",
        *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO")),
        f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
        f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}",
    )


def worker_permissions(service: str) -> tuple[str, ...]:
    """The subjects that a worker publishes to: asking for messages, and acknowledging them."""
    stream, consumer = stream_name(service), consumer_name(service)
    return (f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", f"$JS.ACK.{stream}.{consumer}.>")


class Link:
    """A process's one connection, with a private inbox; it never gives up.

    `client` can be handed out before there is a server: whoever uses it looks at `is_connected` first, since nats-py
    would keep what it is told meanwhile and say it late.
    """

    def __init__(self, settings: NatsSettings, process: str, tls: TlsSettings | None) -> None:
        self._settings, self._process, self._tls = settings, process, tls
        self.client = Client()
        self._begun = False
        self._connected = asyncio.Event()
        self._trouble = ""

    def is_connected(self) -> bool:
        """Whether the server is there now."""
        return bool(self.client.is_connected)

    def was_connected(self) -> bool:
        """Whether the server has ever been there: address, certificate and password are right."""
        return self._connected.is_set()

    async def connected(self) -> None:
        """Wait until the server has been there once."""
        await self._connected.wait()

    async def run(self) -> None:
        """Connect, and stay so until cancelled."""
        connecting = asyncio.create_task(self.connect())
        try:
            await asyncio.wait({connecting})
            connecting.result()
            await asyncio.Event().wait()
        finally:
            # With Python 3.11's wait_for nats-py loses a cancellation that comes just as one of its attempts fails.
            while not connecting.done():
                connecting.cancel()
                await asyncio.wait({connecting}, timeout=_AGAIN_SECONDS)

    async def connect(self) -> None:
        """Connect, however long it takes; later losses of the server are made good by the client itself."""
        settings, self._begun = self._settings, True
        await self.client.connect(
            settings.url,
            user=settings.user,
            password=settings.password_file.read_text("utf-8").strip(),
            name=self._process,
            inbox_prefix=f"_INBOX.{settings.user}".encode(),
            tls=_context(self._tls) if settings.url.startswith("tls://") and self._tls else None,
            tls_hostname="localhost" if settings.url.startswith("tls://127.") else None,
            connect_timeout=CONNECT_SECONDS,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # Seconds; fractions are fine with it.
            allow_reconnect=True,
            error_cb=self._noticed,
            reconnected_cb=self._returned,
            disconnected_cb=self._dropped,
        )
        self._connected.set()
        await self._returned()

    async def close(self) -> None:
        """End the connection, or the attempts at one."""
        if self._begun:
            await self.client.close()

    async def _noticed(self, error: Exception) -> None:
        if self.client.is_connected:
            log.warning("NATS: %s", error)  # Permission violations arrive nowhere else.
            return
        await self._dropped()
        if type(error).__name__ != self._trouble:  # Said once, not at each of five attempts a second.
            self._trouble = type(error).__name__
            log.warning("NATS can't be reached, and is tried until it can be: %s", error or self._trouble)

    async def _dropped(self) -> None:
        """Come back with the certificate that is in force then, which needn't be the one of before."""
        if self.client.options.get("tls") is not None and self._tls is not None:
            try:
                self.client.options["tls"] = _context(self._tls)
            except (OSError, ssl.SSLError) as error:
                log.warning("the new certificate can't be used for NATS yet: %s", error)

    async def _returned(self) -> None:
        self._trouble = ""
        log.info("NATS is connected")


def _context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(str(Path(tls.cert)), str(Path(tls.key)))
    return context


def _require_connected(client: Client) -> None:
    """Raise ConnectionError at once, where nats-py would wait for an answer that can't come."""
    if not client.is_connected:
        raise ConnectionError("NATS isn't connected")


class JobStream:
    """The publishing side, in the API process: declares the stream and its consumer, and announces jobs."""

    def __init__(self, client: Client, service: str) -> None:
        self._client, self._service = client, service
        self._context = client.jetstream(timeout=PUBLISH_SECONDS)
        self._declared = False
        self._lost = False

    async def ensure(self) -> bool:
        """See that stream and consumer are there as declared; True when one had to be made since the last time.

        Raises OSError or a NATS error when the server doesn't answer.
        """
        _require_connected(self._client)
        name = stream_name(self._service)
        try:
            await self._context.stream_info(name)
            await self._context.consumer_info(name, consumer_name(self._service))
        except nats.js.errors.NotFoundError:
            await self.declare()
            log.warning("the job stream of %s was made anew", self._service)
            return True
        if not self._declared:  # There from an earlier run: bring its limits up to date.
            await self.declare()
        lost, self._lost = self._lost, False
        return lost

    async def declare(self) -> None:
        """Make the stream and the consumer as they are declared here."""
        config = StreamConfig(
            name=stream_name(self._service),
            subjects=[f"jobs.{self._service}.>"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_msgs=MAX_MESSAGES,
            max_msgs_per_subject=1,
            max_age=MAX_AGE_SECONDS,
        )
        try:
            await self._context.add_stream(config)
        except nats.js.errors.BadRequestError:  # It is there with other limits.
            await self._context.update_stream(config)
        await self._context.add_consumer(
            stream_name(self._service),
            ConsumerConfig(
                durable_name=consumer_name(self._service),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=1000,
            ),
        )
        self._declared = True

    async def publish(self, kind: str, job_id: UUID, trace_parent: str) -> None:
        """Announce a job. A stream that was lost is declared again, once, before giving up."""
        _require_connected(self._client)
        headers = {TRACE_HEADER: trace_parent} if trace_parent else None
        target = subject(self._service, kind, job_id)
        try:
            await self._context.publish(target, job_id.bytes, headers=headers)
        except (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError):
            await self.declare()
            self._lost = True
            await self._context.publish(target, job_id.bytes, headers=headers)


class JobMessages:
    """The fetching side, in a worker: short fetches, rebuilt when the consumer vanishes or the client went silent."""

    def __init__(self, client: Client, service: str) -> None:
        self._client, self._service = client, service
        self._subscription: nats.js.JetStreamContext.PullSubscription | None = None
        self._silent = 0
        self._missing, self._pause_seconds = "", FIRST_PAUSE_SECONDS

    @property
    def pause_seconds(self) -> float:
        """How long it will wait after the next fetch that fails."""
        return self._pause_seconds

    async def fetch(self, count: int, seconds: float) -> list[Msg]:
        """At most `count` messages, waiting at most `seconds`; an empty list when there are none."""
        if not self._client.is_connected:
            await self.rebuild()
            await asyncio.sleep(min(seconds, 0.5))
            return []
        try:
            if self._subscription is None:
                self._subscription = await self._client.jetstream().pull_subscribe_bind(
                    consumer_name(self._service), stream_name(self._service)
                )
            messages = await self._subscription.fetch(count, timeout=seconds)
        except (TimeoutError, nats.errors.TimeoutError):
            self._found()
            self._silent += 1
            if self._silent >= SILENT_FETCHES:
                await self.rebuild()
            return []
        except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
            # The stream or consumer is gone, or the connection is: the API declares anew, we bind anew.
            await self._pause(type(error).__name__)
            return []
        self._found()
        self._silent = 0
        return messages

    async def _pause(self, missing: str) -> None:
        """Wait for the consumer, longer each time; say once what is wrong."""
        if missing != self._missing:
            self._missing = missing
            log.info("there is no consumer of jobs of %s (%s); it is waited for", self._service, missing)
        await self.rebuild()
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def _found(self) -> None:
        if self._missing:
            log.info("jobs of %s are fetched again", self._service)
        self._missing, self._pause_seconds = "", FIRST_PAUSE_SECONDS

    async def rebuild(self) -> None:
        """Drop the subscription; the next fetch binds anew."""
        self._silent = 0
        old, self._subscription = self._subscription, None
        if old is not None:
            try:
                await old.unsubscribe()
            except (nats.errors.Error, nats.js.errors.Error, ValueError):
                log.debug("the old subscription was gone already")
