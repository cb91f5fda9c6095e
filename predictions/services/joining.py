"""Outcomes that came before their prediction wait under its key, and are joined when it has come.

Whoever writes outcomes of a model holds the model's lock until the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.db import connection, transaction

from predictions.models import Outcome

LOCK: Final = 22122
"""Class of the advisory lock that writers of one model's outcomes take, with the model's id."""
JOINED_AT_ONCE: Final = 5_000  # waiting outcomes looked at in one statement
JOINED_BY_A_REQUEST: Final = 500


def join_waiting() -> int:
    """Gives outcomes that wait under a key their prediction, where it has come since; how many."""
    joined = 0
    waiting = Outcome.objects.filter(prediction_id__isnull=True)
    models = list(waiting.order_by().values_list("registered_model_id", flat=True).distinct())
    for model_id in models:
        after = 0
        while True:
            keys = list(
                waiting.filter(registered_model_id=model_id, pk__gt=after)
                .order_by("pk")
                .values_list("pk", "key")[:JOINED_AT_ONCE]
            )
            if not keys:
                break
            with transaction.atomic():
                lock(model_id)
                joined += _joined_by_keys(model_id, {key for _, key in keys if key is not None})
            after = keys[-1][0]
    return joined


def lock(model_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK, model_id % 2**31])


def join(model_id: int, keys: Iterable[str]) -> None:
    """Joins what waits under these keys, and some of what has waited longest."""
    waiting = Outcome.objects.filter(registered_model_id=model_id, prediction_id__isnull=True)
    oldest = waiting.order_by("pk").values_list("key", flat=True)[:JOINED_BY_A_REQUEST]
    _joined_by_keys(model_id, {*keys, *(key for key in oldest if key is not None)})


def _joined_by_keys(model_id: int, keys: set[str]) -> int:
    """Gives the outcomes that wait under `keys` the newest prediction of their key; how many.

    The condition on null makes it harmless to do twice; who does it holds the model's lock.
    """
    if not keys:
        return 0
    question = """
        UPDATE predictions_outcome AS outcome SET prediction_id = newest.id
        FROM (
            SELECT DISTINCT key FROM predictions_outcome
            WHERE registered_model_id = %s AND prediction_id IS NULL AND key = ANY(%s::text[])
        ) AS asked, LATERAL (
            SELECT log.id FROM predictions_prediction log
            WHERE log.registered_model_id = %s AND log.key = asked.key ORDER BY log.id DESC LIMIT 1
        ) AS newest
        WHERE outcome.registered_model_id = %s AND outcome.key = asked.key AND outcome.prediction_id IS NULL
    """
    with connection.cursor() as cursor:
        cursor.execute(question, [model_id, sorted(keys), model_id, model_id])
        return int(cursor.rowcount)
