"""Realised quality of each version in a window, from the hourly tallies.

Windows are whole hours by time of the prediction: an outcome that arrives a month later changes the hour of
its prediction. `predictions.quality.hourly` maintains the hours; this module sums their tallies, so a read
costs one row per hour and version of the window.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from core.uuid7 import EPOCH
from predictions.models import ChangedHour, QualityHour
from predictions.quality import metrics as realised
from predictions.quality.confidence_intervals import Estimate
from predictions.quality.hourly_tallies import task_of
from predictions.quality.metrics import Tally
from predictions.rollups import hours, reading
from predictions.rollups.hours import floor
from training.models import ModelVersion, RegisteredModel
from training.registry import declarations
from training.reports import side_by_side
from vigia_ml.declaration import ModelDeclaration, MonitoringConfig

K = TypeVar("K", bound=Hashable)
FALLBACK_METRIC: Final = "accuracy"
"""Watched metric of several classes if the outcomes do not allow the primary metric with an interval. Its own
interval is valid in a window of fifty rows; the interval of a macro F1 is not, if some classes are rare."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The realised quality of one version in a window.

    since, until : whole hours, half open. answered : logged rows. labelled : rows with an outcome.
    unusable : labelled rows whose actual value is not valid for the target. with_probabilities : usable rows
    that have the probability of every class; None for two classes and for a regression.
    coverage : labelled / answered; None without rows. median_delay_seconds : from prediction to
    `observed_at`.
    too_few : the usable rows are fewer than the declaration requires, so metrics and calibration are empty.
    metrics : by the names of `vigia_ml.declaration`, with 95 % intervals; those of `metrics.OF_EVERY_CLASS`
    need as many rows with every class's probability. holdout : the same on the hold-out.
    calibration : see `predictions.quality.metrics.calibration`.
    """

    version: int
    since: dt.datetime
    until: dt.datetime
    answered: int
    labelled: int
    unusable: int
    coverage: float | None
    median_delay_seconds: float | None
    too_few: bool
    metrics: dict[str, Estimate]
    holdout: dict[str, float]
    calibration: dict[str, Any] | None
    with_probabilities: int | None = None


def of_window(
    model: RegisteredModel, since: dt.datetime, until: dt.datetime, version: ModelVersion | None = None
) -> list[Quality]:
    """Returns the quality of each version with answers or outcomes in the window, by number, or of `version`.

    Parameters
    ----------
    since, until : widened to whole hours, see `whole_hours`.
    """
    since, until = whole_hours(since, until)
    every = model.versions.order_by("number")
    # A model may have thousands of versions with long schemas: only versions with rows are loaded in full.
    versions = [version] if version is not None else list(every.only("registered_model_id"))
    answered, tallies = _figures(versions, since, until, lambda version_id, hour: version_id)
    if version is None:
        versions = list(every.filter(pk__in={*tallies, *answered}).select_related("registered_model"))
    return [_quality(each, tallies[each.pk], since, until, answered[each.pk]) for each in versions]


def by_step(
    version: ModelVersion, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[Quality]:
    """Returns the quality of one version over time, without steps that have no rows.

    Parameters
    ----------
    since, until : widened to whole hours. step : whole hours; steps are counted from 1970, so that a day
        begins at midnight in UTC.
    """
    since, until = whole_hours(since, until)
    answered, tallies = _figures([version], since, until, lambda _, hour: floor(hour, step))
    return [
        _quality(version, tallies[start], max(start, since), min(start + step, until), answered[start])
        for start in sorted({*answered, *tallies})
    ]


def as_dict(quality: Quality) -> dict[str, Any]:
    """Returns the fields that the API shows; times stay datetimes."""
    return asdict(quality) | {"metrics": {name: each.as_dict() for name, each in quality.metrics.items()}}


def whole_hours(since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """Returns the window widened to whole hours, within 1970 and the end of the present hour."""
    return hours.whole(max(since, EPOCH), max(until, EPOCH))


def pending_hours(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> int:
    """Returns the number of the window's hours whose outcomes changed since their aggregation."""
    since, until = whole_hours(since, until)
    return ChangedHour.objects.filter(registered_model=model, hour__gte=since, hour__lt=until).count()


def watch_of(model: RegisteredModel) -> MonitoringConfig:
    """Returns the monitoring settings of the model's declaration; the defaults if its file was removed."""
    declared = declarations.find(model)
    return MonitoringConfig() if declared is None else declared.watch


def watched_metric(model: RegisteredModel, metrics: Mapping[str, Any]) -> str | None:
    """Returns the metric that quality reviews watch: the primary one, or for several classes
    `FALLBACK_METRIC` if the primary one needs the probability of every class (see
    `realised.OF_EVERY_CLASS`) and too few rows have it; None if the model's declaration was removed.

    Parameters
    ----------
    metrics : see `Quality.metrics`; or the same as stored with a review.
    """
    declared, primary = side_by_side.declaration(model), side_by_side.primary_metric(model)
    if not isinstance(declared, ModelDeclaration) or declared.task != "multiclass":
        return primary
    if primary not in realised.OF_EVERY_CLASS:
        return primary
    estimate = metrics.get(primary)
    if isinstance(estimate, Estimate):
        estimate = estimate.as_dict()
    return primary if estimate and estimate.get("low") is not None else FALLBACK_METRIC


def _quality(
    version: ModelVersion, tallies: Iterable[Tally], since: dt.datetime, until: dt.datetime, answered: int
) -> Quality:
    tally = realised.total_of(tallies, task_of(version))
    least = watch_of(version.registered_model).minimum_outcomes
    too_few = tally.usable < least
    metrics = {} if too_few else realised.metrics(tally)
    if tally.classed is not None and tally.classed < least:
        metrics = {name: each for name, each in metrics.items() if name not in realised.OF_EVERY_CLASS}
    return Quality(
        version=version.number,
        since=since,
        until=until,
        answered=answered,
        labelled=tally.rows,
        unusable=tally.unusable,
        coverage=tally.rows / answered if answered else None,
        median_delay_seconds=realised.median_delay(tally),
        too_few=too_few,
        metrics=metrics,
        holdout=dict(version.metrics),
        calibration=None if too_few else realised.calibration(tally),
        with_probabilities=tally.classed,
    )


def _figures(
    versions: Sequence[ModelVersion],
    since: dt.datetime,
    until: dt.datetime,
    key: Callable[[int, dt.datetime], K],
) -> tuple[dict[K, int], dict[K, list[Tally]]]:
    """Returns answered rows and tallies by the key of version id and hour."""
    answered: dict[K, int] = defaultdict(int)
    for version_id, hour, rows in reading.answered_by_hour(versions, since, until):
        answered[key(version_id, hour)] += rows
    tallies: dict[K, list[Tally]] = defaultdict(list)
    kept = QualityHour.objects.filter(version__in=versions, hour__gte=since, hour__lt=until)
    for version_id, hour, tally in kept.values_list("version_id", "hour", "tallies").iterator():
        tallies[key(version_id, hour)].append(Tally.from_json(tally))
    return answered, tallies
