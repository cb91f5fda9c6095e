"""The statements that count the log's rows for the rollups. All of them are made of constants."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Final

from django.db import connection

from core.uuid7 import lowest_at
from predictions.models import RemovedMonth, Rollup
from vigia_ml.reference_profile import PREDICTION, PROBABILITY

LOCK: Final = 22124
"""Class of the advisory lock that whoever changes one model's rollups takes, with the model's id."""
HOUR: Final = dt.timedelta(hours=1)
LARGEST: Final = 1e290
"""Numbers are added up as if they were no larger, or a few of them would be beyond what a double can hold."""

# Sorting a million cells would go through temporary files; hashed, they need a few hundred groups. None of
# this is worth a second process, whose core is needed to answer, or the compiling of expressions.
_SETTINGS: Final = {
    "jit": "off",
    "enable_mergejoin": "off",
    "enable_nestloop": "off",
    "enable_sort": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "32MB",
}
_BEGIN: Final = f"""
    SELECT pg_advisory_xact_lock(%s, %s),
           {", ".join(f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items())}
"""
_RANGE: Final = "log.registered_model_id = %(model)s AND log.id >= %(low)s AND log.id < %(high)s"

# What PostgreSQL does with a cell is what `vigia_ml.bins.Bins` does: width_bucket finds numpy's interval, and
# `places` has its bin. A profile that was stored before there were places has a bin for each interval.
_COUNT: Final = f"""
    WITH answered AS MATERIALIZED (
        SELECT log.version_id, count(*) AS rows FROM predictions_prediction log WHERE {_RANGE}
        GROUP BY log.version_id
    ), bins AS MATERIALIZED (
        SELECT version_id, part.place, part.of ->> 'name' AS "column",
               part.of ->> 'kind' = 'length' AS is_length,
               part.of -> 'levels' AS levels,
               jsonb_array_length(part.of -> 'named') AS named,
               (part.of ->> 'missing')::int AS missing,
               ARRAY(
                   SELECT p::int FROM jsonb_array_elements_text(part.of -> 'places')
                       WITH ORDINALITY AS its (p, at) ORDER BY at
               ) AS places,
               CASE WHEN part.of ->> 'kind' <> 'level' THEN
                   ARRAY(SELECT e::float8 FROM jsonb_array_elements_text(part.of -> 'edges') AS e ORDER BY 1)
               END AS edges
        FROM answered JOIN training_referenceprofile profile USING (version_id), LATERAL (
            SELECT place, of
            FROM jsonb_array_elements(profile.bins -> 'columns') WITH ORDINALITY AS its (of, place)
            UNION ALL
            SELECT CASE of ->> 'name' WHEN '{PREDICTION}' THEN -1 WHEN '{PROBABILITY}' THEN -2 END, of
            FROM jsonb_array_elements(profile.bins -> 'answers') AS of
        ) AS part
    ), cell AS (
        SELECT log.version_id, its.place, its.cell
        FROM predictions_prediction log,
            json_array_elements_text(log.inputs) WITH ORDINALITY AS its (cell, place)
        WHERE {_RANGE} AND log.version_id IN (SELECT version_id FROM bins)
        UNION ALL
        SELECT log.version_id, -1, log.prediction #>> '{{}}' FROM predictions_prediction log WHERE {_RANGE}
        UNION ALL
        SELECT log.version_id, -2, log.probability::text FROM predictions_prediction log WHERE {_RANGE}
    ), read AS (
        SELECT bins.*, cell.cell, CASE
            WHEN named IS NOT NULL THEN NULL
            WHEN is_length THEN char_length(cell.cell)::float8
            ELSE nullif(cell.cell::float8, 'NaN')
        END AS number
        FROM cell JOIN bins USING (version_id, place)
    ), binned AS (
        SELECT version_id, "column", CASE
            WHEN named IS NOT NULL AND cell IS NULL THEN named + 2
            WHEN named IS NOT NULL THEN coalesce((levels ->> cell)::int, named + 1)
            WHEN number IS NULL THEN coalesce(missing, cardinality(edges) + 1)
            ELSE coalesce(places[width_bucket(number, edges) + 1], width_bucket(number, edges))
        END AS bin, CASE
            WHEN named IS NULL THEN greatest(least(coalesce(number, 0), {LARGEST!r}), -{LARGEST!r})
        END AS number
        FROM read
    ), added AS (
        INSERT INTO predictions_rollup AS kept (version_id, hour, "column", bin, rows, total)
        SELECT version_id, %(hour)s, "column", bin, count(*), sum(number) FROM binned
        GROUP BY version_id, "column", bin
        UNION ALL
        SELECT version_id, %(hour)s, '{Rollup.ROWS}', 0, rows, NULL FROM answered
        ON CONFLICT (version_id, hour, "column", bin) DO UPDATE
        SET rows = kept.rows + EXCLUDED.rows, total = kept.total + EXCLUDED.total
    )
    UPDATE predictions_rolledhour AS rolled
    SET upto = %(high)s, rows = rolled.rows + (SELECT coalesce(sum(rows), 0) FROM answered)
    WHERE rolled.registered_model_id = %(model)s AND rolled.hour = %(hour)s AND rolled.upto = %(low)s
    RETURNING (SELECT coalesce(sum(rows), 0)::bigint FROM answered)
"""  # noqa: S608 - constants alone
# Each hour's rows are counted by the index (registered_model_id, id) alone.
_DIFFERENT: Final = """
    SELECT looked.hour
    FROM unnest(%(hours)s::timestamptz[], %(lows)s::uuid[], %(highs)s::uuid[]) AS looked (hour, low, high)
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows FROM predictions_prediction log
        WHERE log.registered_model_id = %(model)s AND log.id >= looked.low AND log.id < looked.high
    ) AS held
    LEFT JOIN predictions_rolledhour rolled
        ON rolled.registered_model_id = %(model)s AND rolled.hour = looked.hour
    WHERE held.rows > 0 AND held.rows <> coalesce(rolled.rows, 0)
        AND NOT EXISTS (
            SELECT FROM predictions_removedmonth WHERE start = date_trunc('month', looked.hour, 'UTC')
        )
    ORDER BY looked.hour
"""
_NTH: Final = f"""
    SELECT log.id FROM predictions_prediction log WHERE {_RANGE} ORDER BY log.id OFFSET %(skipped)s LIMIT 1
"""  # noqa: S608 - constants alone
_FORGET: Final = """
    WITH gone AS (
        DELETE FROM predictions_rollup WHERE hour = %(hour)s AND version_id IN (
            SELECT id FROM training_modelversion WHERE registered_model_id = %(model)s
        )
    )
    INSERT INTO predictions_rolledhour (registered_model_id, hour, upto, rows, closed)
    VALUES (%(model)s, %(hour)s, %(low)s, 0, false)
    ON CONFLICT (registered_model_id, hour) DO UPDATE
    SET upto = EXCLUDED.upto, rows = 0, closed = false
"""

_NOT_REMOVED: Final = """
    NOT EXISTS (SELECT FROM predictions_removedmonth WHERE start = date_trunc('month', hour, 'UTC'))
"""
_FORGET_MARKS: Final = f"""
    DELETE FROM predictions_rolledhour
    WHERE registered_model_id = %(model)s AND hour > %(hour)s AND {_NOT_REMOVED}
"""  # noqa: S608 - constants alone
_EMPTY: Final = f"""
    DELETE FROM predictions_rollup WHERE hour >= %(first)s AND hour <= %(last)s AND version_id IN (
        SELECT id FROM training_modelversion WHERE registered_model_id = %(model)s
    ) AND {_NOT_REMOVED}
"""  # noqa: S608 - constants alone


def now() -> dt.datetime:
    """The database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def begin(model_id: int) -> None:
    """Takes the model's lock for the caller's transaction.

    The next statement sees all that the lock's previous holder has committed.
    """
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, [LOCK, model_id % 2**31])


def settle() -> None:
    """The caller's transaction goes on to other things than counting."""
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} TO DEFAULT" for name in _SETTINGS))


def count(model_id: int, hour: dt.datetime, low: uuid.UUID, high: uuid.UUID) -> int:
    """Adds the rows with low <= id < high to the rollups of their hour and moves its mark; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"model": model_id, "hour": hour, "low": low, "high": high})
        moved = cursor.fetchone()
    assert moved is not None, "the mark was moved by somebody without the lock"
    return int(moved[0])


def differing(model_id: int, hours: Sequence[dt.datetime]) -> list[dt.datetime]:
    """Which of these hours hold other rows in the log than were counted; those that hold none do not."""
    lows, highs = ([lowest_at(hour + more) for hour in hours] for more in (dt.timedelta(0), HOUR))
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENT, {"model": model_id, "hours": list(hours), "lows": lows, "highs": highs})
        return [hour for (hour,) in cursor.fetchall()]


def nth(model_id: int, low: uuid.UUID, high: uuid.UUID, skipped: int = 0) -> uuid.UUID | None:
    """The id of the row after `skipped` others with low <= id < high, by the index alone."""
    with connection.cursor() as cursor:
        cursor.execute(_NTH, {"model": model_id, "low": low, "high": high, "skipped": skipped})
        found = cursor.fetchone()
    return None if found is None else found[0]


def forget(model_id: int, hour: dt.datetime, low: uuid.UUID) -> None:
    """Throws away what was counted of an hour whose first id is `low`: it is to be counted anew."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, {"model": model_id, "hour": hour, "low": low})


def forget_marks(model_id: int, hour: dt.datetime) -> None:
    """Throws away the marks of the hours behind `hour`; what was counted stays until they are opened."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET_MARKS, {"model": model_id, "hour": hour})


def empty(model_id: int, first: dt.datetime, last: dt.datetime) -> None:
    """Throws away what is left of the hours from `first` to `last`, which are about to be opened."""
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY, {"model": model_id, "first": first, "last": last})


def is_removed(hour: dt.datetime) -> bool:
    """Whether the log's month that an hour lies in was removed: a row that has come since is not the hour."""
    return RemovedMonth.objects.filter(start=hour.replace(day=1, hour=0)).exists()
