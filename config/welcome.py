"""The text that a start prints: addresses, the places of password and key, and a first prediction."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CAT = "docker compose exec web cat"


def address(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the address at which the compose file's proxy answers, for a client on the same machine."""
    domain = environment.get("VIGIA_DOMAIN")
    if domain:
        port = environment.get("VIGIA_PUBLISH_TLS", "").rpartition(":")[2] or "443"
        return f"https://{domain.split(',')[0].strip()}{'' if port == '443' else f':{port}'}"
    host, _, port = (environment.get("VIGIA_PUBLISH") or "127.0.0.1:8000").rpartition(":")
    # Every interface, and a port without an interface, include loopback.
    host = "127.0.0.1" if host in ("", "0.0.0.0", "[::]") else host  # noqa: S104
    return f"http://{host}{'' if port == '80' else f':{port}'}"


def local(var: Path, password: str, key: str, unusable: Mapping[int, str], first: Any) -> str:
    """Returns the text of `make run`, for the terminal of its user alone: it holds password and key."""
    place = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    lines = [
        *_pages(place, f"password {password}", str(var / "client-key"), unusable),
        *_prediction(place, first, f"'Authorization: Token {key}'", " \\\n ", "curl -s"),
    ]
    return "\n".join([*lines, "", "Ctrl-C stops everything.", ""])


def compose(
    var: Path, unusable: Mapping[int, str], first: Any, environment: Mapping[str, str] = os.environ
) -> str:
    """Returns the text of the containers, without secrets, because it is written to their log."""
    place = address(environment)
    password, key = var / "admin-password", var / "client-key"
    shown = f"password: {CAT} {password}" if password.exists() else "the password that you set"
    lines = _pages(place, shown, f"{CAT} {key}" if key.exists() else "", unusable)
    if key.exists():
        # curl does not know Caddy's own authority, so it cannot check the certificate.
        curl = "curl -sk" if environment.get("VIGIA_CERTIFICATES") == "local_certs" else "curl -s"
        header = f'"Authorization: Token $({CAT.replace("exec", "exec -T")} {key})"'
        # One line: the log puts the service's name before each line.
        lines += _prediction(place, first, header, "", curl)
    return "\n".join([*lines, ""])


def _pages(place: str, password: str, key: str, unusable: Mapping[int, str]) -> list[str]:
    return [
        "",
        f"Vigía is up{', DEGRADED' if unusable else ''}: {place}/",
        *(f"  CANNOT ANSWER  {reason}" for reason in unusable.values()),
        f"  admin          {place}/admin/   user admin, {password}",
        f"  browsable API  {place}/api/v1/models/   (log in through the admin)",
        f"  movies         {place}/movies/   (the same login)",
        f"  documentation  {place}/api/docs/",
        *([f"  client key     {key}   (every right; keep it secret)"] if key else []),
    ]


def _prediction(place: str, version: Any, header: str, line_end: str, curl: str) -> list[str]:
    """Returns a command for a first prediction by the version; nothing without a version."""
    if version is None:
        return []
    body = json.dumps(version.dataset_schema.example, ensure_ascii=False).replace("'", "'\\''")
    command = (
        f"{curl} {place}/api/v1/models/{version.registered_model.name}/predictions/{line_end}"
        f" -H {header} -H 'Content-Type: application/json'{line_end}"
        f" -d '{body}'"
    )
    where = ", in the directory of the compose file" if "docker compose" in header else ""
    return ["", f"A first prediction{where}:", "", *command.split("\n")]
