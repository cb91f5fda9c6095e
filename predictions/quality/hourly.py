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
aggregation: one second for each `RESTED_ROWS` rows. 200,000 rows took 2.5 seconds on two busy cores (load 2),
and rest for 100 seconds.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from django.db import connection, transaction
from django.db.models import Count, Q
from django.utils import timezone

from core.uuid7 import lowest_at, time_of
from predictions.models import ChangedHour, Lock, Outcome, QualityHour
from predictions.quality import hourly_tallies
from predictions.quality.metrics import Tally
from predictions.rollups.hours import end, floor, is_in_log
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
    hours = _marked(model)
    resting = _resting(model, hours) if skip_resting else set()
    return _aggregate(model, (hour for hour in hours if hour not in resting), seconds)


def catch_up(model: RegisteredModel, *, seconds: float) -> int:
    """Aggregates small changed hours while a client waits (beat does large ones); returns their number."""
    return _aggregate(model, (hour for hour in _marked(model) if not _is_large(model, hour)), seconds)


def _marked(model: RegisteredModel) -> list[dt.datetime]:
    marked = ChangedHour.objects.filter(registered_model=model, hour__lte=timezone.now())
    return list(marked.order_by("marked_at").values_list("hour", flat=True))


def _is_large(model: RegisteredModel, hour: dt.datetime) -> bool:
    """Returns whether the hour holds many outcomes of the model, or so many of other models that finding the
    model's own takes as long."""
    outcomes = Outcome.objects.filter(prediction_id__gte=lowest_at(hour), prediction_id__lt=end(hour))
    own = Count("pk", filter=Q(registered_model=model))
    scanned = outcomes.order_by()[:SCAN_LIMIT].aggregate(own=own, every=Count("pk"))
    return bool(scanned["own"] >= LARGE or scanned["every"] >= SCAN_LIMIT)


def _aggregate(model: RegisteredModel, hours: Iterable[dt.datetime], seconds: float) -> int:
    """Aggregates hours and returns their number; begins and awaits none after `seconds`."""
    until, done = time.monotonic() + seconds, 0
    for hour in hours:
        left = until - time.monotonic()
        if left <= 0:
            break
        with transaction.atomic():
            # The holder aggregates an hour, which may take longer than a client can wait.
            if not Lock.QUALITY.take_within(left, model.pk):
                break
            done += _aggregate_hour(model, hour)
    return done


def mark_all_hours_dirty(model: RegisteredModel) -> int:
    """Marks every hour that has outcomes or tallies; returns the number of hours.

    Transactions that record outcomes mark hours by several statements, in no fixed order, so every
    transaction that marks holds the model's lock. The hours are searched before the lock is taken.
    """
    outcomes = Outcome.objects.filter(registered_model=model).order_by()
    ids = outcomes.values_list("prediction_id", flat=True).iterator()
    hours = {floor(time_of(each)) for each in ids if each is not None}
    hours |= set(QualityHour.objects.filter(version__registered_model=model).values_list("hour", flat=True))
    mark = """
        INSERT INTO predictions_changedhour AS changed (registered_model_id, hour, marked_at)
        SELECT %s, hour, clock_timestamp() FROM unnest(%s::timestamptz[]) AS hour ORDER BY hour
        ON CONFLICT (registered_model_id, hour) DO UPDATE
        SET marked_at = greatest(EXCLUDED.marked_at, changed.marked_at + interval '1 microsecond')
    """
    with transaction.atomic(), connection.cursor() as cursor:
        Lock.OUTCOMES.take(model.pk)
        cursor.execute(mark, [model.pk, list(hours)])
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


def _aggregate_hour(model: RegisteredModel, hour: dt.datetime) -> bool:
    """Aggregates an hour; returns False if another process did it meanwhile."""
    mark = ChangedHour.objects.filter(registered_model=model, hour=hour)
    seen = mark.values_list("marked_at", flat=True).first()
    if seen is None:
        return False
    # If the hour's rows have left the log, the stored tallies are its only record.
    if is_in_log(model.pk, hour):
        _write(model, hour, hourly_tallies.of_hour(model, hour))
    mark.filter(marked_at=seen).delete()
    return True


def _write(model: RegisteredModel, hour: dt.datetime, tallies: Mapping[int, Tally]) -> None:
    QualityHour.objects.filter(version__in=model.versions.all(), hour=hour).delete()
    added_at = {"added_at": timezone.now().isoformat()}
    QualityHour.objects.bulk_create(
        QualityHour(version_id=version, hour=hour, rows=tally.rows, tallies=tally.to_json() | added_at)
        for version, tally in tallies.items()
    )
