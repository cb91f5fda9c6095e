"""What the log still refers to, and the removal of its oldest months.

A row counts while its partition is there. A month is removed whole, on record: never one that a kept review
is about, unless somebody says so, and never before it was rolled up. Reviews hold their own counts and stay;
those whose rows are gone say when they went.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Final

from django.contrib.auth.models import User
from django.db import OperationalError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from predictions.log import partitions
from predictions.log.partitions import Month
from predictions.models import DriftReview, Prediction, RemovedMonth
from predictions.quality import realised
from predictions.rollups import counting
from training.models import ModelVersion, RegisteredModel

LOCK_NOT_AVAILABLE: Final = "55P03"


def is_in_the_log(version: ModelVersion) -> bool:
    """Whether any logged prediction was made by `version`; one look into the index of each partition."""
    return Prediction.objects.filter(version_id=version.pk).exists()


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of a month of the log, or would.

    rows : as the database estimates them. reviews : that are about it. kept : why it stays, in words; else
    empty.
    """

    month: Month
    rows: int
    reviews: list[DriftReview] = field(default_factory=list)
    kept: str = ""


def remove_before(
    moment: dt.datetime, *, although_kept: bool = False, dry_run: bool = False, by: User | None = None
) -> list[Removal]:
    """Removes the months of the log that were over before `moment`, oldest first.

    Parameters
    ----------
    although_kept : also those that a kept review is about; the review then says that its rows are gone.
    dry_run : says what would be done, and does nothing.
    """
    return [
        _remove(month, although_kept=although_kept, dry_run=dry_run, by=by)
        for month in partitions.months()
        if month.next.start <= moment and month.next.start <= timezone.now()
    ]


def _remove(month: Month, *, although_kept: bool, dry_run: bool, by: User | None) -> Removal:
    rows, about = partitions.estimated_rows(month), list(_about(month))
    kept = "" if although_kept else _kept_for(about)
    kept = kept or ("" if dry_run else _count_all(month))
    if kept or dry_run:
        return Removal(month, rows, about, kept)
    try:
        with transaction.atomic():
            # Counting may have taken hours, and reviews are made and kept meanwhile; from here on not.
            about = list(_about(month).select_for_update(of=["self"]))
            kept = "" if although_kept else _kept_for(about)
            if not kept:
                partitions.drop(month)
                _record(month, rows, by, although_kept=any(review.kept for review in about))
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != LOCK_NOT_AVAILABLE:
            raise
        kept = "somebody is reading the log; the next time will do"
    return Removal(month, rows, about, kept)


def _about(month: Month) -> QuerySet[DriftReview, DriftReview]:
    """Reviews that are about a month."""
    rows = DriftReview.objects.filter(since__lt=month.next.start, until__gt=month.start)
    return rows.select_related("version__registered_model").order_by("pk")


def _kept_for(about: list[DriftReview]) -> str:
    """Which of these somebody keeps, in words; empty where none is kept."""
    holding = [review for review in about if review.kept]
    if not holding:
        return ""
    return "kept for " + ", ".join(map(str, holding[:5])) + (" and others" if len(holding) > 5 else "")


def _record(month: Month, rows: int, by: User | None, *, although_kept: bool) -> None:
    """That a month has gone. One that had come again, when a clock stood wrong, is the same on record."""
    record, is_new = RemovedMonth.objects.get_or_create(
        start=month.start, defaults={"rows": rows, "although_kept": although_kept, "by": by}
    )
    if not is_new:
        record.rows += rows
        record.save(update_fields=["rows"])
    _about(month).filter(log_removed_at__isnull=True).update(log_removed_at=timezone.now())


def _count_all(month: Month) -> str:
    """Rolls up and adds up what is left to; why the month has to stay for now, if that is not everything."""
    for model in RegisteredModel.objects.filter(pk__in=partitions.model_ids(month)):
        counting.roll_up(model, until=month.next.start)
        realised.aggregate_changed_hours(model, rested=False)
        counted = counting.counted_to(model)
        if counted is None or counted < month.next.start:
            return f"{model} is not rolled up yet"
    return ""


def months_ago(count: int, now: dt.datetime) -> dt.datetime:
    """The beginning of the month so many months before the one of `now`."""
    months = max(12, now.year * 12 + now.month - 1 - count)  # the first that there is
    return dt.datetime(months // 12, months % 12 + 1, 1, tzinfo=dt.UTC)
