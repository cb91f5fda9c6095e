"""A POST to an address of a user: bounded in time and size, without redirects, to checked IP addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from core.events import addresses
from core.events.channels import SEND_SECONDS, Undelivered
from core.version import VERSION

if TYPE_CHECKING:
    import ssl

    import httpx

CONNECT_SECONDS: Final = 5.0
BODY_SECONDS: Final = 2.0
ANSWER_BYTES: Final = 16_384
SHOWN_CHARACTERS: Final = 300
LONGEST_PAUSE: Final = 24 * 3600.0
"""Maximum pause in seconds that a receiver can ask for by Retry-After."""


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    seconds: float
    retry_after: float | None = None

    def in_words(self) -> str:
        """Returns status, duration and the beginning of the body, on one line."""
        try:
            phrase = f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            phrase = str(self.status)
        return f"{phrase} in {self.seconds * 1000:.0f} ms" + (f": {self.text}" if self.text else "")


def deliver(address: str, body: bytes, headers: Mapping[str, str]) -> str:
    """Sends a POST and returns the receiver's answer in words.

    Raises
    ------
    Undelivered : the address is refused, the receiver cannot be reached in time, or its answer is not 2xx.
    """
    answer = post(address, body, headers)
    if 200 <= answer.status < 300:
        return answer.in_words()
    reason = f"the receiver answered {answer.in_words()}"
    if 300 <= answer.status < 400:
        reason += " (redirects are not followed: change the address)"
    raise Undelivered(reason, retry_after=answer.retry_after, gone=answer.status == HTTPStatus.GONE)


def post(address: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Sends a POST and returns the answer, whatever its status; see `deliver`."""
    import httpx

    try:
        return addresses.run_in_thread(_post(address, body, headers))
    except addresses.AddressRefused as error:
        raise Undelivered(error.message) from None
    except (TimeoutError, httpx.TimeoutException):
        raise Undelivered(f"the receiver did not answer within {SEND_SECONDS:.0f} s") from None
    except (httpx.HTTPError, OSError) as error:
        raise Undelivered(f"the receiver could not be reached: {_clean(str(error))}") from None


async def _post(address: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    import httpx

    tls = _tls()  # reads the authorities from a file, at first
    since = time.monotonic()
    url = addresses.parsed(address)
    timeout = httpx.Timeout(SEND_SECONDS, connect=CONNECT_SECONDS)
    own = {"User-Agent": f"Vigia/{VERSION}", "Accept-Encoding": "identity"}
    async with (
        asyncio.timeout(SEND_SECONDS),
        # A proxy of the environment would resolve the name again.
        httpx.AsyncClient(verify=tls, timeout=timeout, trust_env=False) as client,
    ):
        ips = await addresses.resolved(url)
        for ip in ips:
            # The connection leads to the address that was checked, while Host and SNI name the host.
            request = client.build_request(
                "POST",
                url.copy_with(host=ip),
                content=body,
                headers={**own, **headers, "Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": addresses.host_of(url)},
            )
            try:
                response = await client.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if ip == ips[-1]:
                    raise
            else:
                break
        try:
            text = await _beginning(response)
        finally:
            await response.aclose()
    pause = _pause(response.headers.get("Retry-After"))
    return Answer(response.status_code, text, time.monotonic() - since, pause)


async def _beginning(response: httpx.Response) -> str:
    """Returns the first words of a body. A body that is long, slow or broken is no fault: the status has told
    what the receiver decided."""
    import httpx

    read = b""
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in response.aiter_raw():
                read += piece
                if len(read) >= ANSWER_BYTES:
                    break
    return _clean(read[:ANSWER_BYTES].decode("utf-8", "replace"))


def _clean(text: str) -> str:
    """Returns the beginning of a text on one line, without control characters."""
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return words if len(words) <= SHOWN_CHARACTERS else words[: SHOWN_CHARACTERS - 1] + "…"


def _pause(header: str | None) -> float | None:
    """Returns the seconds of a header Retry-After; None for an absent or malformed one."""
    if not header:
        return None
    try:
        seconds = float(header) if header.isascii() and header.isdigit() else _seconds_until(header)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


@cache
def _tls() -> ssl.SSLContext:
    """Returns the settings of TLS: the authorities of certifi, or of SSL_CERT_FILE."""
    import httpx

    return httpx.create_ssl_context()
