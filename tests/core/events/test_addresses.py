"""No event goes to an internal address, however it is spelt and whatever a name server answers."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Busy
from core.events import addresses
from core.events.addresses import AddressRefused, check

INTERNAL = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2001:0:53aa:64c:0:ffff:80ff:fffe",
    "2001:db8::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "5f00::1",
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("ip", INTERNAL)
def test_an_internal_address_is_refused(ip: str) -> None:
    host = f"[{ip}]" if ":" in ip else ip
    with pytest.raises(AddressRefused, match="internal"):
        check(f"https://{host}/hook")


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_is_accepted(ip: str) -> None:
    check(f"https://[{ip}]:8443/hook?team=1" if ":" in ip else f"https://{ip}:8443/hook?team=1")


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "127。0。0。1",
        "localhost",
        "LOCALHOST.",
    ],
)
def test_other_spellings_of_an_internal_address_are_refused(host: str) -> None:
    with pytest.raises(AddressRefused, match=r"internal|no name server|not a URL"):
        check(f"https://{host}/hook")


@given(st.integers(0, 2**32 - 1))
def test_an_ipv6_address_that_embeds_an_ipv4_address_is_as_public_as_that(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        embedded = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + number)
        assert addresses.is_public(embedded) == addresses.is_public(plain)
    for prefix in ("::", "64:ff9b:1::"):
        assert not addresses.is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + number))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://example.com/", "https"),
        ("file:///etc/passwd", "https"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "https"),
        ("example.com/hook", "https"),
        ("", "https"),
        ("https:///hook", "name a host"),
        ("https://user:secret@example.com/", "no user"),
        ("https://example.com\\@127.0.0.1/", "no user"),
        ("https://example.com#@127.0.0.1/", "fragment"),
        ("https://exa mple.com/", "name a host"),
        ("https://[fe80::1%25lo]/", "name a host"),
        ("https://example.com:25/", "port"),
        ("https://example.com:6379x/", "not a URL"),
        ("https://example.com:99999/", "port"),
        ("https://example.com/\r\nX-Injected: 1", "not a URL"),
        ("https://example.com/" + "a" * 2000, "characters"),
        ("http://1.1.1.1/hook", "https"),
    ],
)
def test_an_address_that_is_not_a_web_servers_is_refused(address: str, message: str) -> None:
    with pytest.raises(AddressRefused, match=message):
        check(address)


def test_one_internal_address_among_public_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("1.1.1.1", "10.0.0.7")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(AddressRefused, match="internal"):
        check("https://example.com/hook")


def test_the_operator_allows_a_network_and_no_other(settings: Any) -> None:
    settings.EVENTS_ALLOW_INTERNAL = [ipaddress.ip_network("127.0.0.0/30")]
    check("http://127.0.0.1:9000/hook")  # there without TLS too
    check("https://127.0.0.2/hook")
    for refused in (
        "http://127.0.0.5:9000/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://10.0.0.1/",
    ):
        with pytest.raises(AddressRefused):
            check(refused)


def test_a_host_that_this_process_cannot_resolve_is_accepted_at_saving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        answers.wait(10)
        return []

    check("https://no-such-host.invalid/hook")
    check("https://" + "a" * 70 + ".example/hook")
    monkeypatch.setattr(addresses, "RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    since = time.monotonic()
    try:
        check("https://example.com/hook")
        assert time.monotonic() - since < 5  # the name server still thinks
    finally:
        answers.set()


def test_few_requests_wait_for_name_servers_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Semaphore(0), threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        asked.release()
        answers.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    waiting = [threading.Thread(target=check, args=["https://example.com/hook"]) for _ in range(2)]
    for each in waiting:
        each.start()
        assert asked.acquire(timeout=5)
    with pytest.raises(Busy):
        check("https://example.com/hook")
    answers.set()
    for each in waiting:
        each.join()
    check("https://example.com/hook")
