"""A scheduled review may ask for a training run. Off unless the model's row says otherwise.

The run trains on the active version's rows and those of the window whose outcome is known, and what comes of
it goes through the gate and the model's policy like any other version.
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


def ask_if_wanted(review: DriftReview) -> TrainingRun | None:
    """The run that a review asks for, queued; None where none is wanted, with the reason in `run_note`.

    The caller enqueues it. Two reviews at once ask for one run: the model's row is locked.
    """
    wanted = _wanted(review)
    if not wanted:
        return None
    with transaction.atomic():
        model = RegisteredModel.objects.select_for_update(no_key=True).get(pk=review.registered_model_id)
        last = _last(model)
        held_back = _held_back(model, review, last)
        made = None if held_back else _request(model, _behind(review, _learnt(model)), review.until)
        note = f"{wanted}; not asked for: {held_back}" if held_back else wanted
        DriftReview.objects.filter(pk=review.pk).update(run=made, run_note=note)
    review.run, review.run_note = made, note
    return made


def _wanted(review: DriftReview) -> str:
    """Why a run is wanted, in words; empty when it is not."""
    wish = review.registered_model.retrain_on
    found = []
    if wish in (Trigger.DRIFT, Trigger.EITHER) and review.verdict == Verdict.DRIFT:
        found.append("the review found drift")
    if wish in (Trigger.QUALITY, Trigger.EITHER) and any(each["fell"] for each in review.quality or []):
        found.append("the quality has fallen")
    return " and ".join(found)


def _last(model: RegisteredModel) -> TrainingRun | None:
    """The last run that a review asked for."""
    rows = DriftReview.objects.filter(registered_model=model, run__isnull=False).select_related("run")
    found = rows.first()
    return found.run if found is not None else None


def _learnt(model: RegisteredModel) -> TrainingRun | None:
    """The last such run whose rows the active version was trained on, its own or those it was appended to.

    A candidate that nobody has activated, or that was rolled back, took its rows with it.
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


def _behind(review: DriftReview, run: TrainingRun | None) -> dt.datetime:
    """From when on there are rows in the review's window that a run has not seen."""
    if run is None or run.source is None:
        return review.since
    return max(review.since, dt.datetime.fromisoformat(run.source["until"]))


def _held_back(model: RegisteredModel, review: DriftReview, last: TrainingRun | None) -> str:
    """Why it is not asked for although it is wanted, in words."""
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
        return f"after {last} the next may follow from {last.queued_at + pause:%Y-%m-%d %H:%M} UTC on"
    # Without news the same rows would make the same candidate again.
    has_succeeded = last is not None and last.status == TrainingRun.Status.SUCCEEDED
    since = _behind(review, last if has_succeeded else _learnt(model))
    least = realised.watch_of(model).minimum_outcomes
    known = _known(model, since, review.until, least)
    if known < least:
        return f"{known} rows since {since:%Y-%m-%d %H:%M} UTC have an outcome, and {least} are the least"
    return ""


def _known(model: RegisteredModel, since: dt.datetime, until: dt.datetime, most: int) -> int:
    """Predictions whose outcome is known, counted no further than `most`."""
    rows = Outcome.objects.filter(
        registered_model=model, prediction_id__gte=lowest_at(since), prediction_id__lt=lowest_at(until)
    )
    return rows.order_by().values("prediction_id").distinct()[:most].count()


def _request(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> TrainingRun:
    asked = {"from": "outcomes", "since": since.isoformat(), "until": until.isoformat()}
    source = row_sources.checked(asked)
    return run_requests.request(model, None, mode=TrainingRun.Mode.APPEND, by=None, source=source)
