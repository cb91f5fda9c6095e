"""Aggregates labelled predictions by hour and recomputes an hour whenever its outcomes change.

A trigger (migration 0008) marks the hour of every prediction that gets an outcome, a correction, or an
outcome that waited for it. One transaction aggregates a marked hour from the log and the newest outcome of
each prediction, replaces its tallies and removes its mark: a killed process leaves nothing half done, and a
second run changes nothing.

The transaction reads the mark before the outcomes and removes it only if it is unchanged, so a mark set
meanwhile stays. A transaction that sets a mark and has not committed holds the row: the removal waits for it,
finds another mark and leaves it. The removal is the last statement and concerns one hour, so there is no
deadlock.

An hour whose many outcomes keep arriving would be aggregated again and again. So a large hour rests after its
aggregation: one second for each `RESTED_ROWS` rows. A million rows took 13 seconds on two busy cores
(load 8), and rest for eight minutes.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions.models import ChangedHour, Lock, QualityHour
from predictions.outcomes import matching
from predictions.quality import hourly_tallies
from predictions.quality.metrics import Tally
from predictions.rollups.hours import end, is_in_log
from training.models import RegisteredModel

LARGE: Final = 20_000
"""Rows of a large hour. Fewer rows take milliseconds, so a smaller hour never rests."""
SCAN_LIMIT: Final = 10 * LARGE
RESTED_ROWS: Final = 2_000


def aggregate_changed_hours(
    model: RegisteredModel, *, seconds: float = math.inf, skip_resting: bool = True
) -> int:
    """Aggregates a model's marked hours, the longest marked first; returns the number of hours.

    Parameters
    ----------
    seconds : begin no further hour after so many seconds.
    skip_resting : whether to leave large hours that were aggregated a moment ago for later.
    """
    marked = ChangedHour.objects.filter(registered_model=model, hour__lte=timezone.now())
    hours = list(marked.order_by("marked_at").values_list("hour", flat=True))
    resting = _resting(model, hours) if skip_resting else set()
    return _aggregate(model, (hour for hour in hours if hour not in resting), seconds)


def catch_up(model: RegisteredModel, *, seconds: float) -> int:
    """Aggregates small changed hours while a client waits (beat does large ones); returns their number."""
    marked = ChangedHour.objects.filter(registered_model=model, hour__lte=timezone.now())
    hours = marked.order_by("marked_at").values_list("hour", flat=True)
    return _aggregate(model, (hour for hour in hours if not _is_large(model, hour)), seconds)


def _is_large(model: RegisteredModel, hour: dt.datetime) -> bool:
    """Returns whether the hour holds many outcomes of the model, or so many of other models that finding the
    model's own takes as long."""
    statement = """
        SELECT count(*) FILTER (WHERE registered_model_id = %s), count(*) FROM (
            SELECT registered_model_id FROM predictions_outcome
            WHERE prediction_id >= %s AND prediction_id < %s LIMIT %s
        ) AS scanned
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [model.pk, lowest_at(hour), end(hour), SCAN_LIMIT])
        own, every = cursor.fetchone()
    return bool(own >= LARGE or every >= SCAN_LIMIT)


def _aggregate(model: RegisteredModel, hours: Iterable[dt.datetime], seconds: float) -> int:
    """Aggregates hours and returns their number; begins and awaits none after `seconds`."""
    started, done = time.monotonic(), 0
    for hour in hours:
        left = seconds - (time.monotonic() - started)
        added = _aggregate_hour(model, hour, left) if left > 0 else None
        if added is None:
            break
        done += added
    return done


def mark_all_hours_dirty(model: RegisteredModel) -> int:
    """Marks every hour that has outcomes or tallies; returns the number of hours.

    Transactions that record outcomes mark hours by several statements, in no fixed order, so every
    transaction that marks holds the model's lock. The hours are searched before the lock is taken.
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
    """Returns those of `hours` that are large and were aggregated a moment ago."""
    large = QualityHour.objects.filter(version__registered_model=model, hour__in=hours, rows__gte=LARGE)
    now = timezone.now()
    return {
        hour
        for hour, rows, added_at in large.values_list("hour", "rows", "tallies__added_at")
        if now < dt.datetime.fromisoformat(added_at) + dt.timedelta(seconds=rows / RESTED_ROWS)
    }


def _aggregate_hour(model: RegisteredModel, hour: dt.datetime, wait: float) -> int | None:
    """Aggregates an hour; returns 1, 0 if another process did it meanwhile, or None if another process still
    holds the lock after `wait` seconds."""
    with transaction.atomic():
        # The holder aggregates an hour, which may take longer than a client can wait.
        if not Lock.QUALITY.take_within(wait, model.pk):
            return None
        mark = ChangedHour.objects.filter(registered_model=model, hour=hour)
        seen = mark.values_list("marked_at", flat=True).first()
        if seen is None:
            return 0
        # If the hour's month has left the log, the stored tallies are all that is known of it: a row that
        # arrived later does not stand for the hour.
        if is_in_log(model.pk, hour):
            _write(model, hour, hourly_tallies.of_hour(model, hour))
        mark.filter(marked_at=seen).delete()
    return 1


def _write(model: RegisteredModel, hour: dt.datetime, tallies: Mapping[int, Tally]) -> None:
    QualityHour.objects.filter(version__in=model.versions.all(), hour=hour).delete()
    added_at = {"added_at": timezone.now().isoformat()}
    QualityHour.objects.bulk_create(
        QualityHour(version_id=version, hour=hour, rows=tally.rows, tallies=tally.to_json() | added_at)
        for version, tally in tallies.items()
    )
