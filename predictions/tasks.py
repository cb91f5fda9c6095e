"""The log's housekeeping, by beat."""

from __future__ import annotations

import datetime as dt

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from predictions import partitions
from predictions.models import IdempotencyKey
from predictions.services import joining, shadows
from predictions.services.retention import is_in_the_log
from training.models import RegisteredModel
from training.services import pruning


@shared_task
def make_partitions() -> list[str]:
    """Makes the log's partitions for the coming months; the names of those made."""
    return partitions.ensure(timezone.now(), settings.PARTITIONS_AHEAD)


@shared_task
def prune_artifacts() -> int:
    """Prunes the models whose row says how many retired artifacts are kept; how many artifacts went."""
    went = 0
    for model in RegisteredModel.objects.filter(kept_artifacts__isnull=False):
        done = pruning.prune(model, is_referred_to=is_in_the_log)
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
    return shadows.follow_the_log()


@shared_task
def join_waiting_outcomes() -> int:
    """Gives outcomes that came before their prediction the one that has come since; how many."""
    return joining.join_waiting()
