"""Reads the rollups: the counts of a window, by step, by version and by hour.

A window consists of the hours that begin in [since, until).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from django.db import connection

from core.uuid7 import lowest_at
from predictions.models import RolledHour, Rollup
from predictions.rollups.hours import HOUR, logged
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.drift.bin_counts import Counted


def window(version: ModelVersion, since: dt.datetime, until: dt.datetime) -> dict[str, Counted]:
    """Returns each column's counts in the order of the profile; empty without rows or profile."""
    steps = by_step(version, since, until, max(until - since, HOUR))
    return steps[0][1] if steps else {}


def by_step(
    version: ModelVersion, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[tuple[dt.datetime, dict[str, Counted]]]:
    """Returns `window` for each step from `since` on; a step is at least an hour long, and steps without rows
    are left out."""
    reference = ReferenceProfile.objects.filter(version=version).first()
    if reference is None:
        return []
    sizes = {name: column.bins.size for name, column in reference.profile.by_name.items()}
    statement = """
        SELECT date_bin(make_interval(secs => %s), hour, %s), "column", bin,
               sum(rows)::bigint, coalesce(sum(total), 0)
        FROM predictions_rollup WHERE version_id = %s AND hour >= %s AND hour < %s
        GROUP BY 1, 2, 3 ORDER BY 1
    """
    by_start: dict[dt.datetime, dict[str, Counted]] = {}
    with connection.cursor() as cursor:
        cursor.execute(statement, [step.total_seconds(), since, version.pk, since, until])
        for start, column, place, rows, total in cursor.fetchall():
            if start not in by_start:
                by_start[start] = {
                    name: Counted(np.zeros(size, dtype=np.int64), np.zeros(size))
                    for name, size in sizes.items()
                }
            cells = by_start[start].get(column)
            if cells is not None:
                cells.counts[place], cells.totals[place] = rows, total
    return list(by_start.items())


def traffic(
    model: RegisteredModel, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[tuple[dt.datetime, int, int]]:
    """Returns (start of the step, number of the version, rows that it answered), in this order."""
    statement = """
        SELECT date_bin(make_interval(secs => %s), rollup.hour, %s), version.number, sum(rollup.rows)::bigint
        FROM training_modelversion version JOIN predictions_rollup rollup ON rollup.version_id = version.id
        WHERE version.registered_model_id = %s AND rollup.hour >= %s AND rollup.hour < %s
            AND rollup."column" = %s AND rollup.bin = 0
        GROUP BY 1, 2 ORDER BY 1, 2
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [step.total_seconds(), since, model.pk, since, until, Rollup.ROWS])
        return list(cursor.fetchall())


def answered_by_hour(
    versions: Sequence[ModelVersion], since: dt.datetime, until: dt.datetime
) -> list[tuple[int, dt.datetime, int]]:
    """Returns (version id, hour, logged rows) of versions of one model, without hours that have no rows.

    The rollups count the rows up to the newest mark and the index counts the rows after it: the result is up
    to date, and the cost grows with the rows that are not rolled up yet.

    Parameters
    ----------
    since, until : whole hours.
    """
    if not versions:
        return []
    statement = """
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
    parameters: dict[str, Any] = {
        "versions": [version.pk for version in versions],
        "model": versions[0].registered_model_id,
        "since": since,
        "until": until,
        "counted": Rollup.ROWS,
        "low": lowest_at(since),
        "high": lowest_at(until),
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def has_rows(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> bool:
    """Returns whether the rollups or the log hold any row of these whole hours."""
    rolled = RolledHour.objects.filter(registered_model=model, hour__gte=since, hour__lt=until, rows__gt=0)
    return rolled.exists() or logged(model.pk, lowest_at(since), lowest_at(until)).exists()
