"""What shadows answered, kept as long as the log's rows they belong to."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import connection

from core.uuid7 import lowest_at, time_of
from predictions.models import Prediction, ShadowAnswer
from training.models import Rollout

PIECE: Final = 10_000
"""Rows in one DELETE, so that none lasts long."""
_FORGET: Final = """
    DELETE FROM predictions_shadowanswer WHERE id IN (
        SELECT id FROM predictions_shadowanswer
        WHERE rollout_id = %s AND prediction_id < %s ORDER BY prediction_id LIMIT %s
    )
"""


def forget(before: dt.datetime) -> int:
    """Removes shadow answers to predictions made before a moment; how many. Tallies stay."""
    bound, gone = lowest_at(before), 0
    # By rollout, because that is how the index begins: (rollout_id, prediction_id).
    rollouts = Rollout.objects.filter(kind=Rollout.Kind.SHADOW, started_at__lt=before)
    for rollout_id in rollouts.values_list("pk", flat=True):
        with connection.cursor() as cursor:
            while True:
                cursor.execute(_FORGET, [rollout_id, bound, PIECE])
                gone += cursor.rowcount
                if cursor.rowcount < PIECE:
                    break
    return gone


def follow_the_log() -> int:
    """Removes the answers whose rows of the log are gone with their partitions; how many."""
    oldest = Prediction.objects.order_by("id").values_list("id", flat=True).first()
    if oldest is None:
        return ShadowAnswer.objects.all().delete()[0]
    return forget(time_of(oldest))
