"""Adding up what became of predictions: whole hours anew, whenever their outcomes have changed.

A trigger (migration 0008) marks the hour of every prediction that gets an outcome, another one, or the one
that waited for it. Here a marked hour is added up from the log and the newest outcome of each of its
predictions, its tallies are replaced, and its mark is removed, all in one transaction: who is killed in
between has done nothing, and doing it twice changes nothing.

The mark is read before the outcomes are and removed only if it is still the same, so one that is set
meanwhile stays. Who sets it and has not committed holds the row: removing it waits for them, finds another
mark, and leaves it. Such a removal is the last statement here, and of one hour, so nobody waits for us in a
circle.

An hour of many outcomes that keep coming would be added up again and again. So a large one rests: for one
second for each `RESTED_ROWS` of its rows after it was added up. A million rows took 13 seconds on two busy
cores (load 8), and rest for eight minutes.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions.models import ChangedHour, Prediction, QualityHour
from predictions.outcomes import matching
from predictions.quality import hourly_sql
from predictions.quality.hourly_sql import HOUR
from predictions.quality.metrics import Tally
from predictions.rollups.counting import is_removed
from training.models import RegisteredModel

LOCK: Final = 22125
"""Class of the advisory lock of those who add up, with the model's id: one at a time."""
LARGE: Final = 20_000
"""Fewer rows are added up within milliseconds, and an hour of them never rests."""
LOOKED_THROUGH: Final = 10 * LARGE
RESTED_ROWS: Final = 2_000
LOOK_SECONDS: Final = 0.02


def aggregate_changed_hours(
    model: RegisteredModel, *, seconds: float | None = None, rested: bool = True
) -> int:
    """Adds the marked hours of a model up anew, the longest marked first; how many.

    Parameters
    ----------
    seconds : after so many no further hour is begun; None: until all are done.
    rested : whether large hours that were added up a moment ago are left for later.
    """
    marked = ChangedHour.objects.filter(registered_model=model, hour__lte=timezone.now())
    hours = list(marked.order_by("marked_at").values_list("hour", flat=True))
    resting = _resting(model, hours) if rested else set()
    return _add_up(model, (hour for hour in hours if hour not in resting), seconds)


def catch_up(model: RegisteredModel, *, seconds: float) -> int:
    """Aggregates changed hours while a client waits; beat does large ones. Returns how many it did."""
    marked = ChangedHour.objects.filter(registered_model=model, hour__lte=timezone.now())
    hours = marked.order_by("marked_at").values_list("hour", flat=True)
    return _add_up(model, (hour for hour in hours if not _is_large(model, hour)), seconds)


def _is_large(model: RegisteredModel, hour: dt.datetime) -> bool:
    """Whether the hour holds many outcomes of the model, or so many of others that looking for its own takes
    as long."""
    question = """
        SELECT count(*) FILTER (WHERE registered_model_id = %s), count(*) FROM (
            SELECT registered_model_id FROM predictions_outcome
            WHERE prediction_id >= %s AND prediction_id < %s LIMIT %s
        ) AS told
    """
    with connection.cursor() as cursor:
        cursor.execute(question, [model.pk, lowest_at(hour), lowest_at(hour + HOUR), LOOKED_THROUGH])
        own, every = cursor.fetchone()
    return bool(own >= LARGE or every >= LOOKED_THROUGH)


def _add_up(model: RegisteredModel, hours: Iterable[dt.datetime], seconds: float | None) -> int:
    """How many of these were added up; with `seconds`, none is begun or waited for after so many."""
    started, done = time.monotonic(), 0
    for hour in hours:
        left = None if seconds is None else seconds - (time.monotonic() - started)
        if left is not None and left <= 0:
            break
        added = _add_up_hour(model, hour, left)
        if added is None:
            break
        done += added
    return done


def mark_all_hours_dirty(model: RegisteredModel) -> int:
    """Marks every hour that has outcomes, or has been added up; how many there are.

    Who records outcomes marks hours by several statements, so not in one order: of those who mark, one at a
    time holds the model's lock. The hours are looked for before it is taken.
    """
    known = """
        SELECT to_timestamp(vigia_milliseconds(prediction_id) / 3600000 * 3600) AS hour
        FROM predictions_outcome WHERE registered_model_id = %(model)s AND prediction_id IS NOT NULL
        UNION
        SELECT added.hour FROM predictions_qualityhour added
        JOIN training_modelversion version ON version.id = added.version_id
        WHERE version.registered_model_id = %(model)s
    """
    mark = """
        INSERT INTO predictions_changedhour AS changed (registered_model_id, hour, marked_at)
        SELECT %(model)s, hour, clock_timestamp() FROM unnest(%(hours)s::timestamptz[]) AS hour ORDER BY hour
        ON CONFLICT (registered_model_id, hour) DO UPDATE
        SET marked_at = greatest(EXCLUDED.marked_at, changed.marked_at + interval '1 microsecond')
    """
    with connection.cursor() as cursor:
        cursor.execute(known, {"model": model.pk})
        hours = [hour for (hour,) in cursor.fetchall()]
    with transaction.atomic(), connection.cursor() as cursor:
        matching.lock(model.pk)
        cursor.execute(mark, {"model": model.pk, "hours": hours})
        return int(cursor.rowcount)


def _resting(model: RegisteredModel, hours: Sequence[dt.datetime]) -> set[dt.datetime]:
    """Those of `hours` that are large and were added up a moment ago."""
    large = QualityHour.objects.filter(version__registered_model=model, hour__in=hours, rows__gte=LARGE)
    now = timezone.now()
    return {
        hour
        for hour, rows, added_at in large.values_list("hour", "rows", "tallies__added_at")
        if now < dt.datetime.fromisoformat(added_at) + dt.timedelta(seconds=rows / RESTED_ROWS)
    }


def _add_up_hour(model: RegisteredModel, hour: dt.datetime, wait: float | None) -> int | None:
    """1, or 0 where somebody else has added it up meanwhile; None where somebody still adds up after `wait`
    seconds."""
    with transaction.atomic():
        if not _is_our_turn(model, wait):
            return None
        mark = ChangedHour.objects.filter(registered_model=model, hour=hour)
        seen = mark.values_list("marked_at", flat=True).first()
        if seen is None:
            return 0
        # When its month has left the log, what was added up before is all that is known of it: a row of it
        # that came too late is not the hour.
        in_log = Prediction.objects.filter(
            registered_model=model, id__gte=lowest_at(hour), id__lt=lowest_at(hour + HOUR)
        )
        if in_log.exists() and not is_removed(hour):
            _write(model, hour, hourly_sql.of_hour(model, hour))
        mark.filter(marked_at=seen).delete()
    return 1


def _is_our_turn(model: RegisteredModel, wait: float | None) -> bool:
    """Takes the lock for the caller's transaction. Who holds it adds up an hour, which may take longer than
    who asks for quality can wait, and than a statement may wait for a lock."""
    key = [LOCK, model.pk % 2**31]
    with connection.cursor() as cursor:
        if wait is None:
            cursor.execute("SELECT set_config('lock_timeout', '0', true)")
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", key)
            return True
        until = time.monotonic() + wait
        while True:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", key)
            if cursor.fetchone()[0]:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_SECONDS)


def _write(model: RegisteredModel, hour: dt.datetime, found: Mapping[int, Tally]) -> None:
    QualityHour.objects.filter(version__in=model.versions.all(), hour=hour).delete()
    added_at = {"added_at": timezone.now().isoformat()}
    QualityHour.objects.bulk_create(
        QualityHour(version_id=version, hour=hour, rows=tally.rows, tallies=tally.to_json() | added_at)
        for version, tally in found.items()
    )
