"""Hourly rollups of the log: the number of cells of each column in each bin of the reference profile.

Counting moves forward by id, and ids order by time. `RolledHour.upto` is the mark of an hour: every row below
it has been counted. One statement adds the rows behind the mark to the bins and moves the mark, so a killed
process never does one without the other. One process at a time counts a model's rows and holds its lock. The
log's writers never wait for counting.

A row gets its id when it is answered and is committed later. So the mark stays `lag` behind now; after `lag`
the log's writer has given the row up. A review counts the newest rows temporarily, within `to_this_moment`,
and keeps none of these counts. Rows that arrive even later (a clock that is behind, a server that paused
within a COMMIT, rows inserted by hand) make the count of an hour differ from the log: both are compared when
the hour is over, and `AGAIN` later, and an hour that differs is recounted.
If the log holds no row of an hour any more, or its month was removed, the counts stay.

A clock that was ahead leaves marks of future hours, which would stop all counting until then: such marks are
deleted, and those hours are recounted when their time has come.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max

from core.uuid7 import LAST, lowest_at, time_of
from predictions.log.connection import ANSWER_SECONDS
from predictions.models import RemovedMonth, RolledHour, Rollup
from training.models import RegisteredModel
from vigia_ml.reference_profile import PREDICTION, PROBABILITY

PIECE: Final = 20_000
"""Rows per transaction, which takes a third of a second and a few megabytes for any size of an hour."""
SPARE: Final = dt.timedelta(seconds=10)
CLOSING: Final = dt.timedelta(minutes=5)
"""Time after an hour's end when it is compared with the log and closed."""
AGAIN: Final = tuple(dt.timedelta(hours=hours) for hours in (1, 24, 72, 168))
"""Ages, relative to an hour that is being closed, of the earlier hours that are compared once more."""
FILLED: Final = dt.timedelta(days=2)
"""Age back to which hours without rows are stored, so that they are compared as well."""
FIRST: Final = uuid.UUID(int=0)

LOCK: Final = 22124
"""Class of the advisory lock (with the model's id) of transactions that change one model's rollups."""
HOUR: Final = dt.timedelta(hours=1)
LARGEST: Final = 1e290
"""Bound of the numbers in a sum; without it a few numbers could overflow a double."""

# Sorting a million cells would use temporary files; hashing needs a few hundred groups. A parallel worker
# would take the core that answers requests, and JIT compilation costs more than it saves.
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

# PostgreSQL bins a cell as `vigia_ml.bins.Bins` does: width_bucket finds numpy's interval, and `places` maps
# it to a bin. An older profile without `places` has one bin per interval.
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
# An index-only scan of (registered_model_id, id) counts each hour's rows.
_DIFFERENT: Final = """
    SELECT checked.hour
    FROM unnest(%(hours)s::timestamptz[], %(lows)s::uuid[], %(highs)s::uuid[]) AS checked (hour, low, high)
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows FROM predictions_prediction log
        WHERE log.registered_model_id = %(model)s AND log.id >= checked.low AND log.id < checked.high
    ) AS held
    LEFT JOIN predictions_rolledhour rolled
        ON rolled.registered_model_id = %(model)s AND rolled.hour = checked.hour
    WHERE held.rows > 0 AND held.rows <> coalesce(rolled.rows, 0)
        AND NOT EXISTS (
            SELECT FROM predictions_removedmonth WHERE start = date_trunc('month', checked.hour, 'UTC')
        )
    ORDER BY checked.hour
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


@dataclass(frozen=True, slots=True)
class Rolled:
    """The result of a roll-up.

    rows : rows counted. counted_to : see `counted_to`. complete : no row is left to count.
    """

    rows: int
    counted_to: dt.datetime | None
    complete: bool = True


def lag() -> dt.timedelta:
    """Returns the longest time between a row's id and its COMMIT: after it the writer's statement has ended
    or was cancelled."""
    return dt.timedelta(seconds=settings.LOG_WAIT_SECONDS + ANSWER_SECONDS) + SPARE


# -- counting ------------------------------------------------------------------------------------------


def roll_up(
    model: RegisteredModel,
    *,
    until: dt.datetime | None = None,
    seconds: float | None = None,
    now: dt.datetime | None = None,
) -> Rolled:
    """Counts the new rows of the model's log, oldest first, in transactions of at most `PIECE` rows.

    Do not call it within a transaction. A run that ends early keeps the committed part.

    Parameters
    ----------
    until : end of the counting, never later than `lag` before now: a row with an earlier id may still be
        committed until then, and the mark must not pass it.
    seconds : begin no transaction after so many seconds; None: count all.
    now : replaces the database's time.
    """
    began, rows = time.monotonic(), 0
    now = now or database_now()  # read once: the mark of the current hour would move for ever
    mark = lowest_at(now - lag() if until is None else min(until, now - lag()))
    _forget_future_marks(model.pk, now)
    while (done := _step(model.pk, mark, now)) is not None:
        rows += done
        if seconds is not None and time.monotonic() - began >= seconds:
            break
    return Rolled(rows, counted_to(model), complete=done is None)


@contextmanager
def to_this_moment(
    model: RegisteredModel, *, seconds: float | None = None, now: dt.datetime | None = None
) -> Iterator[dt.datetime | None]:
    """Rolls up, and within the context the rollups also hold the newest committed rows; yields `counted_to`.

    A transaction that is rolled back at the end counts the newest rows: the marks do not move, and the next
    roll-up counts a row that is committed later with an earlier id. If `seconds` did not suffice for the
    older rows, the newest ones are not counted.
    """
    now = now or database_now()
    rolled = roll_up(model, seconds=seconds, now=now)
    with transaction.atomic():
        if rolled.complete:
            begin(model.pk)
            while _next(model.pk, lowest_at(now), now) is not None:
                pass
            settle()
        yield counted_to(model)
        transaction.set_rollback(True)


def recount(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> int:
    """Recounts the hours that begin in [since, until), up to the newest hour with a mark; returns the rows.

    Hours of which the log holds nothing any more are left as they are. Needed after rows were put into the
    log by hand, or a version was given its reference profile later.
    """
    newest = _newest(model.pk)
    if newest is None:
        return roll_up(model).rows
    rows, mark = 0, lowest_at(database_now() - lag())
    for hour in _hours_with_rows(model.pk, since, min(until, newest + HOUR)):
        with transaction.atomic(durable=True):
            begin(model.pk)
            rows += _recount_hour(model.pk, hour, mark)
        while (more := _count_remaining(model.pk, hour, mark)) is not None:
            rows += more
    return rows


def counted_to(model: RegisteredModel) -> dt.datetime | None:
    """Returns the time up to which all logged rows were counted; None if none were.

    Rows that arrived after the counting are not included, see the top of this module.
    """
    newest = _newest(model.pk)  # read first: an hour that opens meanwhile is then among the open ones
    behind = next((upto for hour, upto in _open(model.pk) if upto < _end(hour)), None)
    if behind is not None:
        return time_of(behind)
    return None if newest is None else newest + HOUR


def _forget_future_marks(model_id: int, now: dt.datetime) -> None:
    newest, present = _newest(model_id), _hour_of(now)
    if newest is not None and newest > present:
        with transaction.atomic(durable=True):
            begin(model_id)
            forget_marks(model_id, present)


def _step(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    """Commits one piece of the work; returns the rows counted, or None if there is nothing to do."""
    with transaction.atomic(durable=True):
        begin(model_id)
        return _next(model_id, mark, now)


def _next(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    hours = _open(model_id)
    for hour, upto in hours:
        stop = min(_end(hour), mark)
        if upto < stop:
            return _count_piece(model_id, hour, upto, stop)
    for hour, upto in hours:
        if upto >= _end(hour) and hour + HOUR + CLOSING <= now:
            return _close(model_id, hour)
    return _open_next(model_id, mark, now)


def _count_piece(model_id: int, hour: dt.datetime, low: uuid.UUID, stop: uuid.UUID) -> int:
    high = nth(model_id, low, stop, skipped=PIECE) or stop
    return count(model_id, hour, low, high)


def _close(model_id: int, hour: dt.datetime) -> int:
    """Compares an hour that is over, and some older hours, with the log; recounts the hours that differ."""
    different = differing(model_id, [*(hour - age for age in AGAIN), hour])
    if hour not in different:
        RolledHour.objects.filter(registered_model_id=model_id, hour=hour).update(closed=True)
    return sum(_recount_hour(model_id, each) for each in different)


def _recount_hour(model_id: int, hour: dt.datetime, mark: uuid.UUID = LAST) -> int:
    """Deletes an hour's counts and counts its first piece in one transaction, so that readers rarely see an
    empty hour."""
    low = lowest_at(hour)
    forget(model_id, hour, low)
    return _count_piece(model_id, hour, low, max(low, min(_end(hour), mark)))


def _count_remaining(model_id: int, hour: dt.datetime, mark: uuid.UUID) -> int | None:
    """Counts the next piece of an hour that is being recounted; returns None if none is left."""
    with transaction.atomic(durable=True):
        begin(model_id)
        upto = dict(_open(model_id)).get(hour)
        if upto is None or upto >= min(_end(hour), mark):
            return None
        return _count_piece(model_id, hour, upto, min(_end(hour), mark))


def _open_next(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    """Opens the next hour that has rows, or the hour of the mark."""
    newest = _newest(model_id)
    low = FIRST if newest is None else lowest_at(newest + HOUR)
    if low >= mark:
        return None
    first = nth(model_id, low, mark)
    if first is None and newest is None:
        return None
    last = _hour_of(time_of(first or uuid.UUID(int=mark.int - 1)))
    hour = last if newest is None else max(newest + HOUR, min(last, _hour_of(now) - FILLED))
    empty(model_id, hour, last)
    opened = []
    while hour <= last:
        opened.append(RolledHour(registered_model_id=model_id, hour=hour, upto=lowest_at(hour)))
        hour += HOUR
    RolledHour.objects.bulk_create(opened)
    return 0


def _hours_with_rows(model_id: int, since: dt.datetime, until: dt.datetime) -> Iterator[dt.datetime]:
    """Yields the hours that begin in [since, until) and have rows, by one index probe each."""
    hour = _hour_of(since)
    hour += HOUR if hour < since else dt.timedelta(0)
    while hour < until:
        first = nth(model_id, lowest_at(hour), lowest_at(until))
        if first is None:
            return
        hour = _hour_of(time_of(first))
        if not is_removed(hour):
            yield hour
        hour += HOUR


def _open(model_id: int) -> list[tuple[dt.datetime, uuid.UUID]]:
    """Returns the hours that are not closed, with their marks."""
    rows = RolledHour.objects.filter(registered_model_id=model_id, closed=False)
    return list(rows.order_by("hour").values_list("hour", "upto"))


def _newest(model_id: int) -> dt.datetime | None:
    rows = RolledHour.objects.filter(registered_model_id=model_id)
    newest: dt.datetime | None = rows.aggregate(newest=Max("hour"))["newest"]
    return newest


def _end(hour: dt.datetime) -> uuid.UUID:
    """Returns the lowest id after an hour."""
    return lowest_at(hour + HOUR)


def _hour_of(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


# -- the statements ------------------------------------------------------------------------------------


def database_now() -> dt.datetime:
    """Returns the database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def begin(model_id: int) -> None:
    """Takes the model's lock for the caller's transaction.

    The next statement sees everything that the previous holder has committed.
    """
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, [LOCK, model_id % 2**31])


def settle() -> None:
    """Resets the settings for counting, so that the caller's transaction can run other statements."""
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} TO DEFAULT" for name in _SETTINGS))


def count(model_id: int, hour: dt.datetime, low: uuid.UUID, high: uuid.UUID) -> int:
    """Adds rows with low <= id < high to the rollups of their hour, moves its mark; returns the rows."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"model": model_id, "hour": hour, "low": low, "high": high})
        moved = cursor.fetchone()
    assert moved is not None, "another process moved the mark without the lock"
    return int(moved[0])


def differing(model_id: int, hours: Sequence[dt.datetime]) -> list[dt.datetime]:
    """Returns those of these hours whose logged rows differ from the counts; hours without rows never do."""
    lows, highs = ([lowest_at(hour + more) for hour in hours] for more in (dt.timedelta(0), HOUR))
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENT, {"model": model_id, "hours": list(hours), "lows": lows, "highs": highs})
        return [hour for (hour,) in cursor.fetchall()]


def nth(model_id: int, low: uuid.UUID, high: uuid.UUID, skipped: int = 0) -> uuid.UUID | None:
    """Returns the id of the row after `skipped` others with low <= id < high, by an index-only scan."""
    with connection.cursor() as cursor:
        cursor.execute(_NTH, {"model": model_id, "low": low, "high": high, "skipped": skipped})
        row = cursor.fetchone()
    return None if row is None else row[0]


def forget(model_id: int, hour: dt.datetime, low: uuid.UUID) -> None:
    """Deletes the counts of an hour whose first id is `low`, so that it is recounted."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, {"model": model_id, "hour": hour, "low": low})


def forget_marks(model_id: int, hour: dt.datetime) -> None:
    """Deletes the marks of the hours after `hour`; their counts stay until these hours are opened."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET_MARKS, {"model": model_id, "hour": hour})


def empty(model_id: int, first: dt.datetime, last: dt.datetime) -> None:
    """Deletes old counts of the hours from `first` to `last` before they are opened."""
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY, {"model": model_id, "first": first, "last": last})


def is_removed(hour: dt.datetime) -> bool:
    """Returns whether the hour's month was removed from the log; a later row does not stand for the hour."""
    return RemovedMonth.objects.filter(start=hour.replace(day=1, hour=0)).exists()
