"""Fixtures of the tests of the standard protocols."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from tests import fast_path
from tests.grapes import grapes
from tests.web.protocols.v2_requests import HEADER, Both, Sent
from web.fast_path import FastPath

__all__ = ["grapes"]


@pytest.fixture
def both(api: APIClient) -> Both:
    """A function that sends a request to Django and to the fast path; returns both answers."""
    path_of_process = FastPath()

    def send(
        path: str, body: Any, json_length: str | None = None, **headers: str
    ) -> tuple[Sent, Sent | None]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = headers | ({} if json_length is None else {HEADER: json_length})
        plain = api.generic("POST", path, raw, content_type="", headers=sent)
        used = {name.replace("-", "_").lower(): value for name, value in sent.items()}
        key = api._credentials["HTTP_AUTHORIZATION"]
        used.setdefault("content_type", "application/json")
        quick = fast_path.ask(path_of_process, path, raw, key, **used)
        answered = None if quick is None else (quick.status, _fields(quick.headers), quick.body)
        return (plain.status_code, dict(plain.headers), plain.content), answered

    return send


def _fields(headers: Any) -> dict[str, str]:
    return {name.decode().title(): value.decode() for name, value in headers}
