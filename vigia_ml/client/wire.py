"""Between `Request` and `Reply` and httpx."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio.to_thread
import httpx

from vigia_ml.client.flow import Reply, Request, Upload
from vigia_ml.client.settings import Target

CONNECT_SECONDS: Final = 10.0
PIECE: Final = 2**18


def library_version() -> str:
    """Returns the version of the installed library, or ``0`` where it runs from its source."""
    try:
        return metadata.version("vigia-ml")
    except metadata.PackageNotFoundError:
        return "0"


def options(target: Target, timeout: float) -> dict[str, Any]:
    """Returns the arguments of an httpx client that talks to `target`.

    It does not follow redirects, so that no other host gets the key. A service on loopback is reached without
    the proxy that the environment names. SSL_CERT_FILE names certificates of authorities to trust.
    """
    authorities = os.environ.get("SSL_CERT_FILE")
    secure = target.url.startswith("https://")
    return {
        "base_url": target.url,
        "headers": {
            "Authorization": f"Token {target.key}",
            "Accept": "application/json",
            "User-Agent": f"vigia-ml/{library_version()} python/{platform.python_version()}",
        },
        "timeout": timeouts(timeout),
        "follow_redirects": False,
        "trust_env": not target.is_loopback,
        "verify": ssl.create_default_context(cafile=authorities) if secure and authorities else True,
    }


def timeouts(seconds: float) -> httpx.Timeout:
    """Returns limits for each step of a request: a connection is made soon or not at all."""
    return httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))


def arguments(
    request: Request, files: ExitStack | AsyncExitStack, stream: Callable[[BinaryIO], Any]
) -> dict[str, Any]:
    """Returns the arguments of httpx for a request; opened files are closed with `files`.

    Parameters
    ----------
    stream : returns the pieces of a file, for a blocking or an asynchronous client.
    """
    headers = dict(request.headers)
    found: dict[str, Any] = {"method": request.method, "url": request.path, "headers": headers}
    if request.params:
        found["params"] = dict(request.params)
    if request.timeout is not None:
        found["timeout"] = timeouts(request.timeout)
    if isinstance(request.body, bytes):
        found["content"] = request.body
    elif isinstance(request.body, Path):
        file = files.enter_context(request.body.open("rb"))
        headers["Content-Length"] = str(request.body.stat().st_size)
        found["content"] = stream(file)
    elif isinstance(request.body, Upload):
        upload = request.body
        headers["Content-Type"] = f"multipart/form-data; boundary={upload.boundary}"
        found["data"] = dict(upload.fields)
        found["files"] = {
            name: (path.name, files.enter_context(path.open("rb")), kind)
            for name, (path, kind) in upload.files.items()
        }
    return found


def pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


async def async_pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await anyio.to_thread.run_sync(file.read, PIECE):
        yield piece


def reply(response: httpx.Response, body: bytes | None = None) -> Reply:
    """Returns the answer; `body` replaces one that was not read into memory."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content if body is None else body)


def explained(error: httpx.TransportError, url: httpx.URL) -> str:
    """Returns a sentence on a failed connection, without the headers."""
    where = str(url).rstrip("/")
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error).upper():
            return f"the certificate of {where} was not accepted: {error}"
        return (
            f"no connection to {where}: {error or 'timed out'}. Check the address, and that the service runs"
        )
    if isinstance(error, httpx.TimeoutException):
        return f"{where} did not answer in time; a longer timeout= waits for longer"
    return f"the connection to {where} was cut: {error or type(error).__name__}"
