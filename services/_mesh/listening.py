"""Takes the addresses that a process listens at, or says which one can't be had, and what to do about it."""

from __future__ import annotations

import os
import socket

_BACKLOG = 1024
_LAST_PORT = 65_535


class Unlistenable(Exception):
    """An address that can't be listened at: which, why, and the setting that names it."""

    def __init__(self, address: str, key: str, why: str) -> None:
        self.key, self.why = key, why
        super().__init__(
            f"{address} can't be listened at: {why}. End what listens there, or choose another address for {key}."
        )


def check_address(address: str, key: str) -> None:
    """Whether it is one that can be listened at, taken or not. Raises Unlistenable."""
    host, _, port = address.rpartition(":")
    if int(port) > _LAST_PORT:
        raise Unlistenable(address, key, "there is no such port")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Unlistenable(address, key, "the host is unknown") from error


def listening_socket(address: str, key: str) -> socket.socket:
    """A socket that listens at "host:port"; `key` is the setting that says so. Raises Unlistenable."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    except OverflowError as error:
        raise Unlistenable(address, key, "there is no such port") from error
    except socket.gaierror as error:
        raise Unlistenable(address, key, "the host is unknown") from error
    except OSError as error:
        raise Unlistenable(address, key, os.strerror(error.errno or 0)) from error
