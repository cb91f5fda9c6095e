"""Drift reviews: a window of the log, as one version answered it, beside the version's reference profile.

A review reads rollups, so what it costs grows with the hours of its window, not with their rows. It is a row
with its findings, and holds the counts it was made of.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet, Value
from django.utils import timezone

from core.errors import Conflict, NoActiveVersion, NotFound
from predictions.models import DriftFinding, DriftReview, Verdict
from predictions.quality import realised
from predictions.quality.hourly_sql import task_of
from predictions.rollups import counting, reading
from training import providers
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.declaration import SMALLER_IS_BETTER, MonitoringConfig
from vigia_ml.drift import performance_estimation, verdicts
from vigia_ml.drift.verdicts import Reviewed
from vigia_ml.schema import Fault, InvalidRows

HOUR: Final = dt.timedelta(hours=1)
LONGEST: Final = dt.timedelta(days=366)
COUNTING_SECONDS: Final = 10.0
"""How long a review that somebody waits for counts what is not rolled up yet; beat counts the rest."""
LOCK: Final = 22126
"""Class of the advisory lock under which a model's scheduled review is made, with the model's id."""
KEEPING: Final = 22127
"""Class of the advisory lock under which a version's reviews are kept, with its id."""
SOONER: Final = dt.timedelta(hours=1)
"""After so long a scheduled review is made anew that had too few rows."""


class NoReferenceProfile(Conflict):
    """The version was trained before reference profiles were kept."""

    code = "no_reference_profile"

    def __init__(self, version: ModelVersion) -> None:
        super().__init__(
            f"{version} has no reference profile: manage.py profile_versions makes it from its stored dataset"
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
    """Reviews a window now. One that was reviewed before and has not changed since gives the review of then.

    Parameters
    ----------
    since, until : half open; rounded to the whole hours around it, and no later than the present one.
    version : whose answers; without one the active version's.

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
        realised.aggregate_changed_hours(model, seconds=COUNTING_SECONDS, skip_resting=False)
    else:  # somebody waits, and adding up a large hour takes as long as it takes
        realised.catch_up(model, seconds=COUNTING_SECONDS)
    profile, watch = reference.profile, realised.watch_of(model)
    with counting.to_this_moment(model, seconds=COUNTING_SECONDS) as counted_to:
        counted = reading.window(version, since, until)
        traffic = reading.traffic(model, since, until, until - since)
        known = realised.of_window(model, since, until, version)
    reviewed = verdicts.review(profile, counted, watch, importance_of(version))
    made = DriftReview(
        registered_model=model,
        version=version,
        since=since,
        until=until,
        counted_to=counted_to,
        rows=sum(rows for _, number, rows in traffic if number == version.number),
        verdict=reviewed.verdict,
        reason=reviewed.reason,
        expected=asdict(
            performance_estimation.expected(task_of(version)[0], profile, counted, version.threshold)
        ),
        quality=[_as_json(each) | {"fell": has_fallen(each, model, watch)} for each in known],
        scheduled=scheduled,
        requested_by=by,
    )
    return _kept_once(made, reviewed)


def _kept_once(made: DriftReview, reviewed: Reviewed) -> DriftReview:
    """The review as a row; the one of the same window where nothing has changed since it was made."""
    same = DriftReview.objects.filter(version=made.version, since=made.since, until=made.until)
    with transaction.atomic():
        with connection.cursor() as cursor:  # of two who ask at once, the second finds the first one's
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [KEEPING, made.version_id % 2**31])
        before = same.select_related("registered_model", "version").first()  # the newest
        if before is not None and not made.scheduled and _says_the_same(before, made):
            return before
        if made.scheduled and made.verdict == Verdict.INSUFFICIENT:
            _forget_those_too_few(made.version)
        made.save()
        DriftFinding.objects.bulk_create(
            DriftFinding(review=made, position=position, **asdict(found))
            for position, found in enumerate(reviewed.findings)
        )
    return made


def _forget_those_too_few(version: ModelVersion) -> None:
    """A quiet model is looked at every hour: the last such review is enough."""
    of_version = DriftReview.objects.filter(version=version, scheduled=True)
    of_version.filter(verdict=Verdict.INSUFFICIENT, kept=False, run=None).delete()


def _says_the_same(before: DriftReview, made: DriftReview) -> bool:
    fields = ("rows", "verdict", "reason", "quality", "expected")
    return all(getattr(before, name) == getattr(made, name) for name in fields)


def _as_json(found: realised.Quality) -> dict[str, Any]:
    """As it is stored; the window is the review's."""
    return {name: value for name, value in realised.as_dict(found).items() if name not in ("since", "until")}


# -- what it is made of --------------------------------------------------------------------------------


def whole_hours(since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The whole hours around a window, none of them in the future.

    Raises
    ------
    InvalidRows : there is none, or there are too many.
    """
    present = _floor(timezone.now()) + HOUR
    if not since < min(until, present):
        raise _bad("since must be before until, and not in the future")
    # What lies beyond the present hour is cut off first: the hour after the year 9999 is none.
    low, high = _floor(since), _floor(min(until, present) - dt.timedelta(microseconds=1)) + HOUR
    if high - low > LONGEST:
        raise _bad(f"a window may have {LONGEST.days} days at most")
    return low, high


def _floor(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def _bad(said: str) -> InvalidRows:
    return InvalidRows([Fault("since", "out_of_bounds", said)], message=said)


def importance_of(version: ModelVersion) -> dict[str, float] | None:
    """Column -> what the primary metric loses when it is shuffled; None where that was not measured."""
    found = (version.evaluation or {}).get("importance")
    return {item["column"]: item["mean"] for item in found["columns"]} if found else None


def has_fallen(found: realised.Quality, model: RegisteredModel, watch: MonitoringConfig) -> bool:
    """Whether the watched metric (`quality.watched_metric`) is worse than on the hold-out by
    `MonitoringConfig.quality_fall`, chance aside: its whole interval lies beyond."""
    metric = realised.watched_metric(model)
    if found.too_few or metric is None:
        return False
    now, then = found.metrics.get(metric), found.holdout.get(metric)
    if now is None or then is None or now.low is None or now.high is None:
        return False
    allowed = abs(then) * watch.quality_fall
    if metric in SMALLER_IS_BETTER:
        return now.low > then + allowed
    return now.high < then - allowed


# -- asking for them -----------------------------------------------------------------------------------


def latest_of(model_ids: Iterable[int]) -> QuerySet[DriftReview]:
    """The review of each model that says what it is doing now, which no look at something else changes.

    Those of the active version come before all others; of them, those of a whole window before shorter ones;
    then the newest window, and of several that end alike the one made last. A whole window is that of a
    scheduled review, or one on demand that is as long; of a model without a schedule, every one.
    """
    usual = ExpressionWrapper(F("registered_model__review_window_hours") * Value(HOUR), DurationField())
    whole = Q(scheduled=True) | Q(registered_model__review_hours=0) | Q(since__lte=F("until") - usual)
    rows = DriftReview.objects.filter(registered_model_id__in=list(model_ids)).annotate(
        is_active=Q(version__status=ModelVersion.Status.ACTIVE), is_whole=whole
    )
    ordered = rows.order_by("registered_model_id", "-is_active", "-is_whole", "-until", "-id")
    return ordered.distinct("registered_model_id").select_related("version")


def latest(model: RegisteredModel) -> DriftReview | None:
    """What is said of one model, see `latest_of`."""
    return latest_of([model.pk]).first()


def find(model: RegisteredModel, review_id: int) -> DriftReview:
    """One review of a model, or `NotFound`."""
    rows = DriftReview.objects.select_related("registered_model", "version", "requested_by", "run")
    found = rows.filter(registered_model=model, pk=review_id).first() if review_id < 2**63 else None
    if found is None:
        raise NotFound(f"{model.name} has no drift review {str(review_id)[:20]}")
    return found


def keep(found: DriftReview, kept: bool) -> DriftReview:
    """Whether retention has to leave the log's rows that the review is about."""
    DriftReview.objects.filter(pk=found.pk).update(kept=kept)
    found.kept = kept
    return found


def due(now: dt.datetime) -> Iterable[RegisteredModel]:
    """Models whose next scheduled review is due: they have an active version, and answered something."""
    active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE).values("registered_model_id")
    for model in RegisteredModel.objects.filter(review_hours__gt=0, pk__in=active):
        if providers.find(model.name) is None and _is_due(model, now):
            yield model


def _is_due(model: RegisteredModel, now: dt.datetime) -> bool:
    last = DriftReview.objects.filter(registered_model=model, scheduled=True).first()
    if last is None:
        return True
    pause = dt.timedelta(hours=model.review_hours)
    if last.verdict == Verdict.INSUFFICIENT:
        pause = min(pause, SOONER)
    return last.created_at + pause <= now


def review_when_due(model: RegisteredModel, now: dt.datetime) -> DriftReview | None:
    """The scheduled review of a model; None where another process makes it, or there is nothing to review."""
    with _only_one(model) as free:
        if not free or not _is_due(model, now):
            return None
        since = now - dt.timedelta(hours=model.review_window_hours)
        if not reading.has_rows(model, *whole_hours(since, now)):
            return None
        return review(model, since, now, scheduled=True)


@contextmanager
def _only_one(model: RegisteredModel) -> Iterator[bool]:
    """Whether this is the only process at it; of the session, since counting commits piece by piece."""
    key = [LOCK, model.pk % 2**31]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", key)
        free = bool(cursor.fetchone()[0])
        try:
            yield free
        finally:
            if free:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", key)
