"""Typed readers of the environment. Any NAME can be given as NAME_FILE, a file that holds the value."""

from __future__ import annotations

import json
import os
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def text(name: str, default: str | None = None) -> str:
    """Returns NAME, else the content of the file NAME_FILE, else `default`; no default: NAME is required."""
    value = os.environ.get(name)
    if value:
        return value
    file = os.environ.get(f"{name}_FILE")
    if file:
        return Path(file).read_text(encoding="utf-8").strip()
    if default is None:
        raise ImproperlyConfigured(f"set {name} (or {name}_FILE) in the environment")
    return default


def flag(name: str, *, default: bool) -> bool:
    value = text(name, "1" if default else "0").lower()
    if value not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ImproperlyConfigured(f"{name} must be 1 or 0, not {value!r}")
    return value in ("1", "true", "yes", "on")


def number(name: str, default: int) -> int:
    value = text(name, str(default))
    try:
        return int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}") from None


def words(name: str, default: str = "") -> list[str]:
    """Returns the parts of a comma-separated list."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def networks(name: str) -> list[IPv4Network | IPv6Network]:
    """Returns the networks of a comma-separated list, such as ``10.0.0.0/8, 192.168.1.7``."""
    try:
        return [ip_network(word) for word in words(name)]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be IP addresses and networks: {error}") from None


def folders(name: str) -> dict[str, str]:
    """Returns the folders of a comma-separated list of ``label=/folder``, by label."""
    pairs = [pair.partition("=") for pair in words(name)]
    for label, equals, folder in pairs:
        if not label or not folder.startswith("/"):
            raise ImproperlyConfigured(f"{name} must be name=/folder, …, not {label + equals + folder!r}")
    return {label: folder for label, _, folder in pairs}


def var_dir() -> Path:
    """Returns the directory of all data outside the database (VIGIA_VAR)."""
    return Path(text("VIGIA_VAR", str(BASE_DIR / "var"))).expanduser().absolute()


@cache
def local_stack() -> dict[str, Any]:
    """Returns the local stack's `stack.json` (addresses, its secret key); empty without a local stack."""
    path = var_dir() / "stack.json"
    try:
        stack = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return stack if isinstance(stack, dict) else {}


def artifact_key(default: str) -> str:
    """Returns ARTIFACT_KEY from the environment, else from the local stack's file, else `default`."""
    try:
        kept = (var_dir() / "artifact-key").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    return text("ARTIFACT_KEY", kept or default)


def from_stack(name: str, stack_key: str) -> str:
    """Returns NAME from the environment, else the local stack's value."""
    value = text(name, str(local_stack().get(stack_key) or ""))
    if not value:
        raise ImproperlyConfigured(f"set {name}, or start the local stack with `make run`")
    return value
