"""The limit on wrong passwords: the client address they are counted by, and the response beyond the limit.

django-axes counts wrong passwords by user name and client address together, so no other address can lock a
person out. Keys need no such limit: they are 256 random bits, and a wrong key costs one look-up by hash.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from axes.helpers import get_cool_off
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from web import errors


def client_address(request: HttpRequest) -> str | None:
    """Returns the client's address from the last trusted proxy, or from the socket without a proxy.

    An IPv6 client owns a 64-bit network, so its addresses count as one.
    """
    text = request.META.get("REMOTE_ADDR", "")
    if settings.CLIENT_ADDRESS_HEADER:
        header = f"HTTP_{settings.CLIENT_ADDRESS_HEADER.upper().replace('-', '_')}"
        # Each proxy appends the address of its peer; the client can set all entries before.
        addresses = [part.strip() for part in request.META.get(header, "").split(",")]
        if len(addresses) >= settings.TRUSTED_PROXIES and addresses[-settings.TRUSTED_PROXIES]:
            text = addresses[-settings.TRUSTED_PROXIES]
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False).network_address)
    return str(address)


def locked(request: HttpRequest, response: HttpResponse, credentials: Any) -> HttpResponse:
    """Returns the 429 response, as a page or as JSON."""
    pause = get_cool_off(request)
    seconds = int(pause.total_seconds()) if pause else 0
    message = (
        f"too many wrong passwords for this user from this address: try again in {seconds // 60} minutes, "
        "or ask an administrator to unlock the login"
    )
    return errors.answer(request, 429, "too_many_attempts", message, {"Retry-After": str(seconds)})
