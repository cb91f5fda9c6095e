"""Reading the rollups: the counts of a window, by step, by version and by hour."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import Sum

from core.uuid7 import lowest_at
from predictions.models import RolledHour, Rollup
from predictions.rollups import counting
from predictions.rollups.counting import HOUR
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.drift.bin_counts import Counted


def window(version: ModelVersion, since: dt.datetime, until: dt.datetime) -> dict[str, Counted]:
    """What was counted of each column, in the order of the profile; nothing without rows or profile."""
    found = _read(version, since, until, max(until - since, HOUR))
    return found[0][1] if found else {}


def by_step(
    version: ModelVersion, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[tuple[dt.datetime, dict[str, Counted]]]:
    """`window` for each step of the time from `since` on, at least an hour long; those without rows are left
    out."""
    return _read(version, since, until, step)


def _read(
    version: ModelVersion, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[tuple[dt.datetime, dict[str, Counted]]]:
    reference = ReferenceProfile.objects.filter(version=version).first()
    if reference is None:
        return []
    sizes = {name: column.bins.size for name, column in reference.profile.by_name.items()}
    question = """
        SELECT date_bin(make_interval(secs => %s), hour, %s), "column", bin,
               sum(rows)::bigint, coalesce(sum(total), 0)
        FROM predictions_rollup WHERE version_id = %s AND hour >= %s AND hour < %s
        GROUP BY 1, 2, 3 ORDER BY 1
    """
    found: dict[dt.datetime, dict[str, Counted]] = {}
    with connection.cursor() as cursor:
        cursor.execute(question, [step.total_seconds(), since, version.pk, since, until])
        for start, column, place, rows, total in cursor.fetchall():
            if start not in found:
                found[start] = {name: _nothing(size) for name, size in sizes.items()}
            if column != Rollup.ROWS:
                counted = found[start][column]
                counted.counts[place], counted.totals[place] = rows, total
    return list(found.items())


def _nothing(size: int) -> Counted:
    return Counted(np.zeros(size, dtype=np.int64), np.zeros(size))


def traffic(
    model: RegisteredModel, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[tuple[dt.datetime, int, int]]:
    """(start of the step, number of a version, rows it answered), in this order."""
    question = """
        SELECT date_bin(make_interval(secs => %s), rollup.hour, %s), version.number, sum(rollup.rows)::bigint
        FROM training_modelversion version JOIN predictions_rollup rollup ON rollup.version_id = version.id
        WHERE version.registered_model_id = %s AND rollup.hour >= %s AND rollup.hour < %s
            AND rollup."column" = %s AND rollup.bin = 0
        GROUP BY 1, 2 ORDER BY 1, 2
    """
    with connection.cursor() as cursor:
        cursor.execute(question, [step.total_seconds(), since, model.pk, since, until, Rollup.ROWS])
        return [(start, number, rows) for start, number, rows in cursor.fetchall()]


def answered_by_hour(
    versions: Sequence[ModelVersion], since: dt.datetime, until: dt.datetime
) -> list[tuple[int, dt.datetime, int]]:
    """(id of a version, hour, rows of the log) of versions of one model; hours that have none are left out.

    What was counted, and what has come since the newest mark, which the index counts: so it is up to date,
    and costs as much as is not rolled up yet.

    Parameters
    ----------
    since, until : whole hours.
    """
    if not versions:
        return []
    question = """
        SELECT version_id, hour, sum(rows)::bigint FROM (
            SELECT version_id, hour, rows FROM predictions_rollup
            WHERE version_id = ANY(%(versions)s) AND hour >= %(since)s AND hour < %(until)s
                AND "column" = %(counted)s AND bin = 0
            UNION ALL
            SELECT version_id, to_timestamp(vigia_milliseconds(id) / 3600000 * 3600), count(*)
            FROM predictions_prediction
            WHERE version_id = ANY(%(versions)s) AND id >= %(low)s AND id < %(high)s AND id >= coalesce(
                (SELECT upto FROM predictions_rolledhour
                 WHERE registered_model_id = %(model)s ORDER BY hour DESC LIMIT 1), %(low)s)
            GROUP BY 1, 2
        ) AS known GROUP BY 1, 2 HAVING sum(rows) > 0 ORDER BY 1, 2
    """
    asked: dict[str, Any] = {
        "versions": [version.pk for version in versions],
        "model": versions[0].registered_model_id,
        "since": since,
        "until": until,
        "counted": Rollup.ROWS,
        "low": lowest_at(since),
        "high": lowest_at(until),
    }
    with connection.cursor() as cursor:
        cursor.execute(question, asked)
        return [(version_id, hour, rows) for version_id, hour, rows in cursor.fetchall()]


def has_rows(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> bool:
    """Whether anything was counted of these whole hours, or the log holds something of them."""
    if answered([model.pk], since, until)[model.pk]:
        return True
    return counting.nth(model.pk, lowest_at(since), lowest_at(until)) is not None


def answered(model_ids: Iterable[int], since: dt.datetime, until: dt.datetime) -> dict[int, int]:
    """Rows of each model, also of those that answered nothing."""
    wanted = list(model_ids)
    hours = RolledHour.objects.filter(registered_model_id__in=wanted, hour__gte=since, hour__lt=until)
    sums = hours.order_by().values_list("registered_model_id").annotate(Sum("rows"))
    return dict.fromkeys(wanted, 0) | dict(sums)
