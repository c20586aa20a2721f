"""Where tenants' URLs may lead: which spellings and which addresses are refused, and that a name is looked up once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services._mesh.egress import EgressRefused, Pinned, Target, check_url, is_public, pin

PLAIN = ("https://idp.example.com", "https://IDP.example.com/a/b?c=d&e=%20", "https://x.vault.azure.net/keys/k/v")
NO_PLAIN_URLS = (
    "http://idp.example.com/",
    "ftp://idp.example.com/",
    "HTTPS://idp.example.com/",
    "https:idp.example.com/",
    "https:///idp.example.com/",
    "//idp.example.com/",
    "https://user@idp.example.com/",
    "https://user:word@idp.example.com/",
    "https://idp.example.com@metadata.example/",
    "https://idp.example.com\\@metadata.example/",
    "https://idp.example.com#@metadata.example/",
    "https://idp.example.com/#fragment",
    "https://idp.example.com?query",
    "https://idp.example.com /",
    "https://idp.example.com/\r\nHost: metadata.example",
    "https://idp.example.com/\n",
    "https://idp%2eexample.com/",
    "https://idp。example.com/",
    "https://ıdp.example.com/",
    "https://idp.example.com:/",
    "https://idp.example.com:0443/",
    "https://idp.example.com/" + "a" * 2048,
)
NO_NAMES = (
    "localhost",
    "metadata",
    "idp.example.com.",
    ".example.com",
    "idp..example.com",
    "-idp.example.com",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "127.1",
    "127.0x",
    "a.example.1",
)
IPV6_LITERALS = ("[::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "[fe80::1%25eth0]")
PUBLIC = ("93.184.215.14", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001:80b::200e")
METADATA = (
    "169.254.169.254",  # AWS, Azure, Google, and most others
    "169.254.170.2",  # AWS, of containers
    "fd00:ec2::254",  # AWS
    "fd20:ce::254",  # Google
    "168.63.129.16",  # Azure, of the machine itself
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
)
NOT_PUBLIC = (
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "172.16.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fdff::1",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "4000::1",
)
# A public IPv4 address within them doesn't help: whoever translates it decides where it leads.
CARRYING_IPV4 = tuple(
    form
    for inside in ("7f00:1", "a9fe:a9fe", "808:808")
    for form in (
        f"::ffff:{inside}",
        f"::{inside}",
        f"64:ff9b::{inside}",
        f"64:ff9b:1::{inside}",
        f"2002:{inside if inside != '7f00:1' else '7f00:0001'}::1",
        f"2001:0:{inside}::1",
    )
)
NO_ADDRESSES = ("", "127.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "2606:4700::1111%eth0", "example.com")


@pytest.mark.parametrize("url", PLAIN)
def test_a_plain_https_url_is_taken(url: str) -> None:
    assert check_url(url) == Target(url.lower().split("/")[2], 443)


@pytest.mark.parametrize("url", [*NO_PLAIN_URLS, *(f"https://{host}/" for host in (*NO_NAMES, *IPV6_LITERALS))])
def test_a_url_that_could_be_read_in_another_way_is_refused(url: str) -> None:
    with pytest.raises(EgressRefused):
        check_url(url)


def test_other_ports_have_to_be_allowed() -> None:
    with pytest.raises(EgressRefused, match="must use port 443"):
        check_url("https://idp.example.com:8443/")
    assert check_url("https://idp.example.com:8443/", (443, 8443)).port == 8443


@pytest.mark.parametrize("address", PUBLIC)
def test_hosts_on_the_internet_are_gone_to(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [*METADATA, *NOT_PUBLIC, *CARRYING_IPV4, *NO_ADDRESSES])
def test_all_other_addresses_are_refused(address: str) -> None:
    assert not is_public(address)


class Dns:
    """A name's server that answers differently each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)

    def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0)


def test_a_name_is_looked_up_once_and_its_address_kept() -> None:
    dns = Dns(["93.184.215.14", "2606:4700::1111"], ["169.254.169.254"])
    assert pin(Target("idp.example.com", 443), dns) == Pinned("idp.example.com", 443, "93.184.215.14")
    assert len(dns.answers) == 1


@pytest.mark.parametrize("answer", [[], ["169.254.169.254"], ["8.8.8.8", "127.0.0.1"], ["8.8.8.8"] * 65])
def test_a_name_that_leads_inside_also_is_refused(answer: list[str]) -> None:
    with pytest.raises(EgressRefused) as refused:
        pin(Target("idp.example.com", 443), Dns(answer))
    # What a name of our own network resolves to isn't told to whoever asks.
    assert not any(address in str(refused.value) for address in answer)
