"""Matches outcomes that arrived before their prediction: they wait under its key.

An outcome with a time of observation is joined to the newest prediction made until then, never to a later
one. An outcome without one (its `observed_at` is its `received_at`) is joined to the newest prediction.

A transaction that writes outcomes of a model holds the model's lock until it ends.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from core.uuid7 import LAST
from predictions.models import Lock, Outcome

JOINED_AT_ONCE: Final = 5_000  # waiting outcomes examined in one statement
JOINED_BY_A_REQUEST: Final = 500
LATE_COMMITS: Final = dt.timedelta(hours=1)
"""Longest time, generously, between a prediction's id and the moment when other transactions see it."""


def join_waiting() -> int:
    """Joins waiting outcomes with predictions that have arrived since; returns the number joined."""
    joined = 0
    waiting = _joinable()
    models = list(waiting.order_by().values_list("registered_model_id", flat=True).distinct())
    for model_id in models:
        rows = waiting.filter(registered_model_id=model_id).order_by("pk").values_list("pk", "key")
        after = 0
        while keys := list(rows.filter(pk__gt=after)[:JOINED_AT_ONCE]):
            with transaction.atomic():
                Lock.OUTCOMES.take(model_id)
                joined += _join_keys(model_id, {key for _, key in keys if key is not None})
            after = keys[-1][0]
    return joined


def _joinable() -> QuerySet[Outcome, Outcome]:
    """Returns the waiting outcomes whose prediction may still appear.

    An outcome with a time of observation waits only for predictions made before it was sent, which a late
    commit or another clock hid for a moment.
    """
    recent = timezone.now() - LATE_COMMITS
    waiting = Outcome.objects.filter(prediction_id__isnull=True)
    return waiting.filter(Q(observed_at=F("received_at")) | Q(received_at__gt=recent))


def join(model_id: int, keys: Iterable[str]) -> None:
    """Joins the outcomes that wait under these keys, and some that have waited longest."""
    waiting = _joinable().filter(registered_model_id=model_id)
    oldest = waiting.order_by("pk").values_list("key", flat=True)[:JOINED_BY_A_REQUEST]
    _join_keys(model_id, {*keys, *(key for key in oldest if key is not None)})


def _join_keys(model_id: int, keys: set[str]) -> int:
    """Joins the outcomes that wait under `keys` with their predictions; returns the number joined.

    The condition on null makes a second call harmless. The caller holds the model's lock.
    """
    if not keys:
        return 0
    statement = """
        UPDATE predictions_outcome AS outcome SET prediction_id = newest.id
        FROM (
            SELECT id, key, CASE WHEN observed_at = received_at THEN %s::uuid ELSE
                -- the first id of the next millisecond, as `core.uuid7.lowest_at` computes it
                (lpad(to_hex(greatest(floor(extract(epoch FROM observed_at) * 1000)::bigint + 1, 0)), 12, '0')
                || repeat('0', 20))::uuid END AS before
            FROM predictions_outcome
            WHERE registered_model_id = %s AND prediction_id IS NULL AND key = ANY(%s::text[])
        ) AS waiting, LATERAL (
            SELECT log.id FROM predictions_prediction log
            WHERE log.registered_model_id = %s AND log.key = waiting.key AND log.id < waiting.before
            ORDER BY log.id DESC LIMIT 1
        ) AS newest
        WHERE outcome.id = waiting.id AND outcome.prediction_id IS NULL
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [LAST, model_id, sorted(keys), model_id])
        return int(cursor.rowcount)
