"""Idempotency keys: a retried POST gets the response of the first one, and nothing is done twice.

Predictions store their answer in the log writer's transaction. Every other POST that creates something runs
through `answer_once`, in the transaction that creates it.
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
    """A client's idempotency key, and the digest of the request it stands for."""

    client_id: int
    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept: status, body as JSON, and headers."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


def is_valid_key(key: str) -> bool:
    """Whether the key has 1 to `KEY_LENGTH` printable ASCII characters."""
    return 0 < len(key) <= KEY_LENGTH and key.isascii() and key.isprintable()


def check_key(key: str) -> None:
    """Raises `Malformed` for a key that cannot be stored."""
    if not is_valid_key(key):
        message = f"Idempotency-Key must be 1 to {KEY_LENGTH} printable ASCII characters"
        raise Malformed(message, code="bad_idempotency_key")


def request_sha256(path: str, content_type: str, body_sha256: str) -> str:
    """Digest that tells one POST from another: path and parameters, content type, body."""
    return hashlib.sha256(f"POST {path} {content_type} {body_sha256}".encode()).hexdigest()


def stored_row(client_id: int, key: str) -> IdempotencyKey | None:
    """The live row of a client's key, or None; by the database's clock, as `vigia_claim` has it."""
    expired = Now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    return IdempotencyKey.objects.filter(client_id=client_id, key=key, created_at__gte=expired).first()


def stored_response(retry: RetryKey) -> StoredResponse | None:
    """The response to an earlier request with this key, or None.

    Raises
    ------
    KeyReused : the key stands for another request.
    """
    row = stored_row(retry.client_id, retry.key)
    if row is None:
        return None
    if row.request_sha256 != retry.request_sha256:
        raise KeyReused
    return StoredResponse(row.status, row.answer, row.headers)


def answer_once(
    retry: RetryKey, create: Callable[[], StoredResponse], *, in_transaction: bool = True
) -> tuple[StoredResponse, bool]:
    """(response, whether an earlier request with this key made it). An error of `create` is not stored.

    The response is stored in the transaction that creates, so that both are there or neither is. Of two
    requests at the same moment the later one finds the key taken, and its work is rolled back.

    Parameters
    ----------
    in_transaction : False for work that takes long and creates no rows; then only the response is stored.

    Raises
    ------
    KeyReused, and what `create` raises.
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
        # The other request may also be the reason why this one failed: it found the work done.
        earlier = stored_response(retry)
        if earlier is None:
            raise
        return earlier, True
    return response, False


def settled_response(retry: RetryKey, stored: StoredResponse, mark: str) -> StoredResponse:
    """The stored response once it has lost the header `mark`, which its request removes right after its
    commit. Where that request ended between the two, the response as it is, without the mark."""
    until = time.monotonic() + SETTLING_SECONDS
    while mark in stored.headers and time.monotonic() < until:
        time.sleep(0.01)
        stored = stored_response(retry) or stored
    headers = {name: value for name, value in stored.headers.items() if name != mark}
    return StoredResponse(stored.status, stored.body, headers)


def replace_response(retry: RetryKey, response: StoredResponse) -> None:
    """Stores a newer response under a key: what was accepted has finished meanwhile."""
    IdempotencyKey.objects.filter(
        client_id=retry.client_id, key=retry.key, request_sha256=retry.request_sha256
    ).update(answer=response.body, status=response.status, headers=response.headers)


class _Taken(Exception):
    """Another request stored its response under the key first."""


def _store(retry: RetryKey, response: StoredResponse) -> bool:
    """False when a live row holds the key. Waits for a transaction that is about to commit one."""
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
