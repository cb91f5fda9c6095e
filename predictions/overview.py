"""Overview of all models, from rollups and indexes only, at the same cost for any length of the log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from core.uuid7 import lowest_at
from predictions.drift import reviews
from predictions.log import recent_counts
from predictions.models import DriftReview, Prediction, RolledHour
from predictions.quality import realised as quality
from predictions.quality.confidence_intervals import Estimate
from predictions.quality.realised import Quality
from training.models import ModelVersion, RegisteredModel

HOUR: Final = dt.timedelta(hours=1)
HOURS: Final = 24


@dataclass(slots=True)
class Traffic:
    """Predictions of the last `HOURS` hours.

    by_hour : oldest first; the last hour is not over. capped : the last hour has more rows than were counted.
    """

    by_hour: list[int] = field(default_factory=lambda: [0] * HOURS)
    capped: bool = False

    @property
    def rows(self) -> int:
        return sum(self.by_hour)

    def __str__(self) -> str:
        return f"{self.rows:,}{'+' if self.capped else ''}"


def traffic(model_ids: Iterable[int], now: dt.datetime) -> dict[int, Traffic]:
    """Returns each model's traffic: rolled-up rows, plus newer rows that the index counts up to a cap."""
    ids = sorted(model_ids)
    begin = now.replace(minute=0, second=0, microsecond=0) - HOUR * (HOURS - 1)
    by_model = {model_id: Traffic() for model_id in ids}
    counted_to: dict[int, Any] = {}
    rolled = RolledHour.objects.filter(registered_model_id__in=ids, hour__gte=begin, hour__lte=now)
    fields = ("registered_model_id", "hour", "rows", "upto")
    for model_id, hour, rows, upto in rolled.order_by("hour").values_list(*fields):
        by_model[model_id].by_hour[(hour - begin) // HOUR] += rows
        counted_to[model_id] = upto
    for model_id, counts in by_model.items():
        since = Prediction.objects.filter(
            registered_model_id=model_id, id__gte=counted_to.get(model_id, lowest_at(begin))
        )
        newer = since.order_by().values("pk")[: recent_counts.CAP + 1].count()
        counts.by_hour[-1] += min(newer, recent_counts.CAP)
        counts.capped = newer > recent_counts.CAP
    return by_model


def latest_reviews(model_ids: Iterable[int]) -> dict[int, DriftReview]:
    """Returns each model's latest review, see `reviews.latest_of`; models without reviews are left out."""
    fields = ("registered_model_id", "version_id", "verdict", "reason", "created_at", "version__number")
    return {row.registered_model_id: row for row in reviews.latest_of(model_ids).only(*fields)}


@dataclass(frozen=True, slots=True)
class Realised:
    """The watched metric of a version in the latest window.

    metric : its name, see `predictions.quality.realised.watched_metric`.
    fell : see `predictions.drift.reviews.has_fallen`.
    """

    metric: str
    quality: Quality
    fell: bool

    @property
    def estimate(self) -> Estimate | None:
        return None if self.quality.too_few else self.quality.metrics.get(self.metric)

    @property
    def holdout(self) -> float | None:
        return self.quality.holdout.get(self.metric)


def realised(model: RegisteredModel, version: ModelVersion, now: dt.datetime) -> Realised | None:
    """Returns the watched metric over the window of the model's scheduled reviews; None without outcomes."""
    until = now.replace(minute=0, second=0, microsecond=0) + HOUR
    since = until - HOUR * model.review_window_hours
    qualities = quality.of_window(model, since, until, version)
    if not qualities or not qualities[0].labelled:
        return None
    metric = quality.watched_metric(model, qualities[0].metrics)
    if metric is None:
        return None
    fell = reviews.has_fallen(qualities[0], model, quality.watch_of(model))
    return Realised(metric, qualities[0], fell)
