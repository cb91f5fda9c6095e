"""The log's writer: rows are committed before anyone is answered.

One transaction holds the rows and, where the client gave one, its idempotency key. Two requests with the
same key at the same moment meet at the key's unique constraint: the second waits for the first's commit,
and then finds the first's answer instead of writing its own.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.utils import timezone
from psycopg.types.json import Jsonb

from predictions.errors import LogUnavailable
from predictions.models import IdempotencyKey
from training.services.registry import ACTIVATION_FENCE

_COLUMNS = (
    "id, registered_model_id, version_id, client_id, key, "
    "inputs, prediction, probability, warnings, request_id"
)
# One multi-row INSERT is cheaper for a few rows, COPY for many.
COPY_FROM_ROWS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log, to be written."""

    id: uuid.UUID
    model_id: int
    version_id: int
    client_id: int | None
    key: str | None
    inputs: dict[str, Any]
    prediction: Any
    probability: float | None
    warnings: list[dict[str, str]]
    request_id: str

    def adapted(self) -> tuple[Any, ...]:
        return (
            self.id,
            self.model_id,
            self.version_id,
            self.client_id,
            self.key,
            Jsonb(self.inputs),
            Jsonb(self.prediction),
            self.probability,
            Jsonb(self.warnings),
            self.request_id,
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key with the request it stands for and the answer to be stored with it."""

    client_id: int
    key: str
    request_sha256: str
    answer: str


class AlreadyAnswered(Exception):
    """Another request with the same idempotency key was committed first."""


class VersionSwitched(Exception):
    """Another version became the active one since the answer was computed; nothing was written."""


def append(rows: Sequence[Row], claim: Claim | None = None, *, if_active: bool = False) -> None:
    """Writes rows (and the claim) in one transaction; on return they are committed.

    Parameters
    ----------
    if_active : write only if the rows' version is the active one at the commit. A shared advisory lock keeps
        an activation from committing between the check and this commit, so no answer that goes out after a
        switch was committed comes from the version before it.

    Raises
    ------
    VersionSwitched : see `if_active`.
    AlreadyAnswered : the claim's key was taken meanwhile; nothing was written.
    LogUnavailable : the database cannot be reached; whether the rows are there is unknown only when the
        connection broke during COMMIT, and then a retry with the same idempotency key is safe.
    """
    try:
        # durable: this must be the outermost transaction, or "committed before the answer" would be a lie.
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            if if_active:
                _pass_the_fence(cursor, rows[0].model_id, rows[0].version_id)
            if claim is not None and not _claim(cursor, claim):
                raise AlreadyAnswered
            if len(rows) < COPY_FROM_ROWS:
                one = "(" + ", ".join(["%s"] * 10) + ")"
                values = [value for row in rows for value in row.adapted()]
                cursor.execute(
                    f"INSERT INTO predictions_prediction ({_COLUMNS}) VALUES {', '.join([one] * len(rows))}",  # noqa: S608
                    values,
                )
            else:
                with cursor.copy(f"COPY predictions_prediction ({_COLUMNS}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row.adapted())
    except (OperationalError, InterfaceError, InternalError) as error:  # internal: a read-only standby
        raise LogUnavailable from error


def _pass_the_fence(cursor: Any, model_id: int, version_id: int) -> None:
    cursor.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", [ACTIVATION_FENCE, model_id])
    # A statement of its own: its snapshot is taken after the lock was granted.
    cursor.execute("SELECT 1 FROM training_modelversion WHERE id = %s AND status = 'active'", [version_id])
    if cursor.fetchone() is None:
        raise VersionSwitched


@contextmanager
def holding_off_activations(model_id: int) -> Iterator[None]:
    """No activation of this model commits within: for a request that switches keep overtaking."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s, %s)", [ACTIVATION_FENCE, model_id])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock_shared(%s, %s)", [ACTIVATION_FENCE, model_id])


def _claim(cursor: Any, claim: Claim) -> bool:
    """Takes the key; False when a live one is there. Waits for an uncommitted one of the same name."""
    expired = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    cursor.execute(
        "INSERT INTO predictions_idempotencykey AS k (client_id, key, request_sha256, answer, created_at) "
        "VALUES (%s, %s, %s, %s, now()) ON CONFLICT (client_id, key) DO UPDATE "
        "SET request_sha256 = EXCLUDED.request_sha256, answer = EXCLUDED.answer, created_at = now() "
        "WHERE k.created_at < %s",
        [claim.client_id, claim.key, claim.request_sha256, claim.answer, expired],
    )
    return bool(cursor.rowcount)


def stored_answer(client_id: int, key: str) -> IdempotencyKey | None:
    """The live row of a client's idempotency key, or None."""
    expired = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    return IdempotencyKey.objects.filter(client_id=client_id, key=key, created_at__gte=expired).first()
