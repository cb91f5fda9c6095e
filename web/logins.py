"""Limits on guessing passwords: whose attempts count together, and the answer to one too many.

django-axes counts wrong passwords by user name and client address together, so nobody can lock a person out
from elsewhere. Keys need no such limit: they are 256 random bits, and a wrong one costs one look-up by hash.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from axes.helpers import get_cool_off
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from web import errors


def client_address(request: HttpRequest) -> str | None:
    """The address of the client as the last trusted proxy saw it, or as the socket has it without a proxy.

    An IPv6 client owns a network of 64 bits, so its addresses count as one.
    """
    given = request.META.get("REMOTE_ADDR", "")
    if settings.CLIENT_ADDRESS_HEADER:
        header = f"HTTP_{settings.CLIENT_ADDRESS_HEADER.upper().replace('-', '_')}"
        # Each proxy appends the address it saw; whatever stands before is the client's own claim.
        seen = [part.strip() for part in request.META.get(header, "").split(",")]
        if len(seen) >= settings.TRUSTED_PROXIES and seen[-settings.TRUSTED_PROXIES]:
            given = seen[-settings.TRUSTED_PROXIES]
    try:
        address = ipaddress.ip_address(given.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False).network_address)
    return str(address)


def locked(request: HttpRequest, response: HttpResponse, credentials: Any) -> HttpResponse:
    """429, as a page or in the one shape."""
    pause = get_cool_off(request)
    seconds = int(pause.total_seconds()) if pause else 0
    message = (
        f"too many wrong passwords for this user from this address: try again in {seconds // 60} minutes, "
        "or ask an administrator to unlock the login"
    )
    return errors.answer(request, 429, "too_many_attempts", message, {"Retry-After": str(seconds)})
