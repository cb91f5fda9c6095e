"""Erases again what a restored backup has brought back, from the records of the erasures.

A record applies once: the database then holds it, and a later backup does too. It names a row by its id and a
time, so it never matches another row that got the same id after an earlier restore.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import ProtectedError, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from knox.models import AuthToken

from core.uuid7 import lowest_at, time_of
from predictions import retention
from predictions.log.partitions import Month
from predictions.models import Erasure, Outcome, Prediction
from predictions.quality import hourly
from predictions.rollups import counting
from training import artifacts
from training.models import Dataset, RegisteredModel

BATCH: Final = 1000
Kind = Erasure.Kind


class Record(msgspec.Struct):
    """One line of the file of tombstones."""

    id: str
    kind: str
    reference: str
    moment: dt.datetime | None
    at: dt.datetime


@dataclass
class Applied:
    """Number of records that were new, and of rows that they erased."""

    records: int = 0
    rows: int = 0


def read(lines: Iterable[bytes]) -> list[Record]:
    return [msgspec.json.decode(line, type=Record) for line in lines if line.strip()]


def apply(records: list[Record]) -> Applied:
    """Erases what the records name and the database still holds; a repetition changes nothing.

    The log's months are counted before they go, as `drop_log` does.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET vigia.erasures = 'known'")  # the triggers record nothing a second time
    try:
        return _apply(sorted(_unknown(records), key=lambda record: record.at))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET vigia.erasures")


def _apply(new: list[Record]) -> Applied:
    done = Applied(len(new))
    for record in new:
        if record.kind == Kind.MONTH and record.moment:
            done.rows += _month(Month.of(record.moment.astimezone(dt.UTC)))
    hours: set[tuple[int, dt.datetime]] = set()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL vigia.maintenance = 'erase'")
        models: set[int] = set()
        for batch in _batches(new, Kind.PREDICTION):
            ids = [record.reference for record in batch]
            rows = Prediction.objects.filter(pk__in=ids).values_list("registered_model_id", "pk")
            hours |= {(model, time_of(pk).replace(minute=0, second=0, microsecond=0)) for model, pk in rows}
            done.rows += _delete("DELETE FROM predictions_prediction WHERE id = ANY(%s::uuid[])", ids)
        for batch in _batches(new, Kind.OUTCOME):
            ids = [record.reference for record in batch]
            models |= set(Outcome.objects.filter(pk__in=ids).values_list("registered_model_id", flat=True))
            done.rows += _delete_rows("predictions_outcome", batch)
        for batch in _batches(new, Kind.INTERACTION):
            done.rows += _delete_rows("recommender_interaction", batch)
        keys = [record.reference for record in new if record.kind == Kind.KEY]
        done.rows += AuthToken.objects.filter(digest__in=keys).delete()[0]
        datasets = [record.reference for record in new if record.kind == Kind.DATASET]
        done.rows += _datasets(datasets)
        for record in new:
            done.rows += _user(record)
        for model in RegisteredModel.objects.filter(pk__in=models):
            hourly.mark_all_hours_dirty(model)
        fields = ("id", "kind", "reference", "moment", "at")
        Erasure.objects.bulk_create(
            [Erasure(**{name: getattr(record, name) for name in fields}) for record in new], batch_size=BATCH
        )
    for dataset in Dataset.objects.filter(sha256__in=datasets, deleted_at__isnull=False):
        artifacts.remove_dataset(dataset)
    for model_id, hour in sorted(hours):
        counting.recount(RegisteredModel.objects.get(pk=model_id), hour, hour + dt.timedelta(hours=1))
    return done


def _unknown(records: list[Record]) -> list[Record]:
    unknown: dict[str, Record] = {}
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        ids = [record.id for record in batch]
        known = {str(pk) for pk in Erasure.objects.filter(pk__in=ids).values_list("pk", flat=True)}
        unknown |= {record.id: record for record in batch if record.id not in known}
    return list(unknown.values())


def _batches(records: list[Record], kind: str) -> Iterator[list[Record]]:
    chosen = [record for record in records if record.kind == kind]
    for start in range(0, len(chosen), BATCH):
        yield chosen[start : start + BATCH]


def _delete(statement: str, *parameters: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def _delete_rows(table: str, records: list[Record]) -> int:
    return _delete(
        f"DELETE FROM {table} USING unnest(%s::bigint[], %s::timestamptz[]) AS erased (id, received_at) "  # noqa: S608
        f"WHERE {table}.id = erased.id AND {table}.received_at = erased.received_at",
        [int(record.reference) for record in records],
        [record.moment for record in records],
    )


def _datasets(digests: list[str]) -> int:
    """Records again that the files of datasets were deleted; returns the number of changed rows."""
    now = timezone.now()
    rows = Dataset.objects.filter(sha256__in=digests, deleted_at=None)
    return rows.update(deleted_at=now, archived_at=Coalesce("archived_at", Value(now)))


def _month(month: Month) -> int:
    """Removes a month of the log again, also if reviews keep it. Returns the number of its rows."""
    removal = retention.remove_month(month)
    if removal is not None and removal.kept:
        raise RuntimeError(f"the month {month.table} cannot be removed again: {removal.kept}")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'erase'")
        cursor.execute(
            "DELETE FROM predictions_prediction_default WHERE id >= %s AND id < %s",
            [lowest_at(month.start), lowest_at(month.next.start)],
        )
        return (removal.rows if removal else 0) + int(cursor.rowcount)


def _user(record: Record) -> int:
    """Applies a user's record; returns 1 if it changed a user."""
    if record.kind not in (Kind.USER_DELETED, Kind.USER_DEACTIVATED, Kind.USER_ACTIVATED):
        return 0
    assert record.moment is not None
    users = User.objects.filter(pk=int(record.reference), date_joined=record.moment)
    if record.kind != Kind.USER_DELETED:
        active = record.kind == Kind.USER_ACTIVATED
        return users.exclude(is_active=active).update(is_active=active)
    user = users.first()
    if user is None:
        return 0
    try:
        with transaction.atomic():
            user.delete()
    except ProtectedError:  # rows name the user, who stays without keys and rights
        AuthToken.objects.filter(user=user).delete()
        user.groups.clear()
        user.user_permissions.clear()
        user.set_unusable_password()
        user.is_active = user.is_staff = user.is_superuser = False
        user.save()
    return 1
