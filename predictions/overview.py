"""Every model at a glance: from rollups and by indexes alone, whatever the log's length."""

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
    """Predictions of the last `HOURS` hours. by_hour : oldest first; the last hour is not over.

    capped : there are more in the last hour than were counted.
    """

    by_hour: list[int] = field(default_factory=lambda: [0] * HOURS)
    capped: bool = False

    @property
    def rows(self) -> int:
        return sum(self.by_hour)

    def __str__(self) -> str:
        return f"{self.rows:,}{'+' if self.capped else ''}"


def traffic(model_ids: Iterable[int], now: dt.datetime) -> dict[int, Traffic]:
    """What was rolled up, and what has come since, counted by the index and up to a cap for each model."""
    ids = sorted(model_ids)
    begin = now.replace(minute=0, second=0, microsecond=0) - HOUR * (HOURS - 1)
    found = {model_id: Traffic() for model_id in ids}
    counted_to: dict[int, Any] = {}
    rolled = RolledHour.objects.filter(registered_model_id__in=ids, hour__gte=begin, hour__lte=now)
    fields = ("registered_model_id", "hour", "rows", "upto")
    for model_id, hour, rows, upto in rolled.order_by("hour").values_list(*fields):
        found[model_id].by_hour[(hour - begin) // HOUR] += rows
        counted_to[model_id] = upto
    for model_id, seen in found.items():
        since = Prediction.objects.filter(
            registered_model_id=model_id, id__gte=counted_to.get(model_id, lowest_at(begin))
        )
        newer = since.order_by().values("pk")[: recent_counts.CAP + 1].count()
        seen.by_hour[-1] += min(newer, recent_counts.CAP)
        seen.capped = newer > recent_counts.CAP
    return found


def latest_reviews(model_ids: Iterable[int]) -> dict[int, DriftReview]:
    """The review that says what each model is doing now, where it has one."""
    fields = ("registered_model_id", "version_id", "verdict", "reason", "created_at", "version__number")
    return {row.registered_model_id: row for row in reviews.latest_of(model_ids).only(*fields)}


@dataclass(frozen=True, slots=True)
class Realised:
    """What a version's watched metric came to lately.

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
    """Over the window that the model's scheduled reviews have; None without any outcome."""
    metric = quality.watched_metric(model)
    until = now.replace(minute=0, second=0, microsecond=0) + HOUR
    since = until - HOUR * model.review_window_hours
    found = quality.of_window(model, since, until, version)
    if metric is None or not found or not found[0].labelled:
        return None
    fell = reviews.has_fallen(found[0], model, quality.watch_of(model))
    return Realised(metric, found[0], fell)
