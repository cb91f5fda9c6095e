"""Hourly rollups of the log: the number of cells of each column in each bin of the reference profile.

Counting moves forward by id, and ids order by time. `RolledHour.upto` is the mark of an hour: every row below
it has been counted. One transaction adds the rows behind the mark to the bins and moves the mark, so a killed
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
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Max, QuerySet, TextField
from django.db.models.functions import Cast

from core.uuid7 import LAST, lowest_at, time_of
from predictions.log.connection import ANSWER_SECONDS
from predictions.models import Lock, RolledHour, Rollup, decoded
from predictions.rollups.hours import HOUR, NOT_REMOVED, ceiling, end, floor, is_removed, logged
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.bins import Bins, Floats
from vigia_ml.evaluation.outputs import label_text
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, ClassProfile, Profile
from vigia_ml.schema import moments

PIECE: Final = 5_000
"""Rows per transaction, which takes a twentieth of a second and a few megabytes however large the hour is. In
a web process, decoding a piece stops the other threads for a few milliseconds."""
LONGEST_PIECE: Final = 8 * 2**20
"""Characters of inputs after which a piece ends: 5,000 rows of long texts would fill the memory."""
FETCHED: Final = 500
"""Rows fetched at once."""
SPARE: Final = dt.timedelta(seconds=10)
CLOSING: Final = dt.timedelta(minutes=5)
"""Time after an hour's end when it is compared with the log and closed."""
AGAIN: Final = tuple(dt.timedelta(hours=hours) for hours in (1, 24, 72, 168))
"""Ages, relative to an hour that is being closed, of the earlier hours that are compared once more."""
FILLED: Final = dt.timedelta(days=2)
"""Age back to which hours without rows are stored, so that they are compared as well."""
FIRST: Final = uuid.UUID(int=0)
LARGEST: Final = 1e290
"""Bound of the numbers in a sum; without it a few numbers could overflow a double."""

_ADD: Final = """
    INSERT INTO predictions_rollup AS kept (version_id, hour, "column", bin, rows, total)
    SELECT version_id, %s, "column", bin, rows, total
    FROM unnest(%s::bigint[], %s::text[], %s::smallint[], %s::bigint[], %s::float8[])
        AS added (version_id, "column", bin, rows, total)
    ON CONFLICT (version_id, hour, "column", bin) DO UPDATE
    SET rows = kept.rows + EXCLUDED.rows, total = kept.total + EXCLUDED.total
"""


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
    with _locked(model.pk):
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
            Lock.ROLLUPS.take(model.pk)
            while _next(model.pk, lowest_at(now), now) is not None:
                pass
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
        with _locked(model.pk):
            rows += _recount_hour(model.pk, hour, mark)
        while (more := _step(model.pk, mark)) is not None:
            rows += more
    return rows


def counted_to(model: RegisteredModel) -> dt.datetime | None:
    """Returns the time up to which all logged rows were counted; None if none were.

    Rows that arrived after the counting are not included, see the top of this module.
    """
    newest = _newest(model.pk)  # read first: an hour that opens meanwhile is then among the open ones
    behind = next((upto for hour, upto in _open(model.pk) if upto < end(hour)), None)
    if behind is not None:
        return time_of(behind)
    return None if newest is None else newest + HOUR


@contextmanager
def _locked(model_id: int) -> Iterator[None]:
    """Opens a transaction that holds the lock on the model's rollups."""
    with transaction.atomic(durable=True):
        Lock.ROLLUPS.take(model_id)
        yield


def _forget_future_marks(model_id: int, now: dt.datetime) -> None:
    """Deletes marks of hours after the present one; their counts stay until these hours are opened."""
    RolledHour.objects.filter(NOT_REMOVED, registered_model_id=model_id, hour__gt=floor(now)).delete()


def _step(model_id: int, mark: uuid.UUID, now: dt.datetime | None = None) -> int | None:
    """Commits one piece of the work; returns the rows counted, or None if there is nothing to do."""
    with _locked(model_id):
        return _next(model_id, mark, now)


def _next(model_id: int, mark: uuid.UUID, now: dt.datetime | None) -> int | None:
    """Does one piece of the work; without `now`, hours are neither closed nor opened."""
    hours = _open(model_id)
    for hour, upto in hours:
        stop = min(end(hour), mark)
        if upto < stop:
            return count(model_id, hour, upto, stop)
    if now is None:
        return None
    for hour, upto in hours:
        if upto >= end(hour) and hour + HOUR + CLOSING <= now:
            return _close(model_id, hour)
    return _open_next(model_id, mark, now)


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
    forget(model_id, hour)
    return count(model_id, hour, low, max(low, min(end(hour), mark)))


def _open_next(model_id: int, mark: uuid.UUID, now: dt.datetime) -> int | None:
    """Opens the next hour that has rows, or the hour of the mark."""
    newest = _newest(model_id)
    low = FIRST if newest is None else lowest_at(newest + HOUR)
    if low >= mark:
        return None
    first = first_id(model_id, low, mark)
    if first is None and newest is None:
        return None
    last = floor(time_of(first or uuid.UUID(int=mark.int - 1)))
    hour = last if newest is None else max(newest + HOUR, min(last, floor(now) - FILLED))
    # An hour whose mark was deleted still has counts.
    _rollups(model_id).filter(NOT_REMOVED, hour__gte=hour, hour__lte=last).delete()
    opened = [hour + HOUR * place for place in range((last - hour) // HOUR + 1)]
    RolledHour.objects.bulk_create(
        RolledHour(registered_model_id=model_id, hour=each, upto=lowest_at(each)) for each in opened
    )
    return 0


def _hours_with_rows(model_id: int, since: dt.datetime, until: dt.datetime) -> Iterator[dt.datetime]:
    """Yields the hours that begin in [since, until) and are in the log, by index probes."""
    hour = ceiling(since)
    while hour < until:
        first = first_id(model_id, lowest_at(hour), lowest_at(until))
        if first is None:
            return
        hour = floor(time_of(first))
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


def database_now() -> dt.datetime:
    """Returns the database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def differing(model_id: int, hours: Sequence[dt.datetime]) -> list[dt.datetime]:
    """Returns those of these hours whose logged rows differ from the counts; hours without rows never do. An
    index-only scan of (registered_model_id, id) counts each hour's rows."""
    rolled = RolledHour.objects.filter(registered_model_id=model_id, hour__in=hours)
    counted = dict(rolled.values_list("hour", "rows"))
    held = {hour: logged(model_id, lowest_at(hour), end(hour)).count() for hour in sorted(hours)}
    return [
        hour for hour, rows in held.items() if rows not in (0, counted.get(hour, 0)) and not is_removed(hour)
    ]


def first_id(model_id: int, low: uuid.UUID, high: uuid.UUID) -> uuid.UUID | None:
    """Returns the lowest id of a row with low <= id < high, by an index-only scan."""
    return logged(model_id, low, high).values_list("id", flat=True).first()


def forget(model_id: int, hour: dt.datetime) -> None:
    """Deletes the counts of an hour, so that it is recounted."""
    _rollups(model_id).filter(hour=hour).delete()
    RolledHour.objects.update_or_create(
        registered_model_id=model_id,
        hour=hour,
        defaults={"upto": lowest_at(hour), "rows": 0, "closed": False},
    )


def _rollups(model_id: int) -> QuerySet[Rollup, Rollup]:
    return Rollup.objects.filter(version__in=ModelVersion.objects.filter(registered_model_id=model_id))


# -- bins ----------------------------------------------------------------------------------------------

_Cells = tuple[str, int, int, float | None]
"""Column, bin, rows, and the sum of the numbers; None for levels."""


def count(model_id: int, hour: dt.datetime, low: uuid.UUID, stop: uuid.UUID) -> int:
    """Adds an hour's next rows, low <= id < stop and at most one piece, to the rollups and moves its mark;
    returns the number of rows."""
    cells, prediction, by_class = (Cast(name, TextField()) for name in ("cells", "prediction", "by_class"))
    fields = logged(model_id, low, stop).values_list(
        "id", "version_id", cells, prediction, "probability", by_class
    )
    rows: list[Any] = []
    upto, length = stop, 0
    for row in fields[: PIECE + 1].iterator(FETCHED):
        if len(rows) == PIECE or length > LONGEST_PIECE:
            upto = row[0]
            break
        rows.append(row)
        length += len(row[2]) + len(row[5] or "")
    by_version: dict[int, list[Any]] = defaultdict(list)
    for _, version_id, *answer in rows:
        by_version[version_id].append(answer)
    profiles = {
        reference.version_id: reference.profile
        for reference in ReferenceProfile.objects.filter(version__in=by_version)
    }
    added: list[tuple[int, str, int, int, float | None]] = []
    for version_id, answers in by_version.items():
        added.append((version_id, Rollup.ROWS, 0, len(answers), None))
        if version_id in profiles:
            added += ((version_id, *cells) for cells in _binned(profiles[version_id], answers))
    if added:
        with connection.cursor() as cursor:
            cursor.execute(_ADD, [hour, *map(list, zip(*added, strict=True))])
    rolled = RolledHour.objects.filter(registered_model_id=model_id, hour=hour, upto=low)
    moved = rolled.update(upto=upto, rows=F("rows") + len(rows))
    assert moved == 1, "another process moved the mark without the lock"
    return len(rows)


def _binned(
    profile: Profile, answers: Sequence[tuple[str, str, float | None, str | None]]
) -> Iterator[_Cells]:
    """Yields the filled bins of one version's rows: inputs and prediction as JSON, the probability, and every
    class's probability as JSON."""
    inputs, predictions, probabilities, arrays = zip(*answers, strict=True)
    columns = zip_longest(*decoded(inputs))  # a row inserted by hand may be short: the others still count
    outputs = {PREDICTION: decoded(predictions), PROBABILITY: probabilities}
    for column, cells in zip(profile.columns, columns, strict=False):
        yield from _by_bin(column.name, column.bins, cells)
    for column in profile.answers:
        yield from _by_bin(column.name, column.bins, outputs[column.name])
    if profile.classes:
        yield from _by_class(profile.classes, decoded(array for array in arrays if array is not None))


def _by_class(classes: Sequence[ClassProfile], arrays: Sequence[Any]) -> Iterator[_Cells]:
    """Yields the filled bins of the classes. Rows without every class's probability are not counted."""
    known = [array for array in arrays if len(array) == len(classes)]
    if not known:
        return
    numbers = np.array(known, dtype=np.float64)
    decided = numbers.argmax(axis=1)
    for place, each in enumerate(classes):
        of_class = numbers[:, place]
        yield from _by_bin(each.probability.name, each.probability.bins, of_class)
        yield from _by_bin(each.decided.name, each.decided.bins, of_class[decided == place])


def _by_bin(name: str, bins: Bins, cells: Sequence[Any] | Floats) -> Iterator[_Cells]:
    """Yields the filled bins of one column's cells (n,)."""
    weights = sums = None
    if bins.kind == "level":
        levels = Counter(cells)
        places = bins.of_levels([None if level is None else label_text(level) for level in levels])
        weights = list(levels.values())
    else:
        if bins.kind == "length":
            cells = [None if cell is None else len(label_text(cell)) for cell in cells]
        elif (kind := bins.moment_type) is not None:
            cells = [None if cell is None else moments.code(cell, kind) for cell in cells]
        numbers = np.array(cells, dtype=np.float64)  # None is NaN; the log holds an infinite number as text
        places = bins.of_numbers(numbers)
        sums = np.bincount(places, np.clip(np.nan_to_num(numbers), -LARGEST, LARGEST))
    rows = np.bincount(places, weights)
    for place in np.flatnonzero(rows).tolist():
        yield name, place, int(rows[place]), None if sums is None else float(sums[place])
