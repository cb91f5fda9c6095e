"""Idempotency keys: a retried POST gets the response of the first one, and no work is done twice.

Predictions store their response in the log writer's transaction. Every other POST that creates rows runs
through `answer_once`, in the transaction that creates the rows.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from core.errors import Conflict
from training.models import IdempotencyKey
from vigia_ml.errors import Malformed

KEY_LENGTH: Final = 200
SETTLING_SECONDS: Final = 1.0


class KeyReused(Conflict):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used with another request: send a new key")


@dataclass(frozen=True, slots=True)
class RetryKey:
    """A client's idempotency key and the digest of its request."""

    client_id: int
    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A stored response: status, body as JSON, and headers."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


def is_valid_key(key: str) -> bool:
    """Returns whether the key has 1 to `KEY_LENGTH` printable ASCII characters."""
    return 0 < len(key) <= KEY_LENGTH and key.isascii() and key.isprintable()


def check_key(key: str) -> None:
    """Raises `Malformed` for a key that cannot be stored."""
    if not is_valid_key(key):
        message = f"Idempotency-Key must be 1 to {KEY_LENGTH} printable ASCII characters"
        raise Malformed(message, code="bad_idempotency_key")


def request_sha256(path: str, content_type: str, body_sha256: str) -> str:
    """Returns the digest that identifies a POST: path with parameters, content type, body."""
    return hashlib.sha256(f"POST {path} {content_type} {body_sha256}".encode()).hexdigest()


def stored_response(retry: RetryKey) -> StoredResponse | None:
    """Returns the response to an earlier request with this key, or None.

    Raises
    ------
    KeyReused : the key belongs to another request.
    """
    expired = Now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)  # the clock that `vigia_claim` uses
    rows = IdempotencyKey.objects.filter(client_id=retry.client_id, key=retry.key, created_at__gte=expired)
    row = rows.first()
    if row is None:
        return None
    if row.request_sha256 != retry.request_sha256:
        raise KeyReused
    return StoredResponse(row.status, row.answer, row.headers)


def answer_once(
    retry: RetryKey, create: Callable[[], StoredResponse], *, in_transaction: bool = True
) -> tuple[StoredResponse, bool]:
    """Returns (response, whether an earlier request with this key created it). An error of `create` is not
    stored.

    The transaction that creates the rows also stores the response, so that both exist or neither. If two
    requests run at the same time, the later one finds the key taken and its work is rolled back.

    Parameters
    ----------
    in_transaction : False for long work that creates no rows; then only the response is stored.

    Raises
    ------
    KeyReused, and the errors of `create`.
    """
    earlier = stored_response(retry)
    if earlier is not None:
        return earlier, True
    try:
        with transaction.atomic() if in_transaction else nullcontext():
            response = create()
            if not _store(retry, response):
                raise _Taken
    except Exception:
        # This request may have failed because the earlier one had done the work.
        earlier = stored_response(retry)
        if earlier is None:
            raise
        return earlier, True
    return response, False


def settled_response(retry: RetryKey, stored: StoredResponse, mark: str) -> StoredResponse:
    """Returns the stored response after its request has removed the header `mark`, right after its commit.

    If that request died in between, returns the response as stored, without the mark.
    """
    until = time.monotonic() + SETTLING_SECONDS
    while mark in stored.headers and time.monotonic() < until:
        time.sleep(0.01)
        stored = stored_response(retry) or stored
    headers = {name: value for name, value in stored.headers.items() if name != mark}
    return StoredResponse(stored.status, stored.body, headers)


def replace_response(retry: RetryKey, response: StoredResponse) -> None:
    """Stores a newer response under a key, after an accepted job has finished."""
    IdempotencyKey.objects.filter(
        client_id=retry.client_id, key=retry.key, request_sha256=retry.request_sha256
    ).update(answer=response.body, status=response.status, headers=response.headers)


class _Taken(Exception):
    """Another request stored its response under the key first."""


def _store(retry: RetryKey, response: StoredResponse) -> bool:
    """Stores a response; returns False when an unexpired row holds the key. Waits for a concurrent
    transaction."""
    statement = """
        INSERT INTO predictions_idempotencykey AS k
            (client_id, key, request_sha256, answer, created_at, status, headers)
        VALUES (%s, %s, %s, %s, now(), %s, %s)
        ON CONFLICT (client_id, key) DO UPDATE
        SET request_sha256 = EXCLUDED.request_sha256, answer = EXCLUDED.answer, created_at = now(),
            status = EXCLUDED.status, headers = EXCLUDED.headers
        WHERE k.created_at < now() - make_interval(hours => %s)
    """
    row: list[Any] = [retry.client_id, retry.key, retry.request_sha256, response.body, response.status]
    with connection.cursor() as cursor:
        cursor.execute(statement, [*row, json.dumps(response.headers), settings.IDEMPOTENCY_HOURS])
        return bool(cursor.rowcount)
