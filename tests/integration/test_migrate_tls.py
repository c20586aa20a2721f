"""Migrations come to a remote database over TLS that names its CA and its host, or not at all."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from recoup_local.ca import LocalCa, write_secret
from services._mesh import migrate

# The certificate names 127.0.0.1, and not this address.
UNNAMED = "127.0.0.2"
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


@dataclass
class Server:
    """As far as a PostgreSQL server's greeting: it takes TLS, and keeps what came after the handshake."""

    ca: Path
    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext) -> None:
        try:
            self.heard.append(await reader.readexactly(8))
            writer.write(b"S")
            await writer.start_tls(tls)
            self.heard.append(await reader.read(1000))
        except (OSError, asyncio.IncompleteReadError):  # Who doesn't like our certificate goes.
            pass
        finally:
            writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    ca = LocalCa(tmp_path / "ca")
    ca.issue("database", tmp_path / "leaf", dns=("database",))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "leaf" / "tls.pem", tmp_path / "leaf" / "tls.key")
    made = Server(ca.cert_file)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.greet(reader, writer, tls)

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as named:
        made.port = named.sockets[0].getsockname()[1]
        async with await asyncio.start_server(greet, UNNAMED, made.port):
            yield made


def config(folder: Path, server: Server, ca: Path | None, host: str = "127.0.0.1") -> Path:
    """A service's configuration with its database there."""
    (folder / "trust").mkdir(exist_ok=True)
    write_secret(folder / "word", "canary-password")
    named = f'ca = "{ca}"' if ca else ""
    made = folder / "scanner.toml"
    made.write_text(f"""
[process]
name = "scanner"
profile = "production"
[tls]
ca = "{server.ca}"
cert = "{folder}/leaf/tls.pem"
key = "{folder}/leaf/tls.key"
[trust]
dir = "{folder}/trust"
[database]
host = "{host}"
port = {server.port}
user = "scanner_api"
password_file = "{folder}/word"
{named}
[database.migrate]
user = "scanner_migrate"
password_file = "{folder}/word"
""")
    return made


async def run(path: Path) -> int:
    """The command, in a thread of its own with its own loop."""
    return await asyncio.to_thread(migrate.main, ["--config", str(path), "scanner"])


async def test_a_remote_database_without_a_ca_is_refused_by_the_command(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(config(tmp_path, server, None)) == 2
    assert "database.ca: is missing. A remote PostgreSQL must offer TLS; name its CA." in capsys.readouterr().err
    assert not server.heard


async def test_a_ca_that_is_none_is_refused_by_the_command(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    assert await run(config(tmp_path, server, tmp_path / "ca.pem")) == 2
    assert "ca.pem: database.ca: holds no certificate. It must be a CA's in PEM." in capsys.readouterr().err
    assert not server.heard


async def test_migrations_speak_only_to_the_host_whose_certificate_the_ca_signed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = LocalCa(tmp_path / "other").cert_file
    for ca, host, why in (
        (other, "127.0.0.1", "certificate"),
        (server.ca, UNNAMED, "IP address mismatch"),
    ):
        assert await run(config(tmp_path, server, ca, host)) == 1
        said = capsys.readouterr().err
        assert "the database isn't who database.ca vouches for" in said
        assert why in said
    assert server.heard == [_SSL_REQUEST] * 2
    with pytest.raises(DBAPIError):  # It is who it should be; it only doesn't go on.
        await run(config(tmp_path, server, server.ca))
    assert b"scanner_migrate" in server.heard[-1]


async def test_a_database_that_nobody_serves_is_said_to_be_away(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.port = taken.getsockname()[1]
    assert await run(config(tmp_path, server, server.ca)) == 1
    assert "the database can't be reached" in capsys.readouterr().err
