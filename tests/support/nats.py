"""NATS for tests: a real nats-server of its own for whoever asks, with the permissions that processes have."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from nats.aio.client import Client

from recoup_local.embedded.nats import EmbeddedNats, NatsHandle, NatsUser
from services._mesh import streams
from services._mesh.settings import NatsSettings
from services.gateway import bucket

PASSWORD = "for-tests-only"


class TestNats:
    """A server with two users of one service, `<service>` (its API) and `<service>-worker`, and with the gateways'.

    Plain text on loopback.
    """

    __test__ = False

    def __init__(self, service: str) -> None:
        self.service = service
        self._folder = Path(tempfile.mkdtemp(prefix="recoup-nats-"))
        self._password_file = self._folder / "password"
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(PASSWORD)
        users = [
            NatsUser(service, PASSWORD, publish=streams.api_permissions(service)),
            NatsUser(f"{service}-worker", PASSWORD, publish=streams.worker_permissions(service)),
            NatsUser("gateway", PASSWORD, publish=bucket.permissions()),
        ]
        self._server = EmbeddedNats(self._folder, users)
        self.handle: NatsHandle = self._server.start()
        self._clients: list[Client] = []

    async def connect(self, user: str) -> Client:
        """A connection as one of the users; closed with the server."""
        return (await self.link(user)).client

    async def link(self, user: str) -> streams.Link:
        """The same, as a process holds it."""
        link = streams.Link(NatsSettings(url=self.handle.url, user=user, password_file=self._password_file), user, None)
        await link.connect()
        self._clients.append(link.client)
        return link

    def restart(self, *, lose_everything: bool = False) -> None:
        """Stop and start the server, on the same port; with or without what JetStream held."""
        self._server.stop()
        if lose_everything:
            self._server.delete_store()
        self.handle = self._server.start()

    def lose_consumers(self) -> None:
        """Restart the server without any consumer; streams and their messages stay."""
        self._server.stop()
        consumers = list(self._server.store_dir.glob("jetstream/*/streams/*/obs/*"))
        assert consumers
        for folder in consumers:
            shutil.rmtree(folder)
        self.handle = self._server.start()

    def stop(self) -> None:
        """Stop the server; clients go on trying."""
        self._server.stop()

    def start(self) -> None:
        """Start it again."""
        self.handle = self._server.start()

    async def close(self) -> None:
        """End everything."""
        for client in self._clients:
            await client.close()
        self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
