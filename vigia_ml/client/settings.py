"""The address and the key of a service: arguments, environment, or the login file of `vigiactl`."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from vigia_ml.errors import VigiaError

_KEY: Final = re.compile(r"[!-~]{1,500}")


class NotConfigured(VigiaError):
    """Raised when the address or the key of the service is missing or cannot be used."""

    code = "not_configured"


class InsecureTransport(UserWarning):
    """The key would cross a network unencrypted."""


class Login(msgspec.Struct, frozen=True):
    """The content of the login file."""

    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a service, without a final slash, and the client key. The key is not shown by `repr`."""

    url: str
    key: str = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.url)


def resolve(url: str | None = None, key: str | None = None) -> Target:
    """Returns the target from the arguments, else from VIGIA_URL and VIGIA_KEY, else from the login file.

    The key of the login file goes only to the address of the login file.

    Raises
    ------
    NotConfigured : the address or the key is missing or malformed, or others may read the login file.
    """
    address = url or os.environ.get("VIGIA_URL") or ""
    secret = key or os.environ.get("VIGIA_KEY") or ""
    if not address or not secret:
        login = read_login()
        if login is not None and not address:
            address = login.url
        if login is not None and not secret and _same_service(address, login.url):
            secret = login.key
    how = "pass it as an argument, set {}, or run `vigiactl login`"
    if not address:
        raise NotConfigured(f"the address of the service is not known: {how.format('VIGIA_URL')}")
    if not secret:
        raise NotConfigured(f"there is no client key for {address}: {how.format('VIGIA_KEY')}")
    target = Target(checked_url(address), checked_key(secret))
    if target.url.startswith("http://") and not target.is_loopback:
        message = f"{target.url} is not encrypted: others in the network can read the key; use https"
        warnings.warn(message, InsecureTransport, stacklevel=3)
    return target


def checked_url(url: str) -> str:
    """Returns a valid address without its final slash."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise NotConfigured(f"{url[:80]!r} is not an address: write it as http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise NotConfigured("the address must not hold a user name, a query or a fragment")
    path = parts.path.rstrip("/")
    for suffix in ("/api/v1", "/api"):  # the address of the API is the most likely mistake
        path = path.removesuffix(suffix)
    return f"{parts.scheme}://{parts.netloc}{path}"


def checked_key(key: str) -> str:
    """Returns the key without surrounding white space. The error does not quote it."""
    key = key.strip().removeprefix("Token ").strip()
    if not _KEY.fullmatch(key):
        raise NotConfigured("the client key is malformed: it is one word of ASCII letters and digits")
    return key


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _same_service(first: str, second: str) -> bool:
    return checked_url(first) == checked_url(second)


# -- the login file ------------------------------------------------------------------------------------


def login_path() -> Path:
    """Returns the path of the login file: ``vigia/config.json`` in XDG_CONFIG_HOME or ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return home / "vigia" / "config.json"


def read_login() -> Login | None:
    """Returns the stored login, or None."""
    path = login_path()
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotConfigured(f"{path} cannot be read: {error.strerror}") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise NotConfigured(f"other users can read the key in {path}: run chmod 600 {path}")
    try:
        return msgspec.json.decode(content, type=Login)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NotConfigured(f"{path} is not a login file: run `vigiactl login` again") from None


def write_login(login: Login) -> Path:
    """Stores the login, readable by this user alone, and returns the file's path."""
    path = login_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(login)) + b"\n")
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return path


def forget_login() -> bool:
    """Deletes the login file; returns whether there was one."""
    try:
        login_path().unlink()
    except FileNotFoundError:
        return False
    return True
