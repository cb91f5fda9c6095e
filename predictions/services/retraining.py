"""A scheduled review may ask for a training run. Off unless the model's row says otherwise.

The run trains on the active version's rows and those of the window whose outcome is known, and what comes of
it goes through the gate and the model's policy like any other version.
"""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.utils import timezone

from predictions.identifiers import lowest_at
from predictions.models import DriftReview, Outcome, Verdict
from predictions.services import quality
from training.models import RegisteredModel, TrainingRun
from training.services import runs, sources

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
        since = _since(review, last)
        held_back = _held_back(model, review, last, since)
        made = None if held_back else _request(model, since, review.until)
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


def _since(review: DriftReview, last: TrainingRun | None) -> dt.datetime:
    """From when on rows are taken: what the last such run has seen is not appended again."""
    seen = dt.datetime.fromisoformat(last.source["until"]) if last is not None and last.source else None
    has_learnt = last is not None and last.status == TrainingRun.Status.SUCCEEDED
    return max(review.since, seen) if seen is not None and has_learnt else review.since


def _held_back(
    model: RegisteredModel, review: DriftReview, last: TrainingRun | None, since: dt.datetime
) -> str:
    """Why it is not asked for although it is wanted, in words."""
    if review.version_id != getattr(model.active_version, "pk", None):
        return f"{review.version} is no longer the active version"
    under_way = model.runs.filter(status__in=[TrainingRun.Status.QUEUED, TrainingRun.Status.RUNNING]).first()
    if under_way is not None:
        return f"{under_way} is under way"
    pause = dt.timedelta(hours=model.retrain_cooldown_hours)
    if last is not None and last.queued_at + pause > timezone.now():
        return f"after {last} the next may follow from {last.queued_at + pause:%Y-%m-%d %H:%M} UTC on"
    least = quality.watch_of(model).minimum_outcomes
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
    source = sources.checked(asked)
    return runs.request(model, None, mode=TrainingRun.Mode.APPEND, by=None, source=source)
