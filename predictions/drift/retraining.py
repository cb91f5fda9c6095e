"""A scheduled review may request a training run. The model's row enables it; the default is off.

The run trains on the active version's rows and the window's labelled rows. The new version goes through the
gate and the model's policy like any other version.
"""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions.models import DriftReview, Outcome, Verdict
from predictions.quality import realised
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.runs import requests as run_requests
from training.runs import row_sources
from vigia_ml.errors import VigiaError

Trigger = RegisteredModel.Trigger


def request_if_triggered(review: DriftReview) -> TrainingRun | None:
    """Returns the queued run that a review requests, or None; `run_note` holds the reason.

    The caller enqueues the run. The model's row is locked, so two concurrent reviews request one run.
    """
    trigger = _trigger(review)
    if not trigger:
        return None
    with transaction.atomic():
        model = RegisteredModel.objects.select_for_update(no_key=True).get(pk=review.registered_model_id)
        last = TrainingRun.objects.filter(reviews__registered_model=model).order_by("-reviews__pk").first()
        obstacle = _obstacle(model, review, last)
        run = None if obstacle else _request(model, _new_rows_since(review, _trained_on(model)), review.until)
        note = f"{trigger}; not requested: {obstacle}" if obstacle else trigger
        DriftReview.objects.filter(pk=review.pk).update(run=run, run_note=note)
    review.run, review.run_note = run, note
    return run


def _trigger(review: DriftReview) -> str:
    """Returns the reason for a run, in words; empty without one."""
    setting = review.registered_model.retrain_on
    reasons = []
    if setting in (Trigger.DRIFT, Trigger.EITHER) and review.verdict == Verdict.DRIFT:
        reasons.append("the review found drift")
    if setting in (Trigger.QUALITY, Trigger.EITHER) and any(each["fell"] for each in review.quality or []):
        reasons.append("the quality has fallen")
    return " and ".join(reasons)


def _trained_on(model: RegisteredModel) -> TrainingRun | None:
    """Returns the last requested run whose rows the active version was trained on, directly or by appending.

    The rows of a candidate that was never activated, or was rolled back, are not among them.
    """
    active = model.active_version
    if active is None:
        return None
    rows = TrainingRun.objects.filter(
        reviews__registered_model=model,
        status=TrainingRun.Status.SUCCEEDED,
        version__status__in=[ModelVersion.Status.ACTIVE, ModelVersion.Status.RETIRED],
        version__number__lte=active.number,
    )
    return rows.order_by("-pk").first()


def _new_rows_since(review: DriftReview, run: TrainingRun | None) -> dt.datetime:
    """Returns the time from which the review's window has rows that the run did not use."""
    if run is None or run.source is None:
        return review.since
    return max(review.since, dt.datetime.fromisoformat(run.source["until"]))


def _obstacle(model: RegisteredModel, review: DriftReview, last: TrainingRun | None) -> str:
    """Returns the reason why a triggered run is not requested, in words; empty without one.

    last : the last run that a review of the model requested.
    """
    if review.version_id != getattr(model.active_version, "pk", None):
        return f"{review.version} is no longer the active version"
    try:
        run_requests.require_declared(model)
    except VigiaError as error:
        return error.message
    under_way = model.runs.filter(status__in=[TrainingRun.Status.QUEUED, TrainingRun.Status.RUNNING]).first()
    if under_way is not None:
        return f"{under_way} is under way"
    pause = dt.timedelta(hours=model.retrain_cooldown_hours)
    if last is not None and last.queued_at + pause > timezone.now():
        return f"{last} was recent; the next may follow from {last.queued_at + pause:%Y-%m-%d %H:%M} UTC on"
    # Without new rows the run would produce the same candidate again.
    has_succeeded = last is not None and last.status == TrainingRun.Status.SUCCEEDED
    since = _new_rows_since(review, last if has_succeeded else _trained_on(model))
    minimum = realised.watch_of(model).minimum_outcomes
    labelled = _labelled(model, since, review.until, minimum)
    if labelled < minimum:
        return (
            f"{labelled} rows since {since:%Y-%m-%d %H:%M} UTC have an outcome; at least {minimum} are needed"
        )
    return ""


def _labelled(model: RegisteredModel, since: dt.datetime, until: dt.datetime, most: int) -> int:
    """Counts predictions with an outcome, up to `most`."""
    rows = Outcome.objects.filter(
        registered_model=model, prediction_id__gte=lowest_at(since), prediction_id__lt=lowest_at(until)
    )
    return rows.order_by().values("prediction_id").distinct()[:most].count()


def _request(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> TrainingRun:
    outcomes = {"from": "outcomes", "since": since.isoformat(), "until": until.isoformat()}
    source = row_sources.checked(outcomes)
    return run_requests.request(model, None, mode=TrainingRun.Mode.APPEND, by=None, source=source)
