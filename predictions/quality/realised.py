"""Quality as it was realised: what the labelled predictions of a window say of each version.

Windows are whole hours, by time of the prediction: an outcome that comes a month later changes the hour in
which the prediction was made. `aggregate_changed_hours` keeps the hours; here their tallies are put
together, so that reading costs as many rows as a window has hours and versions.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from django.utils import timezone

from core.uuid7 import EPOCH
from predictions.models import ChangedHour, QualityHour
from predictions.quality import metrics as realised
from predictions.quality.confidence_intervals import Estimate
from predictions.quality.hourly import aggregate_changed_hours, catch_up, mark_all_hours_dirty
from predictions.quality.hourly_sql import HOUR, task_of
from predictions.quality.metrics import Tally
from predictions.rollups import reading
from training import catalogue
from training.models import ModelVersion, RegisteredModel
from training.reports import side_by_side
from vigia_ml.declaration import ModelDeclaration, MonitoringConfig

__all__ = [
    "Quality",
    "aggregate_changed_hours",
    "as_dict",
    "by_step",
    "catch_up",
    "mark_all_hours_dirty",
    "of_window",
    "pending_hours",
    "watch_of",
    "watched_metric",
    "whole_hours",
]

MOMENT: Final = dt.timedelta(microseconds=1)
"""The shortest time there is."""
INSTEAD: Final = "accuracy"
"""Watched where outcomes cannot say the primary metric of a classifier. Its interval holds in a window of
fifty rows; that of a macro F1 does not, where some of the classes are rare."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What became of one version's answers in a window.

    since, until : whole hours, half open. answered : rows the log has. labelled : of them, those whose
    outcome is known. unusable : of these, with an actual value that is none of the version's target.
    coverage : labelled / answered; None without rows. median_delay_seconds : from prediction to
    `observed_at`.
    too_few : fewer usable rows than the model asks for, so that there are no metrics and no calibration.
    metrics : by the names of `vigia_ml.declaration`, with 95 % intervals. holdout : the same on the hold-out.
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


def of_window(
    model: RegisteredModel, since: dt.datetime, until: dt.datetime, version: ModelVersion | None = None
) -> list[Quality]:
    """Of each version that answered or has outcomes in the window, by number; or of `version`, whatever it
    has.

    Parameters
    ----------
    since, until : widened to whole hours, see `whole_hours`.
    """
    since, until = whole_hours(since, until)
    every = model.versions.order_by("number")
    # A model may have thousands, and their schemas are long: only what has something is read whole.
    versions = [version] if version is not None else list(every.only("registered_model_id"))
    answered: dict[int, int] = defaultdict(int)
    for version_id, _, rows in reading.answered_by_hour(versions, since, until):
        answered[version_id] += rows
    kept: dict[int, list[Tally]] = defaultdict(list)
    for version_id, _, tally in _tallies(versions, since, until):
        kept[version_id].append(tally)
    if version is None:
        versions = list(every.filter(pk__in={*kept, *answered}).select_related("registered_model"))
    return [
        _quality(each, kept.get(each.pk, ()), since, until, answered.get(each.pk, 0)) for each in versions
    ]


def by_step(
    version: ModelVersion, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[Quality]:
    """Of one version, over time; steps without rows left out.

    Parameters
    ----------
    since, until : widened to whole hours. step : whole hours; steps begin where whole ones since 1970 do, so
        that a day's is midnight in UTC.
    """
    since, until = whole_hours(since, until)
    answered: dict[dt.datetime, int] = defaultdict(int)
    for _, hour, rows in reading.answered_by_hour([version], since, until):
        answered[_floor(hour, step)] += rows
    kept: dict[dt.datetime, list[Tally]] = defaultdict(list)
    for _, hour, tally in _tallies([version], since, until):
        kept[_floor(hour, step)].append(tally)
    return [
        _quality(
            version, kept.get(start, ()), max(start, since), min(start + step, until), answered.get(start, 0)
        )
        for start in sorted({*answered, *kept})
    ]


def as_dict(quality: Quality) -> dict[str, Any]:
    """As the API shows it: moments stay moments."""
    return asdict(quality) | {"metrics": {name: each.as_dict() for name, each in quality.metrics.items()}}


def whole_hours(since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The window, widened to whole hours, from 1970 on and no further than the present hour."""
    latest = _floor(timezone.now(), HOUR) + HOUR
    since, until = max(since, EPOCH), min(max(until, EPOCH), latest)
    return _floor(since, HOUR), _floor(until + HOUR - MOMENT, HOUR)


def pending_hours(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> int:
    """Hours of the window whose outcomes have changed since they were added up."""
    since, until = whole_hours(since, until)
    return ChangedHour.objects.filter(registered_model=model, hour__gte=since, hour__lt=until).count()


def watch_of(model: RegisteredModel) -> MonitoringConfig:
    """What the model's declaration asks for; the usual where its file is gone."""
    try:
        return catalogue.get(model.name).watch
    except catalogue.UnknownDeclaration:
        return MonitoringConfig()


def watched_metric(model: RegisteredModel) -> str | None:
    """The metric by which the model's quality is watched: the primary one where outcomes can say it (see
    `realised.METRICS`), else `INSTEAD`; None when the model is declared no longer."""
    declared, primary = side_by_side.declaration(model), side_by_side.primary_metric(model)
    if isinstance(declared, ModelDeclaration) and primary not in realised.METRICS[declared.task]:
        return INSTEAD
    return primary


def _floor(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    return EPOCH + (moment - EPOCH) // step * step


def _quality(
    version: ModelVersion, tallies: Iterable[Tally], since: dt.datetime, until: dt.datetime, answered: int
) -> Quality:
    task, _ = task_of(version)
    tally = realised.added(tallies, task)
    too_few = tally.usable < watch_of(version.registered_model).minimum_outcomes
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
        metrics={} if too_few else realised.metrics(tally),
        holdout=dict(version.metrics),
        calibration=None if too_few else realised.calibration(tally),
    )


def _tallies(
    versions: Sequence[ModelVersion], since: dt.datetime, until: dt.datetime
) -> Iterator[tuple[int, dt.datetime, Tally]]:
    rows = QualityHour.objects.filter(version__in=versions, hour__gte=since, hour__lt=until)
    for version_id, hour, tallies in rows.values_list("version_id", "hour", "tallies").iterator():
        yield version_id, hour, Tally.from_json(tallies)
