"""The log's housekeeping, by beat."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable

from celery import shared_task
from django.conf import settings
from django.db import connection
from django.utils import timezone

from predictions import retention
from predictions.drift import retraining, reviews
from predictions.log import partitions
from predictions.outcomes import matching
from predictions.quality import realised
from predictions.retention import is_in_the_log
from predictions.rollouts import shadow_retention
from predictions.rollups import counting
from training import tasks as training_tasks
from training.models import IdempotencyKey, RegisteredModel
from training.registry import artifact_pruning
from vigia_ml.errors import VigiaError

log = logging.getLogger(__name__)

PIECE_SECONDS = 20.0
"""How long one model's log is counted before the next model has its turn."""


@shared_task
def make_partitions() -> list[str]:
    """Makes the log's partitions for the coming months; the names of those made."""
    return partitions.ensure(timezone.now(), settings.PARTITIONS_AHEAD)


@shared_task
def prune_artifacts() -> int:
    """Prunes the models whose row says how many retired artifacts are kept; how many artifacts went."""
    went = 0
    for model in RegisteredModel.objects.filter(kept_artifacts__isnull=False):
        done = artifact_pruning.prune(model, is_referred_to=is_in_the_log)
        went += sum(not each.kept for each in done)
    return went


@shared_task
def forget_idempotency_keys() -> int:
    """Removes idempotency keys older than a day; how many."""
    old = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    return IdempotencyKey.objects.filter(created_at__lt=old).delete()[0]


@shared_task
def forget_shadow_answers() -> int:
    """Removes what shadows answered to rows that are no longer in the log; how many."""
    return shadow_retention.follow_the_log()


@shared_task
def join_waiting_outcomes() -> int:
    """Gives outcomes that came before their prediction the one that has come since; how many."""
    return matching.join_waiting()


@shared_task
def count_the_log() -> int:
    """Rolls up what was logged since, and adds up what became of it; how many rows were counted."""
    rows = 0

    def count(model: RegisteredModel) -> None:
        nonlocal rows
        rows += counting.roll_up(model, seconds=PIECE_SECONDS).rows
        realised.aggregate_changed_hours(model, seconds=PIECE_SECONDS)

    _one_by_one(RegisteredModel.objects.all(), count)
    return rows


@shared_task
def review_models() -> int:
    """Makes the drift reviews that are due, and queues the training runs they ask for; how many reviews."""
    made = 0

    def review(model: RegisteredModel) -> None:
        nonlocal made
        try:
            found = reviews.review_when_due(model, timezone.now())
        except VigiaError as error:  # no profile, say: nothing is broken
            log.warning("%s was not reviewed: %s", model, error)
            return
        if found is not None:
            made += 1
            run = retraining.ask_if_wanted(found)
            if run is not None:
                training_tasks.enqueue(run)

    _one_by_one(reviews.due(timezone.now()), review)
    return made


def _one_by_one(models: Iterable[RegisteredModel], work: Callable[[RegisteredModel], None]) -> None:
    """Does it for every model: what fails for one must not keep the others from theirs.

    Raises
    ------
    ExceptionGroup : it failed for some, whose names are notes of the errors; so the task has failed.
    """
    failed, done = [], 0
    for model in models:
        done += 1
        try:
            work(model)
        except Exception as error:
            error.add_note(model.name)
            failed.append(error)
            connection.close_if_unusable_or_obsolete()  # the next model gets another
    if failed:
        raise ExceptionGroup(f"it failed for {len(failed)} of {done} models", failed)


@shared_task
def remove_old_months() -> int:
    """Removes the months of the log beyond LOG_KEEP_MONTHS; how many."""
    if settings.LOG_KEEP_MONTHS <= 0:
        return 0
    done = retention.remove_before(retention.months_ago(settings.LOG_KEEP_MONTHS, timezone.now()))
    for each in done:
        if each.kept:
            log.info("%s stays in the log: %s", each.month.table, each.kept)
    return sum(not each.kept for each in done)
