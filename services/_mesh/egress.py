"""Where an address that a tenant gave may lead: to public hosts, over https, and nowhere else.

Says which URLs and addresses are refused, and resolves a host's name once; egress_http.py connects to what came of it.
A name is judged by what it resolves to, never by how it looks: any name can point at a machine of ours.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

HTTPS_PORT = 443
_MAX_URL = 2048
_MAX_ANSWERS = 64
# What browsers and SDKs read differently (\ @ # control characters, spaces) stands in no URL that is followed.
_URL = re.compile(r"https://([A-Za-z0-9.-]{1,253})(?::([1-9][0-9]{0,4}))?((?:/[!$-;=?-Z_a-z~%]*)?)", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# A name that ends so is read as an IPv4 address: 2130706433, 0177.0.0.1, 0x7f.1 (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# Public by IANA's registries, and yet no host of anybody's: anycast relays of 6to4, protocol assignments (of which
# 192.0.0.192 is Oracle's metadata service), and the address at which Azure serves each virtual machine its secrets.
_NOT_HOSTS = tuple(ip_network(each) for each in ("192.88.99.0/24", "192.0.0.0/24", "168.63.129.16/32"))
# Global unicast, without what carries an IPv4 address within it (Teredo, 6to4) and what is for protocols and examples.
_IPV6 = ip_network("2000::/3")
_NOT_IPV6 = tuple(ip_network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


class EgressRefused(Exception):
    """An address that we don't go to; the text is the rule. It doesn't say what a name resolved to."""


class Target(NamedTuple):
    """What a URL names: a host, by a name in lower case, and a port."""

    host: str
    port: int


class Pinned(NamedTuple):
    """A target with the one address that may be connected to."""

    host: str
    port: int
    address: str


Resolve = Callable[[str, int], Sequence[str]]


def check_url(url: str, ports: Sequence[int] = (HTTPS_PORT,)) -> Target:
    """What a URL names. Looks nothing up. Raises EgressRefused for what is no plain https URL of a named host."""
    found = _URL.fullmatch(url) if len(url) <= _MAX_URL else None
    if found is None:
        raise EgressRefused("must be an https URL of a host, without user, fragment, spaces or backslashes")
    host, port = found[1].lower(), int(found[2] or HTTPS_PORT)
    labels = host.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(each) for each in labels) or _NUMBER.fullmatch(labels[-1]):
        raise EgressRefused("must name a host by its whole name in the DNS, not by an address")
    if port not in ports:
        raise EgressRefused(f"must use port {' or '.join(map(str, ports))}")
    return Target(host, port)


def is_public(address: str) -> bool:
    """Whether an address, as a resolver wrote it, is that of a host on the Internet."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_host(found) and not any(found in each for each in _NOT_HOSTS)
    # IPv4-mapped, -compatible, NAT64, unique local, link-local, site-local and multicast all lie outside of 2000::/3.
    is_unicast = found.scope_id is None and found in _IPV6
    return is_unicast and _is_host(found) and not any(found in each for each in _NOT_IPV6)


def _is_host(address: IPv4Address | IPv6Address) -> bool:
    """Not private, loopback, link-local, shared (CGNAT), unspecified, of an example, reserved or multicast."""
    return address.is_global and not address.is_multicast


def look_up(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, those first that this machine prefers. Blocks; raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def pin(target: Target, resolve: Resolve = look_up, allowed: Callable[[str], bool] = is_public) -> Pinned:
    """Resolve a target, once. Raises EgressRefused where any of its addresses isn't public, OSError.

    One that leads inside, among others, is enough: which one a client tries is up to whoever runs the name's server.
    `allowed` is another judgment than `is_public` in tests only, which have no public hosts.
    """
    found = resolve(target.host, target.port)[: _MAX_ANSWERS + 1]
    if not found or len(found) > _MAX_ANSWERS or not all(allowed(each) for each in found):
        raise EgressRefused("must name a host on the Internet: its name leads to no public address, or not only there")
    return Pinned(target.host, target.port, found[0])
