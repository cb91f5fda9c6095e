"""Hourly rollups of the log: how many cells of each column fell into each bin of the reference profile.

Counting goes forward by id, and ids are time. `RolledHour.upto` is the mark of an hour: every row below it
has been counted. A row behind the mark is added to the bins by the statement that moves the mark, so that one
is never done without the other, whatever ends between; and of those who count, one at a time holds the
model's lock. The log's writers wait for none of it.

A row's id is made when it is answered, and its COMMIT comes later. So the mark keeps a distance from now
(`lag`), after which the log's writer has given a row up. Who wants to know what has come since (a review)
counts it for the moment, within `to_this_moment`, and nothing of that is kept. What comes later still (a
clock that is behind, a server that stood still in the middle of a COMMIT, rows put in by hand) is found by
comparing how much was counted of an hour with how much the log holds: when it is over, and `AGAIN` later.
Then it is counted anew.
Where the log holds nothing of an hour any more, or its month was removed, what was counted stays.

A clock that was ahead leaves marks of hours that are yet to come, and nothing would be counted until then:
they are forgotten, and those hours are counted anew when their time has come.
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
"""Rows in one transaction: a third of a second, and a few megabytes, whatever an hour holds."""
SPARE: Final = dt.timedelta(seconds=10)
CLOSING: Final = dt.timedelta(minutes=5)
"""So long after its end, an hour is compared with the log and closed."""
AGAIN: Final = tuple(dt.timedelta(hours=hours) for hours in (1, 24, 72, 168))
"""So long before an hour that is closed lie the ones that are looked at once more."""
FILLED: Final = dt.timedelta(days=2)
"""Hours without a row are kept as such back to here, so that they are compared as well."""
FIRST: Final = uuid.UUID(int=0)

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


@dataclass(frozen=True, slots=True)
class Rolled:
    """rows : counted now. counted_to : see `counted_to`. whole : nothing is left to be counted."""

    rows: int
    counted_to: dt.datetime | None
    whole: bool = True


def lag() -> dt.timedelta:
    """How long after its id was made a row may still be committed: it waits for the writer, whose statement
    ends then or is cancelled."""
    return dt.timedelta(seconds=settings.LOG_WAIT_SECONDS + ANSWER_SECONDS) + SPARE


# -- counting ------------------------------------------------------------------------------------------


def roll_up(
    model: RegisteredModel,
    *,
    until: dt.datetime | None = None,
    seconds: float | None = None,
    now: dt.datetime | None = None,
) -> Rolled:
    """Counts what is new in the model's log, oldest first, in transactions of at most `PIECE` rows.

    Not to be called within a transaction. What has been committed when it ends early is not done again.

    Parameters
    ----------
    until : count to here, never beyond `lag` before now: until then a row with an id from before may still
        be committed, and it would lie behind the mark.
    seconds : begin nothing new after so long; None: until all is counted.
    now : another time than the database's.
    """
    began, rows = time.monotonic(), 0
    now = now or database_now()  # once: the mark of the hour that goes on would move for ever
    mark = lowest_at(now - lag() if until is None else min(until, now - lag()))
    _forget_what_is_to_come(model.pk, now)
    while (done := _step(model.pk, mark, now)) is not None:
        rows += done
        if seconds is not None and time.monotonic() - began >= seconds:
            break
    return Rolled(rows, counted_to(model), whole=done is None)


@contextmanager
def to_this_moment(
    model: RegisteredModel, *, seconds: float | None = None, now: dt.datetime | None = None
) -> Iterator[dt.datetime | None]:
    """`roll_up`, and within it the rollups hold what was committed since as well; gives `counted_to`.

    That part is counted in a transaction that is rolled back in the end: the marks stay where they are, and
    a row that is committed later with an id from before is counted by the next one. Where `seconds` were too
    few for what lay behind, nothing is added to it.
    """
    now = now or database_now()
    rolled = roll_up(model, seconds=seconds, now=now)
    with transaction.atomic():
        if rolled.whole:
            begin(model.pk)
            while _next(model.pk, lowest_at(now), now) is not None:
                pass
            settle()
        yield counted_to(model)
        transaction.set_rollback(True)


def recount(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> int:
    """Counts the hours that begin in [since, until) anew, as far as they were rolled up; rows counted.

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
        while (more := _rest_of(model.pk, hour, mark)) is not None:
            rows += more
    return rows


def counted_to(model: RegisteredModel) -> dt.datetime | None:
    """Everything the log held from before this moment has been counted; None when nothing has.

    "Held" when it was counted: see the top of this module for what comes late.
    """
    newest = _newest(model.pk)  # first: an hour that is opened meanwhile is then seen among the open ones
    behind = next((upto for hour, upto in _open(model.pk) if upto < _end(hour)), None)
    if behind is not None:
        return time_of(behind)
    return None if newest is None else newest + HOUR


def _forget_what_is_to_come(model_id: int, now: dt.datetime) -> None:
    newest, present = _newest(model_id), _hour_of(now)
    if newest is not None and newest > present:
        with transaction.atomic(durable=True):
            begin(model_id)
            forget_marks(model_id, present)


def _step(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    """One piece of the work, committed: rows counted, or None when there is nothing to do."""
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
    """Compares an hour that is over with the log, and some older ones: those that differ are counted anew."""
    different = differing(model_id, [*(hour - again for again in AGAIN), hour])
    if hour not in different:
        RolledHour.objects.filter(registered_model_id=model_id, hour=hour).update(closed=True)
    return sum(_recount_hour(model_id, each) for each in different)


def _recount_hour(model_id: int, hour: dt.datetime, mark: uuid.UUID = LAST) -> int:
    """Throws an hour away and counts its first piece, in one transaction: most hours are never seen empty."""
    low = lowest_at(hour)
    forget(model_id, hour, low)
    return _count_piece(model_id, hour, low, max(low, min(_end(hour), mark)))


def _rest_of(model_id: int, hour: dt.datetime, mark: uuid.UUID) -> int | None:
    """The next piece of an hour that is counted anew; None when there is none."""
    with transaction.atomic(durable=True):
        begin(model_id)
        upto = dict(_open(model_id)).get(hour)
        if upto is None or upto >= min(_end(hour), mark):
            return None
        return _count_piece(model_id, hour, upto, min(_end(hour), mark))


def _open_next(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    """Goes on to the next hour that has rows, or to that of the mark."""
    newest = _newest(model_id)
    low = FIRST if newest is None else lowest_at(newest + HOUR)
    if low >= mark:
        return None
    found = nth(model_id, low, mark)
    if found is None and newest is None:
        return None
    last = _hour_of(time_of(found or uuid.UUID(int=mark.int - 1)))
    hour = last if newest is None else max(newest + HOUR, min(last, _hour_of(now) - FILLED))
    empty(model_id, hour, last)
    made = []
    while hour <= last:
        made.append(RolledHour(registered_model_id=model_id, hour=hour, upto=lowest_at(hour)))
        hour += HOUR
    RolledHour.objects.bulk_create(made)
    return 0


def _hours_with_rows(model_id: int, since: dt.datetime, until: dt.datetime) -> Iterator[dt.datetime]:
    """The hours that begin in [since, until) and have rows, by one look into the index for each."""
    hour = _hour_of(since)
    hour += HOUR if hour < since else dt.timedelta(0)
    while hour < until:
        found = nth(model_id, lowest_at(hour), lowest_at(until))
        if found is None:
            return
        hour = _hour_of(time_of(found))
        if not is_removed(hour):
            yield hour
        hour += HOUR


def _open(model_id: int) -> list[tuple[dt.datetime, uuid.UUID]]:
    """Hours that are not closed, and their marks."""
    rows = RolledHour.objects.filter(registered_model_id=model_id, closed=False)
    return list(rows.order_by("hour").values_list("hour", "upto"))


def _newest(model_id: int) -> dt.datetime | None:
    rows = RolledHour.objects.filter(registered_model_id=model_id)
    found: dt.datetime | None = rows.aggregate(newest=Max("hour"))["newest"]
    return found


def _end(hour: dt.datetime) -> uuid.UUID:
    """The lowest id behind an hour."""
    return lowest_at(hour + HOUR)


def _hour_of(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


# -- reading -------------------------------------------------------------------------------------------
# A window is read as the hours that begin in [since, until).


# -- the statements ------------------------------------------------------------------------------------


def database_now() -> dt.datetime:
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
