"""Retention of the log: the references that it still holds, and the removal of its oldest months.

A row counts as logged while its partition exists. Only a complete month is removed, and the removal is
recorded. A month that a kept review covers stays unless the caller overrides it, and so does a month that is
not rolled up yet. Reviews hold their own counts and stay; they show when their rows were removed.
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
from predictions.quality import hourly
from predictions.rollups import counting
from training.models import ModelVersion, RegisteredModel

LOCK_NOT_AVAILABLE: Final = "55P03"


def is_in_the_log(version: ModelVersion) -> bool:
    """Returns whether the log holds a prediction of `version`, by one index probe per partition."""
    return Prediction.objects.filter(version_id=version.pk).exists()


@dataclass(frozen=True, slots=True)
class Removal:
    """The removal of a month of the log, or its dry run.

    rows : the database's estimate. reviews : reviews that cover the month. kept : the reason why the month
    stays; empty if it is removed.
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
    although_kept : also removes months that a kept review covers; the review then shows when its rows went.
    dry_run : returns the removals without removing anything.
    """
    return [
        _remove(month, although_kept=although_kept, dry_run=dry_run, by=by)
        for month in partitions.months()
        if month.next.start <= moment and month.next.start <= timezone.now()
    ]


def remove_month(month: Month) -> Removal | None:
    """Removes one month although reviews keep it; None if it has no partition."""
    if month not in partitions.months():
        return None
    return _remove(month, although_kept=True, dry_run=False, by=None)


def _remove(month: Month, *, although_kept: bool, dry_run: bool, by: User | None) -> Removal:
    rows, reviews = partitions.estimated_rows(month), list(_reviews_of(month))
    reason = "" if although_kept else _kept_by(reviews)
    reason = reason or ("" if dry_run else _count_all(month))
    if reason or dry_run:
        return Removal(month, rows, reviews, reason)
    try:
        with transaction.atomic():
            # Counting may take hours, and users may keep reviews meanwhile; row locks prevent it from here.
            reviews = list(_reviews_of(month).select_for_update(of=["self"]))
            reason = "" if although_kept else _kept_by(reviews)
            if not reason:
                partitions.drop(month)
                _record(month, rows, by, although_kept=any(review.kept for review in reviews))
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != LOCK_NOT_AVAILABLE:
            raise
        reason = "another transaction is reading the log; the next run tries again"
    return Removal(month, rows, reviews, reason)


def _reviews_of(month: Month) -> QuerySet[DriftReview, DriftReview]:
    """Returns the reviews that cover a month."""
    rows = DriftReview.objects.filter(since__lt=month.next.start, until__gt=month.start)
    return rows.select_related("version__registered_model").order_by("pk")


def _kept_by(reviews: list[DriftReview]) -> str:
    """Returns the reviews that keep the month, in words; empty without kept reviews."""
    kept = [review for review in reviews if review.kept]
    if not kept:
        return ""
    return "kept for " + ", ".join(map(str, kept[:5])) + (" and others" if len(kept) > 5 else "")


def _record(month: Month, rows: int, by: User | None, *, although_kept: bool) -> None:
    """Records the removal of a month. A month that a wrong clock created again keeps one record."""
    record, is_new = RemovedMonth.objects.get_or_create(
        start=month.start, defaults={"rows": rows, "although_kept": although_kept, "by": by}
    )
    if not is_new:
        record.rows += rows
        record.save(update_fields=["rows"])
    _reviews_of(month).filter(log_removed_at__isnull=True).update(log_removed_at=timezone.now())


def _count_all(month: Month) -> str:
    """Completes rollups and tallies of a month; returns the reason why the month must stay, or ""."""
    for model in RegisteredModel.objects.filter(pk__in=partitions.model_ids(month)):
        counting.roll_up(model, until=month.next.start)
        hourly.aggregate_changed_hours(model, skip_resting=False)
        counted = counting.counted_to(model)
        if counted is None or counted < month.next.start:
            return f"{model} is not rolled up yet"
    return ""


def months_ago(count: int, now: dt.datetime) -> dt.datetime:
    """Returns the beginning of the month `count` months before the month of `now`."""
    months = max(12, now.year * 12 + now.month - 1 - count)  # not before January of the year 1
    return dt.datetime(months // 12, months % 12 + 1, 1, tzinfo=dt.UTC)
