"""Retention of shadow answers: they are kept as long as their rows of the log."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import connection

from core.uuid7 import lowest_at, time_of
from predictions.models import Prediction, ShadowAnswer
from training.models import Rollout

PIECE: Final = 10_000
"""Rows per DELETE, so that each one is short."""
_FORGET: Final = """
    DELETE FROM predictions_shadowanswer WHERE id IN (
        SELECT id FROM predictions_shadowanswer
        WHERE rollout_id = %s AND prediction_id < %s ORDER BY prediction_id LIMIT %s
    )
"""


def forget(before: dt.datetime) -> int:
    """Removes the shadow answers to predictions made before a time; returns their number. Tallies stay."""
    bound, removed = lowest_at(before), 0
    # By rollout, because the index is (rollout_id, prediction_id).
    rollouts = Rollout.objects.filter(kind=Rollout.Kind.SHADOW, started_at__lt=before)
    for rollout_id in rollouts.values_list("pk", flat=True):
        with connection.cursor() as cursor:
            while True:
                cursor.execute(_FORGET, [rollout_id, bound, PIECE])
                removed += cursor.rowcount
                if cursor.rowcount < PIECE:
                    break
    return removed


def follow_the_log() -> int:
    """Removes the answers whose log rows were dropped with their partitions; returns their number."""
    oldest = Prediction.objects.order_by("id").values_list("id", flat=True).first()
    if oldest is None:
        return ShadowAnswer.objects.all().delete()[0]
    return forget(time_of(oldest))
