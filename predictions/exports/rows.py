"""The rows of an export, oldest first, in pieces that bound the memory.

One short transaction reads each piece, so retention can remove a month during an export.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import connection, transaction

from predictions.exports.columns import LoggedRow, Outcomes

PIECE: Final = 20_000
LONGEST_PIECE: Final = 8 * 2**20
"""Characters of inputs after which a piece ends."""
FETCHED: Final = 1_000
FIRST: Final = uuid.UUID(int=0)

# ORDER BY has to name the table: `id` alone means the text column, which has no index.
_PIECE: Final = """
    SELECT log.id::text, log.version_id, log.client_id, log.key, log.batch_id, log.request_id,
        log.inputs::text, log.prediction::text, log.probability, log.probabilities::text, log.warnings::text
    FROM predictions_prediction log
    WHERE log.registered_model_id = %s AND log.id >= %s AND log.id < %s ORDER BY log.id LIMIT %s
"""
_OUTCOMES: Final = """
    SELECT DISTINCT ON (held.prediction_id)
        held.prediction_id::text AS prediction, held.actual::text, held.observed_at, held.received_at
    FROM predictions_outcome held
    WHERE held.registered_model_id = %s AND held.prediction_id >= %s AND held.prediction_id <= %s
    ORDER BY held.prediction_id, held.id DESC
"""
# Neither sum depends on the order of the rows, and a row in place of another one changes it.
_STATE: Final = """
    SELECT log.rows, log.hash, outcome.rows, outcome.hash FROM (
        SELECT count(*) AS rows, coalesce(bit_xor(uuid_hash_extended(id, 0)), 0) AS hash
        FROM predictions_prediction WHERE registered_model_id = %(model)s AND id >= %(low)s AND id < %(high)s
    ) log, (
        SELECT count(*) AS rows, coalesce(bit_xor(hashint8extended(id, 0)), 0) AS hash
        FROM predictions_outcome
        WHERE registered_model_id = %(model)s AND prediction_id >= %(low)s AND prediction_id < %(high)s
    ) outcome
"""


def state(model_id: int, low: uuid.UUID, high: uuid.UUID) -> list[int]:
    """Returns numbers that change with the predictions low <= id < high, or with their outcomes."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE, {"model": model_id, "low": str(low), "high": str(high)})
        return list(cursor.fetchone())


def pieces(model_id: int, low: uuid.UUID, high: uuid.UUID) -> Iterator[tuple[list[LoggedRow], Outcomes]]:
    """Yields the rows with low <= id < high, each piece with its current outcomes."""
    clients: dict[int | None, str | None] = {None: None}
    while rows := _piece(model_id, low, high, clients):
        yield rows, _outcomes(model_id, rows[0].id, rows[-1].id)
        low = uuid.UUID(int=uuid.UUID(rows[-1].id).int + 1)


def _piece(
    model_id: int, low: uuid.UUID, high: uuid.UUID, clients: dict[int | None, str | None]
) -> list[LoggedRow]:
    fetched: list[tuple[Any, ...]] = []
    length = 0
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(_PIECE, [model_id, str(low), str(high), PIECE])
        while length <= LONGEST_PIECE and (some := cursor.fetchmany(FETCHED)):
            fetched += some
            length += sum(len(row[6]) for row in some)
    unknown = {row[2] for row in fetched} - clients.keys()
    if unknown:
        clients.update(User.objects.filter(pk__in=unknown).values_list("pk", "username"))
    return [LoggedRow._make((*row[:2], clients[row[2]], *row[3:])) for row in fetched]


def _outcomes(model_id: int, first: str, last: str) -> Outcomes:
    with connection.cursor() as cursor:
        cursor.execute(_OUTCOMES, [model_id, first, last])
        return {row[0]: row[1:] for row in cursor.fetchall()}
