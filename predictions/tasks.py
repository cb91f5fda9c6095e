"""Housekeeping tasks of the log, which beat starts."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable

from celery import shared_task
from django.conf import settings
from django.db import connection
from django.utils import timezone
from knox.models import AuthToken

from core.events import retention as event_retention
from predictions import retention
from predictions.batches import files as batch_files
from predictions.drift import retraining, reviews
from predictions.exports import files as export_files
from predictions.log import partitions
from predictions.outcomes import matching
from predictions.quality import hourly
from predictions.retention import is_in_the_log
from predictions.rollouts import shadow_retention
from predictions.rollups import counting
from training import queueing
from training.models import IdempotencyKey, RegisteredModel
from training.registry import artifact_pruning
from training.runs import pushes
from vigia_ml.errors import VigiaError

log = logging.getLogger(__name__)

PIECE_SECONDS = 20.0
"""Time limit for counting one model's log before the next model's turn."""


@shared_task
def make_partitions() -> list[str]:
    """Creates the log's partitions for the coming months; returns their names."""
    return partitions.ensure(timezone.now(), settings.PARTITIONS_AHEAD)


@shared_task
def prune_artifacts() -> int:
    """Prunes models that limit their retired artifacts; returns the number of artifacts removed."""
    removed = 0
    for model in RegisteredModel.objects.filter(kept_artifacts__isnull=False):
        done = artifact_pruning.prune(model, is_referred_to=is_in_the_log)
        removed += sum(not each.kept for each in done)
    return removed


@shared_task
def remove_left_pushes() -> int:
    """Removes files of pushes that no unfinished run needs; returns the number of pushes."""
    return pushes.remove_orphans()


@shared_task
def remove_old_batches() -> int:
    """Removes files of batches that ended more than BATCH_KEEP_DAYS ago, and those that no batch needs.

    Returns
    -------
    The number of batches whose files were removed.
    """
    return batch_files.remove_old()


@shared_task
def remove_old_exports() -> int:
    """Removes the files of log exports older than `EXPORT_KEEP_DAYS`; returns the number of exports."""
    return export_files.remove_old()


@shared_task
def forget_idempotency_keys() -> int:
    """Removes idempotency keys older than `IDEMPOTENCY_HOURS`; returns their number."""
    old = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    return IdempotencyKey.objects.filter(created_at__lt=old).delete()[0]


@shared_task
def remove_old_events() -> int:
    """Removes events and deliveries beyond EVENTS_KEEP_DAYS; returns the number of events."""
    return event_retention.remove_old()


@shared_task
def remove_expired_keys() -> int:
    """Removes client keys whose time is over, which writes their events; returns their number."""
    return int(AuthToken.objects.filter(expiry__lte=timezone.now()).delete()[0])


@shared_task
def forget_shadow_answers() -> int:
    """Removes shadow answers whose rows are no longer in the log; returns their number."""
    return shadow_retention.follow_the_log()


@shared_task
def join_waiting_outcomes() -> int:
    """Joins waiting outcomes with predictions that have arrived since; returns the number joined."""
    return matching.join_waiting()


@shared_task
def count_the_log() -> int:
    """Rolls up new log rows and aggregates changed quality hours; returns the number of rows counted."""

    def count(model: RegisteredModel) -> int:
        rows = counting.roll_up(model, seconds=PIECE_SECONDS).rows
        hourly.aggregate_changed_hours(model, seconds=PIECE_SECONDS)
        return rows

    return _one_by_one(RegisteredModel.objects.all(), count)


@shared_task
def review_models() -> int:
    """Makes the due drift reviews, queues the training runs they request; returns the number of reviews."""

    def review(model: RegisteredModel) -> int:
        try:
            made = reviews.review_when_due(model, timezone.now())
        except VigiaError as error:  # e.g. no reference profile: nothing is broken
            log.warning("%s was not reviewed: %s", model, error)
            return 0
        run = retraining.request_if_triggered(made) if made is not None else None
        if run is not None:
            queueing.enqueue(run)
        return int(made is not None)

    return _one_by_one(reviews.due(timezone.now()), review)


def _one_by_one(models: Iterable[RegisteredModel], work: Callable[[RegisteredModel], int]) -> int:
    """Sums the results of `work` for every model; a failure of one model does not stop the others.

    Raises
    ------
    ExceptionGroup : `work` failed for some models, whose names are notes of the errors; the task fails.
    """
    failed, done, total = [], 0, 0
    for model in models:
        done += 1
        try:
            total += work(model)
        except Exception as error:
            error.add_note(model.name)
            failed.append(error)
            connection.close_if_unusable_or_obsolete()  # the next model gets a new connection
    if failed:
        raise ExceptionGroup(f"the task failed for {len(failed)} of {done} models", failed)
    return total


@shared_task
def remove_old_months() -> int:
    """Removes the months of the log beyond LOG_KEEP_MONTHS; returns their number."""
    if settings.LOG_KEEP_MONTHS <= 0:
        return 0
    done = retention.remove_before(retention.months_ago(settings.LOG_KEEP_MONTHS, timezone.now()))
    for each in done:
        if each.kept:
            log.info("%s stays in the log: %s", each.month.table, each.kept)
    return sum(not each.kept for each in done)
