"""The addresses to which events may be sent: public ones, and the networks of EVENTS_ALLOW_INTERNAL."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.conf import settings

from core.errors import Busy
from vigia_ml.errors import VigiaError

if TYPE_CHECKING:
    import httpx

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Result = TypeVar("Result")
LONGEST: Final = 2000
RESOLVE_SECONDS: Final = 5.0
# A request that waits for a name server holds a thread of its web process; see `core.events.trials`.
_checking: Final = threading.BoundedSemaphore(2)
_HOST: Final = re.compile(r"[0-9A-Za-z._:-]{1,253}")
_UNICAST: Final = ipaddress.ip_network("2000::/3")
_MAPPED: Final = ipaddress.ip_network("::ffff:0:0/96")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_INTERNAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # Azure's own services
        "2001::/23",  # protocol assignments, Teredo
        "2002::/16",  # 6to4, which embeds any IPv4 address
        "3fff::/20",  # documentation
    )
)
"""Networks that are refused, although `ipaddress` of some supported version of Python calls them global."""


class AddressRefused(VigiaError):
    """No event may be sent to the address."""

    code = "address_refused"


class HostUnknown(AddressRefused):
    """No name server that this process can ask knows the host."""


def run_in_thread(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine in a thread of its own, because a loop may run in the caller's; returns its result."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def check(address: str) -> None:
    """Checks an address as far as this process can resolve it; each attempt to send makes the full check.

    A web process without a way out of its network cannot resolve hosts, so an unknown host is no fault here.

    Raises
    ------
    AddressRefused : the address is malformed or internal.
    Busy : other requests of this process wait for name servers.
    """
    url = parsed(address)
    if not _checking.acquire(blocking=False):
        raise Busy("other addresses are being checked: try again in some seconds")
    try:
        with suppress(HostUnknown):
            run_in_thread(_checked(url))
    finally:
        _checking.release()


async def _checked(url: httpx.URL) -> None:
    with suppress(TimeoutError):  # as for an unknown host
        async with asyncio.timeout(RESOLVE_SECONDS):
            await resolved(url)


def parsed(address: str) -> httpx.URL:
    """Returns an address as URL; raises `AddressRefused` for an ambiguous address, and for a scheme or port
    that is not a web server's."""
    import httpx

    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise AddressRefused(f"the address is not a URL: {error}") from None
    if len(address) > LONGEST:
        raise AddressRefused(f"the address has over {LONGEST} characters")
    if url.scheme not in ("https", "http"):
        raise AddressRefused("the address must begin with https://")
    if url.userinfo or url.fragment or "\\" in address:
        raise AddressRefused("the address must have no user, no password, no fragment and no backslash")
    if not _HOST.fullmatch(host_of(url)):
        raise AddressRefused("the address must name a host, such as https://example.com/events")
    if not (port_of(url) in (80, 443) or 1024 <= port_of(url) < 65_536):
        raise AddressRefused("the port must be 443, 80, or from 1024 to 65535")
    return url


def host_of(url: httpx.URL) -> str:
    """Returns the host as name servers and certificates spell it."""
    return url.raw_host.decode("ascii").rstrip(".")


def port_of(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


async def resolved(url: httpx.URL) -> list[str]:
    """Returns the IP addresses of a URL's host; the caller may connect only to these.

    Raises
    ------
    HostUnknown : no address was found. AddressRefused : one of the addresses is internal.
    """
    try:
        found = await _look_up(host_of(url), port_of(url))
    except (OSError, UnicodeError):
        raise HostUnknown(f"no name server knows the host {host_of(url)}") from None
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        ip = ipaddress.ip_address(address)
        if not is_allowed(ip) and not is_public(ip):
            raise AddressRefused(
                f"{host_of(url)} is an internal address; the operator can allow its network by "
                "EVENTS_ALLOW_INTERNAL"
            )
        if url.scheme == "http" and not is_allowed(ip):
            raise AddressRefused("the address must begin with https://: anyone on the way can read http://")
    return addresses


async def _look_up(host: str, port: int) -> list[Any]:
    """Does what `loop.getaddrinfo` does, whose thread the loop would wait for at its end: a name server may
    take a minute."""
    pool = ThreadPoolExecutor(1, "resolve")
    try:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return await asyncio.get_running_loop().run_in_executor(pool, ask)
    finally:
        pool.shutdown(wait=False)


def is_allowed(ip: IPAddress) -> bool:
    """Returns whether the operator allows an address by EVENTS_ALLOW_INTERNAL."""
    return any(ip in network for network in settings.EVENTS_ALLOW_INTERNAL)


def is_public(ip: IPAddress) -> bool:
    """Returns whether an address belongs to the public internet. An IPv6 address that embeds an IPv4 address
    leads to the latter, so that one counts."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _MAPPED or ip in _NAT64:
            return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _INTERNAL)
