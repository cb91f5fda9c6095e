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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Sum

from core.uuid7 import LAST, lowest_at, time_of
from predictions.log.connection import ANSWER_SECONDS
from predictions.models import RolledHour, Rollup
from predictions.rollups import rollup_rows
from predictions.rollups.rollup_rows import HOUR
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.drift.bin_counts import Counted

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
    now = now or rollup_rows.now()  # once: the mark of the hour that goes on would move for ever
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
    now = now or rollup_rows.now()
    rolled = roll_up(model, seconds=seconds, now=now)
    with transaction.atomic():
        if rolled.whole:
            rollup_rows.begin(model.pk)
            while _next(model.pk, lowest_at(now), now) is not None:
                pass
            rollup_rows.settle()
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
    rows, mark = 0, lowest_at(rollup_rows.now() - lag())
    for hour in _hours_with_rows(model.pk, since, min(until, newest + HOUR)):
        with transaction.atomic(durable=True):
            rollup_rows.begin(model.pk)
            rows += _anew(model.pk, hour, mark)
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
            rollup_rows.begin(model_id)
            rollup_rows.forget_marks(model_id, present)


def _step(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    """One piece of the work, committed: rows counted, or None when there is nothing to do."""
    with transaction.atomic(durable=True):
        rollup_rows.begin(model_id)
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
    high = rollup_rows.nth(model_id, low, stop, skipped=PIECE) or stop
    return rollup_rows.count(model_id, hour, low, high)


def _close(model_id: int, hour: dt.datetime) -> int:
    """Compares an hour that is over with the log, and some older ones: those that differ are counted anew."""
    different = rollup_rows.differing(model_id, [*(hour - again for again in AGAIN), hour])
    if hour not in different:
        RolledHour.objects.filter(registered_model_id=model_id, hour=hour).update(closed=True)
    return sum(_anew(model_id, each) for each in different)


def _anew(model_id: int, hour: dt.datetime, mark: uuid.UUID = LAST) -> int:
    """Throws an hour away and counts its first piece, in one transaction: most hours are never seen empty."""
    low = lowest_at(hour)
    rollup_rows.forget(model_id, hour, low)
    return _count_piece(model_id, hour, low, max(low, min(_end(hour), mark)))


def _rest_of(model_id: int, hour: dt.datetime, mark: uuid.UUID) -> int | None:
    """The next piece of an hour that is counted anew; None when there is none."""
    with transaction.atomic(durable=True):
        rollup_rows.begin(model_id)
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
    found = rollup_rows.nth(model_id, low, mark)
    if found is None and newest is None:
        return None
    last = _hour_of(time_of(found or uuid.UUID(int=mark.int - 1)))
    hour = last if newest is None else max(newest + HOUR, min(last, _hour_of(now) - FILLED))
    rollup_rows.empty(model_id, hour, last)
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
        found = rollup_rows.nth(model_id, lowest_at(hour), lowest_at(until))
        if found is None:
            return
        hour = _hour_of(time_of(found))
        if not rollup_rows.is_removed(hour):
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
    return rollup_rows.nth(model.pk, lowest_at(since), lowest_at(until)) is not None


def answered(model_ids: Iterable[int], since: dt.datetime, until: dt.datetime) -> dict[int, int]:
    """Rows of each model, also of those that answered nothing."""
    wanted = list(model_ids)
    hours = RolledHour.objects.filter(registered_model_id__in=wanted, hour__gte=since, hour__lt=until)
    sums = hours.order_by().values_list("registered_model_id").annotate(Sum("rows"))
    return dict.fromkeys(wanted, 0) | dict(sums)
