"""Drift reviews: a comparison of one version's window of the log with the version's reference profile.

A review reads rollups, so its cost grows with the hours of its window, not with their rows. It is a row with
findings, and stores the counts that it was computed from.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet, Value

from core.errors import Conflict, NoActiveVersion
from predictions.drift import findings_events
from predictions.models import DriftFinding, DriftReview, Lock, Verdict
from predictions.quality import hourly, realised
from predictions.quality.hourly_tallies import task_of
from predictions.rollups import counting, reading
from predictions.rollups.hours import HOUR, whole
from training import providers
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from training.registry import lookup
from vigia_ml.declaration import SMALLER_IS_BETTER, MonitoringConfig
from vigia_ml.drift import performance_estimation, verdicts
from vigia_ml.drift.verdicts import Reviewed
from vigia_ml.schema import InvalidRows

LONGEST: Final = dt.timedelta(days=366)
COUNTING_SECONDS: Final = 10.0
"""Time limit of a review for counting rows that are not rolled up yet; beat counts the rest."""
RETRY_PAUSE: Final = dt.timedelta(hours=1)
"""Time after which a scheduled review with too few rows is repeated."""


class NoReferenceProfile(Conflict):
    """The version was trained before reference profiles were introduced."""

    code = "no_reference_profile"

    def __init__(self, version: ModelVersion) -> None:
        super().__init__(
            f"{version} has no reference profile; manage.py profile_versions computes it from its dataset"
        )


def review(
    model: RegisteredModel,
    since: dt.datetime,
    until: dt.datetime,
    *,
    version: ModelVersion | None = None,
    by: User | None = None,
    scheduled: bool = False,
) -> DriftReview:
    """Reviews a window now; returns the previous review of the same window if nothing has changed since.

    Parameters
    ----------
    since, until : half open; widened to whole hours, not beyond the present one.
    version : the version whose answers are reviewed; default: the active version.

    Raises
    ------
    NoActiveVersion, NoReferenceProfile
    InvalidRows : the window is empty, or longer than `LONGEST`.
    """
    providers.require_rows(model, "drift reviews")
    version = version or model.active_version
    if version is None:
        raise NoActiveVersion(model.name)
    reference = ReferenceProfile.objects.filter(version=version).first()
    if reference is None:
        raise NoReferenceProfile(version)
    since, until = whole_hours(since, until)
    if scheduled:
        hourly.aggregate_changed_hours(model, seconds=COUNTING_SECONDS, skip_resting=False)
    else:  # a client waits, and the aggregation of a large hour has no time limit
        hourly.catch_up(model, seconds=COUNTING_SECONDS)
    profile, watch = reference.profile, realised.watch_of(model)
    with counting.to_this_moment(model, seconds=COUNTING_SECONDS) as counted_to:
        counted = reading.window(version, since, until)
        traffic = reading.traffic(model, since, until, until - since)
        known = realised.of_window(model, since, until, version)
    verdict = verdicts.review(profile, counted, watch, importance_of(version))
    new = DriftReview(
        registered_model=model,
        version=version,
        since=since,
        until=until,
        counted_to=counted_to,
        rows=sum(rows for _, number, rows in traffic if number == version.number),
        verdict=verdict.verdict,
        reason=verdict.reason,
        expected=asdict(
            performance_estimation.expected(task_of(version), profile, counted, version.threshold)
        ),
        quality=[_as_json(each) | {"fell": has_fallen(each, model, watch)} for each in known],
        scheduled=scheduled,
        requested_by=by,
    )
    return _stored_once(new, verdict)


def _stored_once(new: DriftReview, reviewed: Reviewed) -> DriftReview:
    """Stores the review; returns the previous review of the same window if nothing has changed since."""
    same = DriftReview.objects.filter(version=new.version, since=new.since, until=new.until)
    with transaction.atomic():
        Lock.STORED_REVIEW.take(new.version_id)  # the second of two requests finds the first's review
        before = same.select_related("registered_model", "version").first()  # the newest
        if before is not None and not new.scheduled and _is_unchanged(before, new):
            return before
        if new.scheduled and new.verdict == Verdict.INSUFFICIENT:
            _delete_insufficient(new.version)
        new.save()
        DriftFinding.objects.bulk_create(
            DriftFinding(review=new, position=position, **asdict(finding))
            for position, finding in enumerate(reviewed.findings)
        )
        findings_events.emit_new(new, reviewed)
    return new


def _delete_insufficient(version: ModelVersion) -> None:
    """Deletes earlier reviews with too few rows: a quiet model gets one every hour, the last is enough."""
    of_version = DriftReview.objects.filter(version=version, scheduled=True)
    of_version.filter(verdict=Verdict.INSUFFICIENT, kept=False, run=None).delete()


def _is_unchanged(before: DriftReview, new: DriftReview) -> bool:
    fields = ("rows", "verdict", "reason", "quality", "expected")
    return all(getattr(before, name) == getattr(new, name) for name in fields)


def _as_json(quality: realised.Quality) -> dict[str, Any]:
    """Returns the quality as stored, without the window, which is the review's."""
    fields = realised.as_dict(quality)
    return {name: value for name, value in fields.items() if name not in ("since", "until")}


# -- window and criteria -------------------------------------------------------------------------------


def whole_hours(since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """Returns the window widened to whole hours, without future hours.

    Raises
    ------
    InvalidRows : the window is empty or too long.
    """
    low, high = whole(since, until)
    if since >= until or low >= high:
        raise _bad_window("since must be before until, and not in the future")
    if high - low > LONGEST:
        raise _bad_window(f"the window is too long; at most {LONGEST.days} days are accepted")
    return low, high


def _bad_window(message: str) -> InvalidRows:
    return InvalidRows.single("since", "out_of_bounds", message)


def importance_of(version: ModelVersion) -> dict[str, float] | None:
    """Returns column -> loss of the primary metric when it is shuffled; None if not measured."""
    importance = (version.evaluation or {}).get("importance")
    return {item["column"]: item["mean"] for item in importance["columns"]} if importance else None


def has_fallen(quality: realised.Quality, model: RegisteredModel, watch: MonitoringConfig) -> bool:
    """Returns whether the watched metric (`realised.watched_metric`) is worse than on the hold-out by more
    than `MonitoringConfig.quality_fall`, and chance does not explain it: the whole interval lies beyond."""
    metric = realised.watched_metric(model, quality.metrics)
    if quality.too_few or metric is None:
        return False
    now, then = quality.metrics.get(metric), quality.holdout.get(metric)
    if now is None or then is None or now.low is None or now.high is None:
        return False
    allowed = abs(then) * watch.quality_fall
    if metric in SMALLER_IS_BETTER:
        return now.low > then + allowed
    return now.high < then - allowed


# -- look-up and schedule ------------------------------------------------------------------------------


def latest_of(model_ids: Iterable[int]) -> QuerySet[DriftReview]:
    """Returns the review of each model that shows its present state; reviews of other windows do not count.

    Reviews of the active version come first; among them reviews of a full window come before shorter ones;
    then the newest window comes first, and of several windows with one end the last review. A scheduled
    review has a full window, and so has a review on demand that is as long; for a model without a schedule
    every window is full.
    """
    usual = ExpressionWrapper(F("registered_model__review_window_hours") * Value(HOUR), DurationField())
    is_full = Q(scheduled=True) | Q(registered_model__review_hours=0) | Q(since__lte=F("until") - usual)
    rows = DriftReview.objects.filter(registered_model_id__in=list(model_ids)).annotate(
        is_active=Q(version__status=ModelVersion.Status.ACTIVE), is_full=is_full
    )
    ordered = rows.order_by("registered_model_id", "-is_active", "-is_full", "-until", "-id")
    return ordered.distinct("registered_model_id").select_related("version")


def latest(model: RegisteredModel) -> DriftReview | None:
    """Returns the latest review of one model, see `latest_of`."""
    return latest_of([model.pk]).first()


def find(model: RegisteredModel, review_id: int) -> DriftReview:
    """Returns one review of a model, or raises `NotFound`."""
    rows = DriftReview.objects.select_related("registered_model", "version", "requested_by", "run")
    return lookup.get_row(rows.filter(registered_model=model), review_id, model.name, "drift review")


def keep(review: DriftReview, kept: bool) -> None:
    """Sets whether retention keeps the log's rows of the review's window."""
    DriftReview.objects.filter(pk=review.pk).update(kept=kept)
    review.kept = kept


def due(now: dt.datetime) -> Iterable[RegisteredModel]:
    """Yields the models whose next scheduled review is due and that have an active version."""
    active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE).values("registered_model_id")
    for model in RegisteredModel.objects.filter(review_hours__gt=0, archived_at=None, pk__in=active):
        if providers.find(model.name) is None and _is_due(model, now):
            yield model


def _is_due(model: RegisteredModel, now: dt.datetime) -> bool:
    last = DriftReview.objects.filter(registered_model=model, scheduled=True).first()
    if last is None:
        return True
    pause = dt.timedelta(hours=model.review_hours)
    if last.verdict == Verdict.INSUFFICIENT:
        pause = min(pause, RETRY_PAUSE)
    return last.created_at + pause <= now


def review_when_due(model: RegisteredModel, now: dt.datetime) -> DriftReview | None:
    """Makes a model's scheduled review; returns None if another process makes it or there are no rows."""
    with Lock.SCHEDULED_REVIEW.for_session(model.pk) as free:  # counting commits in pieces
        if not free or not _is_due(model, now):
            return None
        since = now - dt.timedelta(hours=model.review_window_hours)
        if not reading.has_rows(model, *whole_hours(since, now)):
            return None
        return review(model, since, now, scheduled=True)
